"""What becomes of a review when a newer verdict of its video comes: nothing that people said or asked for is lost."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from verdict_builders import made_body, put_verdict
from workers.errors import ReviewConflictError
from workers.ledger import Ledger, LogEntry, VerdictRecord
from workers.ledger.review_schema import review_items
from workers.ledger.standing import carried, standing_of, undoable
from workers.ledger.verdict_list import VerdictFilter

DAY_SECONDS = 86_400.0


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def decided(ledger: Ledger, decision: str = "fake", **options) -> int:
    """A video that ana decided."""
    put_verdict(ledger, "v", peaks=(0.95,))
    seq = ledger.review_item_of("v").verdict_seq
    ledger.review_decide(seq, actor="ana", decision=decision, **options)
    return seq


def rescore(ledger: Ledger, word: str, *, bundle_set: str = "new@1") -> int:
    (old,) = ledger.archive(not_by=bundle_set)
    body = made_body("v", job_id=old.ledger_id, word=word, peaks=(0.9,), bundle_set=bundle_set)
    body = body.model_copy(update={"revision": old.revision + 1, "supersedes": old.seq}).to_json()
    record = VerdictRecord(content_sha256=old.content_sha256, bundle_set=bundle_set, policy="p", verdict=word, p_fake=0.9, body=body)
    assert ledger.revise(old, verdict=record, urls=[])
    return ledger.verdicts_of("v")[-1].seq


def put_other_bytes(ledger: Ledger, **options) -> int:
    put_verdict(ledger, "v", content_sha256="d" * 64, asked_sha256="d" * 64, **options)
    return ledger.verdicts_of("v")[-1].seq


def age(ledger: Ledger, seq: int, days: float) -> None:
    opened_at = review_items.c.opened_at - days * DAY_SECONDS
    with ledger.engine.begin() as connection:
        connection.execute(update(review_items).where(review_items.c.verdict_seq == seq).values(opened_at=opened_at))


@pytest.mark.parametrize("word", ["manipulated", "suspicious", "authentic"])
def test_an_appeal_waits_on_whatever_the_new_verdict_says(ledger, word):
    seq = decided(ledger)
    ledger.review_reopen(seq, actor="support", kind="appealed", note="this is me")
    age(ledger, seq, days=2)
    newer = rescore(ledger, word)
    assert ledger.review_item(seq).state == "REPLACED"
    assert ledger.review_entries(seq)[-1].kind == "replaced"
    (item,) = ledger.review_queue()
    assert (item.verdict_seq, item.word, item.reading, item.readers, item.decision) == (newer, word, "appeal", ("ana",), "fake")
    assert item.age_seconds > DAY_SECONDS, "it has waited since it was made"
    assert [entry.note for entry in ledger.review_entries(newer)] == [None, "this is me"]
    with pytest.raises(ReviewConflictError, match="another person"):
        ledger.review_decide(newer, actor="ana", decision="fake")
    assert ledger.review_decide(newer, actor="ben", decision="clean").decision == "clean"
    assert [entry.kind for entry in ledger.review_history()] == ["decided", "replaced", "appealed", "decided"], "told once"


@pytest.mark.parametrize(("decision", "reading"), [("fake", "second"), ("unsure", "second")])
def test_a_second_reading_of_the_same_bytes_is_still_for_somebody_else(ledger, decision, reading):
    decided(ledger, decision, second_share=1.0)
    newer = rescore(ledger, "suspicious")
    item = ledger.review_item(newer)
    assert (item.state, item.reading, item.may_read("ana"), item.may_read("ben")) == ("OPEN", reading, False, True)
    assert ledger.review_decide(newer, actor="ben", decision="fake").state == "DECIDED"


def test_an_appeal_survives_other_bytes_and_a_second_reading_of_the_old_ones_does_not(ledger):
    seq = decided(ledger)
    ledger.review_reopen(seq, actor="support", kind="appealed")
    newer = put_other_bytes(ledger, peaks=(0.1,))
    assert [(item.verdict_seq, item.reading) for item in ledger.review_queue()] == [(newer, "appeal")]

    put_verdict(ledger, "w", peaks=(0.95,))
    second = ledger.review_item_of("w").verdict_seq
    ledger.review_decide(second, actor="ana", decision="fake", second_share=1.0)
    put_verdict(ledger, "w", content_sha256="d" * 64, asked_sha256="d" * 64, peaks=(0.7,))
    assert ledger.review_entries(second)[-1].kind == "replaced"
    item = ledger.review_item_of("w")
    assert (item.word, item.reading, item.decision, item.may_read("ana")) == ("suspicious", "first", None, True)


def test_a_decision_stands_for_a_revision_that_says_the_same(ledger):
    seq = decided(ledger, "clean", reason="filter", note="her own channel")
    newer = rescore(ledger, "manipulated")
    assert ledger.review_queue() == []
    item = ledger.review_item(newer)
    assert (item.state, item.decision, item.decided_by, item.readers) == ("DECIDED", "clean", "ana", ("ana",))
    assert item.decided_at == ledger.review_item(seq).decided_at
    assert [(e.kind, e.reason, e.note) for e in ledger.review_entries(newer)] == [("carried", "filter", "her own channel")]
    assert ledger.list_verdicts(VerdictFilter(is_reviewed=False)) == []
    assert ledger.label_counts() == {("manipulated", "clean"): 1}, "one decision is one, however many revisions it stands for"
    newest = rescore(ledger, "manipulated", bundle_set="newer@1")
    assert ledger.review_item(newest).decision == "clean"
    assert ledger.review_reopen(newest, actor="support", kind="appealed").reading == "appeal"


def test_people_are_asked_again_when_the_word_changes(ledger):
    decided(ledger, "clean")
    newer = rescore(ledger, "suspicious")
    assert (ledger.review_item(newer).state, ledger.review_item(newer).reading) == ("OPEN", "first")


def test_nobody_acts_on_an_item_that_a_newer_one_replaced(ledger):
    seq = decided(ledger, second_share=1.0)
    put_other_bytes(ledger, peaks=(0.7,))
    with pytest.raises(ReviewConflictError, match="newer verdict"):
        ledger.review_undo(seq, actor="ana", hold_seconds=60)
    assert [(item.word, item.state) for item in ledger.review_queue()] == [("suspicious", "OPEN")]


def test_nobody_reopens_a_decided_item_while_people_look_at_a_newer_one(ledger):
    seq = decided(ledger)
    put_other_bytes(ledger, peaks=(0.7,))
    for act in (
        lambda: ledger.review_undo(seq, actor="ana", hold_seconds=60),
        lambda: ledger.review_reopen(seq, actor="ben", kind="appealed"),
        lambda: ledger.review_reopen(seq, actor="ben", kind="second_asked"),
    ):
        with pytest.raises(ReviewConflictError, match="newer verdict"):
            act()
    assert ledger.review_item(seq).decision == "fake"


def test_a_decision_can_be_appealed_where_the_newest_verdict_needed_nobody(ledger):
    seq = decided(ledger)
    rescore(ledger, "authentic")
    assert ledger.review_reopen(seq, actor="support", kind="appealed").reading == "appeal"


def test_a_colleagues_request_for_a_second_reader_is_not_undone_with_the_decision(ledger):
    seq = decided(ledger, "clean")
    ledger.review_reopen(seq, actor="ben", kind="second_asked")
    with pytest.raises(ReviewConflictError, match="acted on it since"):
        ledger.review_undo(seq, actor="ana", hold_seconds=60)
    assert [item.reading for item in ledger.review_queue()] == ["second"]


def test_an_appeal_waits_since_it_was_made(ledger):
    seq = decided(ledger)
    age(ledger, seq, days=120)
    assert ledger.review_reopen(seq, actor="support", kind="appealed").age_seconds < 60
    assert ledger.review_backlog()[1] < 60


def entry(seq: int, kind: str, actor: str = "ana", decision: str | None = None, undoes: int | None = None) -> LogEntry:
    return LogEntry(seq=seq, at=float(seq), verdict_seq=1, video_id="v", actor=actor, kind=kind, decision=decision, undoes=undoes)


FAKE, CLEAN, UNSURE = (entry(1, "decided", decision=word) for word in ("fake", "clean", "unsure"))
LOGS = [
    [FAKE],
    [UNSURE],
    [FAKE, entry(2, "noted"), entry(3, "second_asked", "sampling")],
    [FAKE, entry(2, "second_asked", "ben"), entry(3, "decided", "ben", "clean")],
    [FAKE, entry(2, "second_asked"), entry(3, "decided", "ben", "clean"), entry(4, "decided", "cleo", "clean")],
    [FAKE, entry(2, "undone", undoes=1), entry(3, "second_asked"), entry(4, "decided", "ben", "clean"), entry(5, "appealed", "sup")],
]


@pytest.mark.parametrize("log", LOGS)
def test_what_is_carried_over_stands_where_the_item_stood(log):
    once = carried(log)
    assert {each.kind for each in once} == {"carried"}
    assert standing_of(once) == standing_of(log) == standing_of(carried(once))
    assert undoable(once, "ana") is None


def test_one_may_take_back_what_only_chance_or_oneself_asked_about():
    assert undoable([FAKE, entry(2, "second_asked", "sampling")], "ana") == FAKE
    assert undoable([FAKE, entry(2, "second_asked", "ana")], "ana") == FAKE
    assert undoable([FAKE, entry(2, "second_asked", "ben")], "ana") is None
