"""Reads the public inbox: the Redis lists of the lanes `urgent`, `default`, `bulk` and the stream `video-events` -> ledger rows.

Peek, commit, remove: a message stays in its list until its ledger row is committed, so that no kill at any moment can lose
it, nobody's private list has to be recovered, and a full broker can still be drained (removing is allowed when moving is
not). A crash in between repeats a message, and the ledger makes the repetition a no-op. Several readers may run; a lock keeps
the others on standby, only to save work.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import redis
import structlog

from .broker import allowed_replies, translated
from .errors import BrokerError, BrokerFullError, InvalidMessageError, LedgerUnavailableError
from .inbox_watch import STREAM
from .intake import Intake
from .ledger import Ledger, Submission
from .messages import INBOX_LANES, Lane, RefusedRecord, inbox_lists, parse_celery_message, parse_event
from .metrics import Metrics
from .probes import LoopWatch

log = structlog.get_logger(__name__)

STREAM_FIELD: Final = "event"
GROUP: Final = "veriframe"
_FIELD: Final = STREAM_FIELD.encode()
_LOCK_KEY: Final = "veriframe.ingest.lock"
_LOCK_MILLISECONDS: Final = 3000
_IDLE_SECONDS: Final = (0.02, 0.25)
"""First and longest pause while nothing arrives: quick under load, nearly free when idle."""
_TROUBLE_SECONDS: Final = 0.5
_FAULT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What one message asks for."""

    submissions: tuple[Submission, ...] = ()
    refused: tuple[RefusedRecord, ...] = ()


def asked_by(raw: bytes) -> Asked:
    """What the event of one entry of the stream asks for.

    Raises:
        InvalidMessageError: as `parse_event`.
    """
    events = parse_event(raw)
    submissions = (
        Submission(
            request=event.request, door="stream", trace_id=event.traceparent, key=event.dedupe_key, source_version=event.source_version
        )
        for event in events.requests
    )
    return Asked(tuple(submissions), events.refused)


def whole_entry(fields: Mapping[bytes, bytes]) -> bytes:
    """All fields of an entry of the stream, a line each, as they came: for people, and for what looks for names in it."""
    return b"\n".join(name + b"=" + value for name, value in fields.items())


