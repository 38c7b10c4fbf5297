"""What the janitor does to the ledger: leadership, expired leases, due rows, retention, gauges."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, Final

from sqlalchemy import Connection, Engine, bindparam, delete, func, select, update

from .engine import reading, writing
from .leases import bury, deliver_to
from .records import DueJob, ExpiredLease, QueueFacts
from .schema import (
    ISOLATE,
    LEASED,
    POISONED,
    QUEUED,
    STATES,
    db_now,
    dead_letters,
    events,
    is_finished,
    is_leased,
    is_pending,
    is_queued,
    jobs,
    leaders,
    outbox,
    submission_keys,
)
from .submissions import insert_or_ignore, record_events

_EXPIRED: Final = select(jobs).where(is_leased, jobs.c.lease_until < db_now()).order_by(jobs.c.lease_until).limit(bindparam("page"))
_REQUEUE: Final = (
    update(jobs)
    .where(
        jobs.c.ledger_id == bindparam("job"),
        is_leased,
        jobs.c.fence == bindparam("token"),
        jobs.c.lease_until < db_now(),
    )
    .values(
        state=bindparam("new_state"),
        crash_attempts=jobs.c.crash_attempts + 1,
        route=ISOLATE,
        owner=None,
        lease_until=None,
        due_at=db_now(),
        finished_at=bindparam("finished"),
        error_code=bindparam("code"),
        error_message=bindparam("text"),
    )
)
_DUE: Final = (
    select(jobs.c.ledger_id)
    .where(
        is_queued,
        jobs.c.route == bindparam("from_route"),
        jobs.c.due_at <= db_now(),
        jobs.c.created_at <= db_now() - bindparam("min_age"),
    )
    .order_by(jobs.c.due_at)
    .limit(bindparam("page"))
)
_BUMP: Final = (
    update(jobs)
    .where(jobs.c.ledger_id.in_(bindparam("picked", expanding=True)), jobs.c.due_at <= db_now())
    .values(due_at=db_now() + bindparam("resend"))
    .returning(jobs.c.ledger_id)
)

# since when a video waits for a worker: since it came, or since the pause before its next try ended. The first that never paused is found in
# the order of the index; only those before it can have waited longer
_NEVER_PAUSED: Final = (
    select(jobs.c.created_at)
    .where(is_queued, jobs.c.lane == bindparam("lane"), jobs.c.not_before <= jobs.c.created_at)
    .order_by(jobs.c.created_at)
    .limit(1)
)
_PAUSED_BEFORE: Final = select(func.min(jobs.c.not_before)).where(
    is_queued, jobs.c.lane == bindparam("lane"), jobs.c.created_at < bindparam("before"), jobs.c.not_before > jobs.c.created_at
)

PoisonBody = Callable[[Any], dict[str, Any]]


class Upkeep:
    """The part of the ledger that the janitor runs."""

    _engine: Engine

    def now(self) -> float:
        """Seconds since the epoch by the database's clock."""
        with reading(self._engine) as connection:
            return float(connection.scalar(select(db_now())) or 0.0)

    def lead(self, name: str, *, owner: str, seconds: float) -> bool:
        """Take or keep the leadership `name` for `seconds` by the database's clock; False while another owner has it.

        One that lasts twice as long was taken before the clock was set back: it would outlive its owner by that hour, or day.
        """
        is_over = (leaders.c.until < db_now()) | (leaders.c.until > db_now() + 2 * seconds)
        with writing(self._engine) as connection:
            mine = update(leaders).where(leaders.c.name == name, (leaders.c.owner == owner) | is_over)
            if connection.execute(mine.values(owner=owner, until=db_now() + seconds)).rowcount == 1:
                return True
            fresh = insert_or_ignore(connection, leaders).values(until=db_now() + bindparam("seconds"))
            row = {"name": name, "owner": owner, "seconds": seconds}
            return bool(connection.execute(fresh.returning(leaders.c.name), row).first())

    def step_down(self, name: str, *, owner: str) -> None:
        """Give the leadership up, so that a standby takes over at once."""
        with writing(self._engine) as connection:
            connection.execute(delete(leaders).where(leaders.c.name == name, leaders.c.owner == owner))

    def expire_leases(self, *, max_crashes: int, page: int, urls: list[str], poison_body: PoisonBody) -> list[ExpiredLease]:
        """Take back jobs whose lease ran out: to the isolate route, or POISONED once `max_crashes` leases died under them."""
        expired: list[ExpiredLease] = []
        with reading(self._engine) as connection:
            rows = connection.execute(_EXPIRED, {"page": page}).all()
        for row in rows:
            crashes = row.crash_attempts + 1
            poisoned = crashes >= max_crashes
            state = POISONED if poisoned else QUEUED
            code = "POISONED" if poisoned else "WORKER_LOST"
            text = f"{crashes} of at most {max_crashes} worker processes died while they held this video"
            with writing(self._engine) as connection:
                values = {"job": row.ledger_id, "token": row.fence, "new_state": state, "code": code, "text": text}
                values["finished"] = connection.scalar(select(db_now())) if poisoned else None
                if connection.execute(_REQUEUE, values).rowcount != 1:
                    continue  # renewed, finished or taken back by another janitor in between
                if poisoned:
                    _bury_poisoned(connection, row, crashes=crashes, text=text, urls=urls, poison_body=poison_body)
                event = {"ledger_id": row.ledger_id, "kind": "poisoned" if poisoned else "expired", "detail": str(crashes)}
                record_events(connection, [{**event, "owner": row.owner, "fence": row.fence}])
            expired.append(ExpiredLease(ledger_id=row.ledger_id, lane=row.lane, state=state))
        return expired

    def take_due(
        self, *, route: str, queue: str | None = None, page: int, resend_seconds: float, min_age_seconds: float = 0.0
    ) -> list[DueJob]:
        """Pick due jobs of one route to be dispatched, oldest due first; each is left alone for `resend_seconds` afterwards."""
        if page <= 0:
            return []
        with reading(self._engine) as connection:  # an idle janitor never takes the write lock
            picked = list(connection.scalars(_DUE, {"from_route": route, "page": page, "min_age": min_age_seconds}))
        if not picked:
            return []
        with writing(self._engine) as connection:
            bumped = set(connection.scalars(_BUMP, {"picked": picked, "resend": resend_seconds}))
        ids = [ledger_id for ledger_id in picked if ledger_id in bumped]
        return [DueJob(ledger_id=ledger_id, queue=queue or route) for ledger_id in ids]

    def still_queued(self, ledger_ids: Collection[str]) -> set[str]:
        """Those of these jobs that no worker has taken yet."""
        with reading(self._engine) as connection:
            return set(connection.scalars(select(jobs.c.ledger_id).where(jobs.c.ledger_id.in_(ledger_ids), is_queued)))

    def retire(self, *, days: float, page: int = 5000) -> int:
        """Remove at most `page` finished jobs older than `days` with all that hangs on them, and dead letters as old; verdicts stay.

        Gives the number of jobs removed.

        A job goes after its last event: what is left without a job could not be found again when a video is to be forgotten.
        """
        limit = days * 86400.0
        with writing(self._engine) as connection:
            undelivered = select(outbox.c.ledger_id).where(outbox.c.ledger_id == jobs.c.ledger_id, is_pending).exists()
            old = select(jobs.c.ledger_id).where(is_finished, jobs.c.finished_at < db_now() - limit, ~undelivered).limit(page)
            ids = list(connection.scalars(old))
            for start in range(0, len(ids), 500):
                chunk = ids[start : start + 500]
                for table in (events, submission_keys, outbox, dead_letters, jobs):
                    connection.execute(delete(table).where(table.c.ledger_id.in_(chunk)))
            connection.execute(delete(dead_letters).where(dead_letters.c.created_at < db_now() - limit))
        return len(ids)

    def queue_facts(self) -> QueueFacts:
        """Waiting and running work per lane, from live rows only; the pause before another try is no waiting."""
        waiting = select(jobs.c.lane, func.count()).where(is_queued).group_by(jobs.c.lane)
        running = select(jobs.c.lane, func.count()).where(is_leased).group_by(jobs.c.lane)
        pending = select(db_now() - func.min(outbox.c.created_at)).where(is_pending)
        with reading(self._engine) as connection:
            queued = {row[0]: row[1] for row in connection.execute(waiting)}
            ages = {lane: _waiting_seconds(connection, lane) for lane in queued}
            leased = connection.execute(running).all()
            oldest = connection.scalar(pending)
        return QueueFacts(
            queued=queued,
            oldest_age_seconds=ages,
            leased={row[0]: row[1] for row in leased},
            outbox_oldest_age_seconds=max(0.0, oldest or 0.0),
        )

    def count_states(self) -> dict[str, int]:
        """Jobs per state; walks an index of all rows, so ask rarely."""
        finished = select(jobs.c.state, func.count()).where(is_finished).group_by(jobs.c.state)
        live = [(QUEUED, is_queued), (LEASED, is_leased)]
        with reading(self._engine) as connection:
            counts = {row[0]: row[1] for row in connection.execute(finished)}
            counts |= {state: connection.scalar(select(func.count()).select_from(jobs).where(condition)) or 0 for state, condition in live}
        return {**dict.fromkeys(STATES, 0), **counts}


def _waiting_seconds(connection: Connection, lane: str) -> float:
    now = connection.scalar(select(db_now())) or 0.0
    since = connection.scalar(_NEVER_PAUSED, {"lane": lane})
    paused_until = connection.scalar(_PAUSED_BEFORE, {"lane": lane, "before": now if since is None else since})
    waits: list[float] = [now - at for at in (since, paused_until) if at is not None]
    return max([0.0, *waits])


def _bury_poisoned(connection: Connection, row: Any, *, crashes: int, text: str, urls: list[str], poison_body: PoisonBody) -> None:
    bury(
        connection,
        key=f"job:{row.ledger_id}",
        origin="job",
        code="POISONED",
        message=text,
        ledger_id=row.ledger_id,
        attempts=crashes,
        payload=None,
    )
    targets = [*urls, row.callback_url] if row.callback_url else urls
    deliver_to(connection, ledger_id=row.ledger_id, kind="verdict.failed", urls=targets, body_text=json.dumps(poison_body(row)))
