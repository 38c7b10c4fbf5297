"""The history checker must notice every kind of broken promise: a checker that cannot fail proves nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.chaos.history import broken_promises


def event(kind: str, owner: str | None = None, fence: int | None = None, *, job: str = "j") -> dict:
    return {"seq": 0, "ledger_id": job, "kind": kind, "owner": owner, "fence": fence}


SUBMITTED, CLAIM = event("submitted"), event("claimed", "a", 1)
GOOD = [SUBMITTED, CLAIM, event("expired", "a", 1), event("claimed", "b", 2), event("verdict", "b", 2), event("delivered")]


def test_a_good_history_is_good():
    assert broken_promises(GOOD) == []
    assert broken_promises([SUBMITTED, CLAIM, event("released", "a", 1), event("claimed", "a", 2), event("poisoned", "a", 2)]) == []


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ([SUBMITTED], "never ended"),
        ([SUBMITTED, SUBMITTED, CLAIM, event("verdict", "a", 1)], "submitted twice"),
        ([CLAIM, event("verdict", "a", 1)], "never submitted"),
        ([SUBMITTED, event("verdict", "a", 1)], "while None held it"),
        ([SUBMITTED, CLAIM, event("verdict", "b", 1)], "while \\('a', 1\\) held it"),
        ([SUBMITTED, CLAIM, event("claimed", "b", 2), event("verdict", "b", 2)], "claimed while"),
        ([SUBMITTED, CLAIM, event("expired", "a", 1), event("claimed", "b", 1), event("verdict", "b", 1)], "fence 1 is not above 1"),
        ([SUBMITTED, CLAIM, event("expired", "a", 1), event("claimed", "b", 2), event("verdict", "a", 1)], "written by"),
        ([*GOOD[:-1], event("verdict", "b", 2)], "after the job had ended"),
        ([*GOOD[:-1], event("failed", "b", 2)], "after the job had ended"),
        ([SUBMITTED, event("delivered"), CLAIM, event("verdict", "a", 1)], "published before"),
        ([SUBMITTED, CLAIM, event("teleported", "a", 1), event("claimed", "a", 2), event("verdict", "a", 2)], "unknown kind"),
    ],
)
def test_a_broken_promise_is_noticed(history, sentence):
    import re

    assert any(re.search(sentence, broken) for broken in broken_promises(history))


def test_an_accepted_video_that_left_no_trace_is_noticed():
    assert broken_promises(GOOD, accepted=["j", "k"]) == ["k: accepted but never ended"]
