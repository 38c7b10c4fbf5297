"""A file that could not be fetched: the same video submitted again from another place is a new job."""

from __future__ import annotations

import pytest

from workers.ledger import Ledger, Submission
from workers.messages import EnqueueRequest


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def submit(ledger: Ledger, source: str | None):
    return ledger.submit(Submission(request=EnqueueRequest(video_id="vid_1", source=source), door="http"))


@pytest.mark.parametrize(
    ("code", "source", "created"),
    [
        ("FETCH_NOT_FOUND", "https://h/v?sig=fresh", True),
        ("FETCH_NOT_FOUND", "https://h/v?sig=old", False),
        ("FETCH_NOT_FOUND", None, True),
        ("FETCH_NOT_ALLOWED", "https://h/v?sig=fresh", True),
        ("FETCH_TOO_LARGE", "https://h/v?sig=fresh", True),
        ("FETCH_TOO_LARGE", "https://h/v?sig=old", False),
        ("FETCH_CHANGED", "https://h/v?sig=old", True),  # its sentence asks for that
        ("NOT_MEDIA", "https://h/v?sig=fresh", False),
    ],
)
def test_what_could_not_be_fetched_is_tried_again_from_another_source(ledger, code, source, created):
    first = submit(ledger, "https://h/v?sig=old")
    ledger.fail(ledger.claim(first.ledger_id, owner="w", lease_seconds=60), code=code, message="m", body={}, urls=[])
    again = submit(ledger, source)
    assert (again.created, again.again_for, again.state) == ((True, first.ledger_id, "QUEUED") if created else (False, None, "FAILED"))
    assert submit(ledger, source).created is False
