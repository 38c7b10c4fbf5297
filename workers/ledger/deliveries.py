"""The outbox and the dead letters."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Engine, select, update

from ..messages import names_video
from .engine import reading, writing
from .leases import bury
from .receivers import receiver_of
from .records import OutboxEvent
from .schema import db_now, dead_letters, is_pending, outbox
from .submissions import erased_since, record_events

PAYLOAD_KEPT_BYTES = 4096


class Deliveries:
    """The part of the ledger behind webhooks and dead letters."""

    _engine: Engine

    def due_events(
        self, *, page: int, hold_seconds: float, running: Mapping[str, int] = MappingProxyType({}), per_receiver: int | None = None
    ) -> list[OutboxEvent]:
        """Pick events to deliver now; each is left alone for `hold_seconds`, so that a crash in between only delays it.

        Args:
            page: at most so many.
            hold_seconds: how long nobody else picks them.
            running: receiver (`receiver_of` its URLs) -> events on their way to it.
            per_receiver: how many may be on their way to one, these included.
        """
        most = per_receiver or page
        busy = [receiver for receiver, count in running.items() if count >= most]
        due = select(outbox.c.event_id, outbox.c.url).where(is_pending, outbox.c.next_try_at <= db_now(), outbox.c.receiver.not_in(busy))
        picked: list[str] = []
        counts = Counter(running)
        with reading(self._engine) as connection:
            for row in connection.execute(due.order_by(outbox.c.next_try_at).limit(page)):
                counts[receiver_of(row.url)] += 1
                if counts[receiver_of(row.url)] <= most:
                    picked.append(row.event_id)
        if not picked:
            return []
        take = (
            update(outbox)
            .where(outbox.c.event_id.in_(picked), outbox.c.next_try_at <= db_now())
            .values(next_try_at=db_now() + hold_seconds, tries=outbox.c.tries + 1)
            .returning(outbox)
        )
        with writing(self._engine) as connection:
            rows = connection.execute(take).all()
        return [
            OutboxEvent(
                event_id=row.event_id,
                ledger_id=row.ledger_id,
                kind=row.kind,
                url=row.url,
                payload=row.payload,
                tries=row.tries,
                created_at=row.created_at,
            )
            for row in rows
        ]

    def delivered(self, taken: Sequence[OutboxEvent]) -> None:
        """Mark events as taken by their receivers, in one transaction; those that were erased meanwhile leave no trace."""
        if not taken:
            return
        mine = update(outbox).where(outbox.c.event_id.in_([event.event_id for event in taken]))
        with writing(self._engine) as connection:
            rows = connection.execute(mine.values(delivered_at=db_now()).returning(outbox.c.event_id, outbox.c.ledger_id)).all()
            record_events(connection, [{"ledger_id": row.ledger_id, "kind": "delivered", "detail": row.event_id} for row in rows])

    def postpone(self, event: OutboxEvent, *, delay_seconds: float) -> None:
        """Try an event again later."""
        with writing(self._engine) as connection:
            connection.execute(update(outbox).where(outbox.c.event_id == event.event_id).values(next_try_at=db_now() + delay_seconds))

    def give_up(self, event: OutboxEvent, *, code: str, message: str) -> bool:
        """Make an undeliverable event a dead letter; False when it was erased meanwhile: its payload must not come back."""
        with writing(self._engine) as connection:
            mine = update(outbox).where(outbox.c.event_id == event.event_id).values(given_up_at=db_now())
            if connection.execute(mine).rowcount == 0:
                return False
            bury(
                connection,
                key=f"outbox:{event.event_id}",
                origin="outbox",
                code=code,
                message=message,
                ledger_id=event.ledger_id,
                attempts=event.tries,
                payload=event.payload[:PAYLOAD_KEPT_BYTES],
            )
            record_events(connection, [{"ledger_id": event.ledger_id, "kind": "undelivered", "detail": event.event_id}])
        return True

    def bury_message(self, raw: bytes, *, door: str, code: str, message: str, read_at: float | None = None) -> bool | None:
        """Record a message that is no enqueue request; the same bytes are recorded once.

        Args:
            raw: the message.
            door: where it came in.
            code: why it was refused.
            message: the same in a sentence.
            read_at: when it was read, by this process's monotonic clock in seconds.

        Returns:
            Whether it is new; None when it names a video that was forgotten since `read_at`, and so was not recorded.
        """
        key = f"message:{hashlib.sha256(raw).hexdigest()}"
        payload = raw[:PAYLOAD_KEPT_BYTES].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        with writing(self._engine) as connection:
            if read_at is not None:
                gone = connection.scalars(erased_since(connection, read_at)).all()
                if any(names_video(raw, video_id) or names_video(message, video_id) for video_id in gone):
                    return None
            return bury(connection, key=key, origin=door, code=code, message=message.replace("\0", "\\x00"), payload=payload)

    def list_dead_letters(self, *, limit: int = 100, code: str | None = None) -> list[dict[str, Any]]:
        """The newest dead letters."""
        statement = select(dead_letters).order_by(dead_letters.c.seq.desc()).limit(limit)
        if code is not None:
            statement = statement.where(dead_letters.c.code == code)
        with reading(self._engine) as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]
