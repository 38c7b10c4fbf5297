"""What lies unread in the inbox lanes and on the event stream, and for how long. The ledger knows nothing of it yet."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

import redis
import structlog

from .broker import allowed_replies, translated
from .errors import BrokerError
from .messages import INBOX_LANES, Lane, inbox_lists

log = structlog.get_logger(__name__)
STREAM: Final = "video-events"
STREAM_QUEUE: Final = "stream"
"""Name of the event stream among the queues of the metrics."""

_BELIEVED_SECONDS: Final = 7 * 86400.0
"""An older time is no time of ours: a stream's number may be anybody's choice, and a producer's clock may be off."""


@dataclass(frozen=True, slots=True)
class Unread:
    """One look; empty while the broker is away."""

    lengths: dict[str, int] = field(default_factory=dict)
    """Messages per inbox lane, events of the stream."""
    ages: dict[str, float] = field(default_factory=dict)
    """Seconds that the oldest of each has lain there; empty queues are left out."""


class InboxWatch:
    """Looks at the heads of lanes and stream. A head that names no time is as old as this process knows it."""

    def __init__(self, client: redis.Redis | None) -> None:
        self._client = client
        self._first_seen: dict[str, tuple[bytes, float]] = {}

    def look(self) -> Unread:
        """Lengths and ages now."""
        if self._client is None:
            return Unread()
        try:
            with translated():
                filled = self._filled_lists(self._client)
        except BrokerError as err:
            log.warning("inbox_not_seen", code=err.code, message=str(err))
            return Unread()
        lengths: dict[str, int] = {lane: sum(length for of, _name, length in filled if of == lane) for lane in INBOX_LANES}
        try:
            with translated():
                heads: list[tuple[str, str, Any]] = [(lane, name, self._client.lindex(name, -1)) for lane, name, _length in filled]
                num_events = int(self._client.xlen(STREAM))
                first: Any = self._client.xrange(STREAM, count=1)
        except BrokerError as err:  # users of a broker that were made before these commands were asked for
            log.warning("inbox_age_unknown", code=err.code, message=str(err), note="make the broker's users again: deploy/make_secrets.sh")
            return Unread(lengths)
        ages: dict[str, float] = {}
        for lane, name, head in heads:
            if head is not None:
                ages[lane] = max(ages.get(lane, 0.0), self._age(name, head, _enqueued_at(head)))
        for entry_id, _fields in first:
            ages[STREAM_QUEUE] = self._age(STREAM_QUEUE, entry_id, _entry_time(entry_id))
        return Unread({**lengths, STREAM_QUEUE: num_events}, ages)

    @staticmethod
    def _filled_lists(client: redis.Redis) -> list[tuple[Lane, str, int]]:
        """Lane, name and length of every list that holds something."""
        filled: list[tuple[Lane, str, int]] = []
        for lane in INBOX_LANES:
            names = inbox_lists(lane)
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.llen(name)
            lengths = allowed_replies(names, pipe.execute(raise_on_error=False), lane=lane)
            filled += [(lane, name, length) for name, length in zip(names, lengths, strict=True) if length]
        return filled

    def _age(self, queue: str, head: bytes, told: float | None) -> float:
        known, since = self._first_seen.get(queue, (None, 0.0))
        if known != head:
            since = time.monotonic()
            self._first_seen[queue] = (head, since)
        seen = time.monotonic() - since
        by_its_word = time.time() - told if told is not None else 0.0
        return by_its_word if seen < by_its_word < _BELIEVED_SECONDS else seen


def _enqueued_at(message: bytes) -> float | None:
    """The producer's word in the header `enqueued_at`, seconds since the epoch."""
    try:
        at = json.loads(message)["headers"]["enqueued_at"]
        return float(at) if isinstance(at, int | float) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # ingest says what is wrong with it
        return None


def _entry_time(entry_id: bytes) -> float:
    """When the broker added a stream entry, seconds since the epoch; the first half of its number."""
    return int(entry_id.split(b"-")[0]) / 1000