class Ingest:
    """One reader of the inbox lanes and of the event stream."""

    def __init__(
        self,
        client: redis.Redis,
        ledger: Ledger,
        intake: Intake,
        *,
        metrics: Metrics,
        owner: str,
        batch: int = 256,
        stream_idle_seconds: float = 30.0,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._intake = intake
        self._metrics = metrics
        self._owner = owner
        self._batch = batch
        self._stream_idle_seconds = stream_idle_seconds
        self._claimed_at = float("-inf")
        self._group_known = False
        self.watch = LoopWatch()

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set; outages of broker or ledger are waited out, faults of ours are logged and tried again."""
        idle = _IDLE_SECONDS[0]
        while not stop.is_set():
            self.watch.tick()
            try:
                busy = self.step() > 0
                idle = _IDLE_SECONDS[0] if busy else min(_IDLE_SECONDS[1], idle * 1.5)
                pause = 0.0 if busy else idle
            except (BrokerError, LedgerUnavailableError) as err:
                log.warning("ingest_waits", code=err.code, message=str(err), note="nothing is lost, messages stay where they are")
                self._group_known = False
                pause = _TROUBLE_SECONDS
            except Exception:  # a bug of ours: nobody would start this thread again, and with it the inbox would stop
                log.exception("ingest_failed", note="nothing is lost, messages stay where they are; it is tried again")
                pause = _FAULT_SECONDS
            stop.wait(pause)
        with contextlib.suppress(redis.RedisError):
            self._unlock()

    def step(self) -> int:
        """Read one batch of every lane and of the stream; gives the number of messages that were dealt with.

        Raises:
            BrokerError, LedgerUnavailableError: nothing was removed.
        """
        num_read = 0
        if self._lock():
            for lane in INBOX_LANES:
                num_read += self._drain_lane(lane)
        return num_read + self._read_stream()

    # --- inbox lanes

    def _lock(self) -> bool:
        try:
            with translated():
                if self._client.set(_LOCK_KEY, self._owner, nx=True, px=_LOCK_MILLISECONDS):
                    return True
        except BrokerFullError:
            pass  # a full broker takes no lock but can be drained: the lock only saves work
        with translated():
            holder = self._client.get(_LOCK_KEY)
            if holder not in (None, self._owner.encode()):
                return False
            self._client.pexpire(_LOCK_KEY, _LOCK_MILLISECONDS)
            return True

    def _unlock(self) -> None:
        if self._client.get(_LOCK_KEY) == self._owner.encode():
            self._client.delete(_LOCK_KEY)

    def _drain_lane(self, lane: Lane) -> int:
        names, read_at = inbox_lists(lane), time.monotonic()
        with translated():
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.lrange(name, -self._batch, -1)
            found = allowed_replies(names, pipe.execute(raise_on_error=False), lane=lane)
        # oldest first: hints are sent in this order
        return sum(self._drain_list(name, each[::-1], lane=lane, read_at=read_at) for name, each in zip(names, found, strict=True) if each)

    def _drain_list(self, name: str, raw_messages: Sequence[bytes], *, lane: Lane, read_at: float) -> int:

        def parse(raw: bytes) -> Asked:
            request, traceparent = parse_celery_message(raw, lane=lane)
            return Asked((Submission(request=request, door="queue", trace_id=traceparent),))

        forgotten = self._take_in(raw_messages, parse=parse, door="queue", read_at=read_at)
        done = [raw for place, raw in enumerate(raw_messages) if place not in forgotten]
        with translated():
            pipe = self._client.pipeline(transaction=False)
            for raw in done:  # the oldest is at the tail: found at once from there
                pipe.lrem(name, -1, raw)  # type: ignore[arg-type]
            pipe.execute()
        return len(done)

    def _take_in(self, raw_messages: Sequence[bytes], *, parse: Callable[[bytes], Asked], door: str, read_at: float) -> set[int]:
        """Commit a batch: good ones become rows, bad ones dead letters. When it returns they may be removed.

        Gives the places of those that must stay where they are: their video was forgotten since `read_at` and they with it, so that
        one that is still there was sent afterwards. It is read again; an entry of the stream not before it is claimed as stale.
        """
        submissions: list[Submission] = []
        places: list[int] = []
        left: set[int] = set()
        for place, raw in enumerate(raw_messages):
            refused: list[tuple[bytes, InvalidMessageError]] = []
            try:
                asked = parse(raw)
            except InvalidMessageError as err:
                refused.append((raw, err))
            except Exception:  # a bug of ours: it must not hold up the messages beside it
                log.exception("message_not_read", door=door)
                refused.append((raw, InvalidMessageError("reading it failed in Veriframe itself: report it with the message")))
            else:
                submissions += [replace(submission, read_at=read_at) for submission in asked.submissions]
                places += [place] * len(asked.submissions)
                refused += [(record.raw, record.error) for record in asked.refused]
            for part, error in refused:
                if not self._bury(part, error, door=door, read_at=read_at):
                    left.add(place)
        if submissions:
            outcomes = self._intake.accept(submissions)
            left |= {place for place, outcome in zip(places, outcomes, strict=True) if outcome.forgotten}
        return left

    def _bury(self, raw: bytes, error: InvalidMessageError, *, door: str, read_at: float) -> bool:
        """Make a refused message a dead letter; False when it must stay where it is, as `_take_in` says."""
        is_new = self._ledger.bury_message(raw, door=door, code=error.code, message=str(error), read_at=read_at)
        if is_new is None:
            return False
        if is_new:
            log.warning("message_rejected", door=door, code=error.code, message=str(error))
            self._metrics.dead_letters.labels(code=error.code).inc()
        self._metrics.rejected.labels(source=door, code=error.code).inc()
        return True

    # --- event stream

    def _read_stream(self) -> int:
        read_at = time.monotonic()
        with translated():
            self._ensure_group()
            entries = self._claim_stale()
            answer: Any = self._client.xreadgroup(GROUP, self._owner, {STREAM: ">"}, count=self._batch)
        for _stream, fresh in answer or []:
            entries.extend(fresh)
        if not entries:
            return 0
        events, left = self._events(entries, read_at=read_at)
        forgotten = self._take_in([event for _entry_id, event in events], parse=asked_by, door="stream", read_at=read_at)
        left |= {events[place][0] for place in forgotten}
        entry_ids = [entry_id for entry_id, _fields in entries if entry_id not in left]
        if not entry_ids:
            return 0
        with translated():
            # deleted first: cut off in between, an entry that is gone is only claimed once more, an acknowledged one would stay
            pipe = self._client.pipeline(transaction=False)
            pipe.xdel(STREAM, *entry_ids)
            pipe.xack(STREAM, GROUP, *entry_ids)
            pipe.execute()
        return len(entry_ids)

    def _events(
        self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes] | None]], *, read_at: float
    ) -> tuple[list[tuple[bytes, bytes]], set[bytes]]:
        """(ID, event) of these entries; one without an event becomes a dead letter, one that was deleted is nothing.

        Gives also the IDs of those that must stay where they are, as `_take_in` says.
        """
        events: list[tuple[bytes, bytes]] = []
        left: set[bytes] = set()
        for entry_id, fields in entries:
            if fields is not None and _FIELD in fields:
                events.append((entry_id, fields[_FIELD]))
            elif fields is not None:
                names = ", ".join(repr(name.decode("utf-8", "backslashreplace"))[:40] for name in list(fields)[:8])
                error = InvalidMessageError(f"an entry of the stream has its event in the field {STREAM_FIELD!r}, this one has {names}")
                if not self._bury(whole_entry(fields), error, door="stream", read_at=read_at):
                    left.add(entry_id)
        return events, left

    def _ensure_group(self) -> None:
        if self._group_known:
            return
        try:
            self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as err:
            if not str(err).startswith("BUSYGROUP"):
                raise
        self._group_known = True

    def _claim_stale(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries that a dead reader took and never acknowledged."""
        if time.monotonic() - self._claimed_at < self._stream_idle_seconds / 3:
            return []
        self._claimed_at = time.monotonic()
        idle = round(self._stream_idle_seconds * 1000)
        answer: Any = self._client.xautoclaim(STREAM, GROUP, self._owner, min_idle_time=idle, count=self._batch)
        return list(answer[1])
