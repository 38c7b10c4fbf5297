"""A file that could not be fetched: the same video submitted again, from another place or the same one, is a new job."""

from __future__ import annotations

import pytest

from workers.ledger import Ledger, Submission
from workers.messages import EnqueueRequest


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def submit(ledger: Ledger, source: str | None, *, key: str | None = None):
    return ledger.submit(Submission(request=EnqueueRequest(video_id="vid_1", source=source), door="http", key=key))


@pytest.mark.parametrize(
    ("code", "source", "created"),
    [
        ("FETCH_NOT_FOUND", "https://h/v?sig=fresh", True),
        ("FETCH_NOT_FOUND", "https://h/v?sig=old", True),  # its volume may be mounted by now
        ("FETCH_NOT_FOUND", None, True),
        ("FETCH_NOT_ALLOWED", "https://h/v?sig=old", True),
        ("FETCH_TOO_LARGE", "https://h/v?sig=fresh", True),
        ("FETCH_TOO_LARGE", "https://h/v?sig=old", True),
        ("FETCH_CHANGED", "https://h/v?sig=old", True),  # its sentence asks for that
        ("NOT_MEDIA", "https://h/v?sig=fresh", False),
    ],
)
def test_what_could_not_be_fetched_is_tried_again_when_it_is_submitted_again(ledger, code, source, created):
    first = submit(ledger, "https://h/v?sig=old")
    ledger.fail(ledger.claim(first.ledger_id, owner="w", lease_seconds=60), code=code, message="m", body={}, urls=[])
    again = submit(ledger, source)
    assert (again.created, again.again_for, again.state) == ((True, first.ledger_id, "QUEUED") if created else (False, None, "FAILED"))
    assert submit(ledger, source).created is False


def test_a_bare_id_is_fetched_again_once_its_volume_is_mounted_and_its_old_event_asks_for_nothing(ledger):
    """The case of the alert VeriframeFetchFailures, which says to submit such videos again."""
    first = submit(ledger, None, key="event-1")
    ledger.fail(ledger.claim(first.ledger_id, owner="w", lease_seconds=60), code="FETCH_NOT_FOUND", message="m", body={}, urls=[])
    assert submit(ledger, None, key="event-1").ledger_id == first.ledger_id
    again = submit(ledger, None)
    assert (again.created, again.again_for) == (True, first.ledger_id)
    assert submit(ledger, None, key="event-1").ledger_id == first.ledger_id
