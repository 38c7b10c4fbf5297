"""Forget one video everywhere: what still waits in the broker, then every row of the ledger, with one line in the audit log.

The video itself is not ours to delete: it stays where the platform keeps it, and the copy made for screening never had a name.
Dispatch queues hold job IDs only; without their rows they name nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import redis

from .broker import translated
from .errors import InvalidMessageError
from .inbox_watch import STREAM
from .ingest import STREAM_FIELD, Asked, asked_by, whole_entry
from .ledger import Erased, Ledger
from .messages import INBOX_LANES, inbox_lists, names_video, parse_celery_message

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What one request to forget removed."""

    erased: Erased
    messages: int
    """Messages of the inbox and entries of the event stream."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was known about the video."""
        return self.erased.is_empty and not self.messages

    def as_json(self) -> dict[str, Any]:
        """Counts by kind."""
        return {**asdict(self.erased), "messages": self.messages}


def forget_video(ledger: Ledger, client: redis.Redis | None, video_id: str, *, tenant: str = "", actor: str) -> Forgotten:
    """Remove every trace of one video. Safe to repeat.

    Args:
        ledger: the ledger.
        client: the broker; None when there is none (tests, an embedded system that is down).
        video_id: whose traces.
        tenant: whose video. Queue and stream know no tenants: their messages go with tenant "".
        actor: who asked, for the audit log.

    Raises:
        BrokerUnavailableError, LedgerUnavailableError: not all of it is gone; repeat it.
    """
    messages = 0
    if client is not None and tenant == "":
        with translated():  # first, or the ingest would bring the video back
            messages = _forget_inbox(client, video_id) + _forget_stream(ledger, client, video_id)
    return Forgotten(ledger.erase_video(video_id, tenant=tenant, actor=actor, messages=messages), messages)


def _forget_inbox(client: redis.Redis, video_id: str) -> int:
    removed = 0
    for lane in INBOX_LANES:
        for name in inbox_lists(lane):
            found = [raw for raw in _inbox(client, name) if _names(raw, video_id, lane=lane)]
            for raw in set(found):
                removed += int(client.lrem(name, 0, raw))  # type: ignore[arg-type]
    return removed


def _inbox(client: redis.Redis, name: str) -> Iterator[bytes]:
    start = 0
    while page := client.lrange(name, start, start + _PAGE - 1):
        yield from page  # type: ignore[misc]
        start += _PAGE


def _names(raw: bytes, video_id: str, *, lane: Any) -> bool:
    try:
        return parse_celery_message(raw, lane=lane)[0].video_id == video_id
    except InvalidMessageError:
        return names_video(raw, video_id)  # it will be a dead letter, and that is no better place for it


def _forget_stream(ledger: Ledger, client: redis.Redis, video_id: str) -> int:
    removed, after = 0, b"-"
    while True:
        page: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(STREAM, min=after, count=_PAGE)  # type: ignore[assignment]
        if not page:
            return removed
        doomed = []
        for entry_id, fields in page:
            names_it, others = _entry_names(fields, video_id)
            if names_it:
                # an entry goes whole: what else it tells of is taken in first, as the ingest would; the janitor dispatches it
                ledger.submit_many(others.submissions)
                for record in others.refused:
                    ledger.bury_message(record.raw, door="stream", code=record.error.code, message=str(record.error))
                doomed.append(entry_id)
        if doomed:
            removed += int(client.xdel(STREAM, *doomed))
        after = b"(" + page[-1][0]


def _entry_names(fields: Mapping[bytes, bytes], video_id: str) -> tuple[bool, Asked]:
    """Whether an entry of the stream names the video, and what it asks for beside it."""
    try:
        asked = asked_by(fields[STREAM_FIELD.encode()])
    except (KeyError, InvalidMessageError):
        return names_video(whole_entry(fields), video_id), Asked()
    submissions = tuple(each for each in asked.submissions if each.request.video_id != video_id)
    refused = tuple(each for each in asked.refused if not names_video(each.raw, video_id))
    is_named = (len(submissions), len(refused)) < (len(asked.submissions), len(asked.refused))
    return is_named, Asked(submissions, refused)
