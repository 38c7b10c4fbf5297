"""Claim, renew, finish: every write of a worker carries `(ledger_id, owner, fence)`; zero rows touched = the lease was lost."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, Update, bindparam, case, select, tuple_, update

from ..errors import LeaseLostError
from ..messages import answer_to_job
from .engine import reading, writing
from .receivers import receiver_of
from .records import Claim, ClaimRefused, VerdictRecord
from .reviews import open_review
from .schema import FAILED, LEASED, QUEUED, TERMINAL, VERDICT, db_now, dead_letters, is_leased, is_queued, jobs, outbox, verdicts
from .shadows import record_shadow
from .submissions import insert_or_ignore, record_events

_CLAIM: Final = (
    update(jobs)
    .where(jobs.c.ledger_id == bindparam("job"), is_queued, jobs.c.not_before <= db_now())
    .values(
        state=LEASED,
        owner=bindparam("new_owner"),
        fence=jobs.c.fence + 1,
        attempts=jobs.c.attempts + 1,
        lease_until=db_now() + bindparam("lease"),
        started_at=db_now(),
    )
    .returning(jobs, (db_now() - jobs.c.created_at).label("waited"))
)
_RENEW: Final = (
    update(jobs)
    .where(jobs.c.ledger_id.in_(bindparam("held", expanding=True)), is_leased, jobs.c.owner == bindparam("holder"))
    .values(lease_until=db_now() + bindparam("lease"))
    .returning(jobs.c.ledger_id, jobs.c.fence)
)


def _held() -> Update:
    return update(jobs).where(
        jobs.c.ledger_id == bindparam("job"),
        is_leased,
        jobs.c.owner == bindparam("holder"),
        jobs.c.fence == bindparam("token"),
    )


_FREE: Final = {"owner": None, "lease_until": None}
_FINISH: Final = _held().values(
    state=bindparam("new_state"),
    finished_at=db_now(),
    error_code=bindparam("code"),
    error_message=bindparam("text"),
    verdict_seq=bindparam("seq"),
    **_FREE,
)
_RETRY: Final = _held().values(
    state=QUEUED,
    retries=jobs.c.retries + 1,
    due_at=db_now() + bindparam("delay"),
    not_before=db_now() + bindparam("delay"),
    error_code=bindparam("code"),
    error_message=bindparam("text"),
    **_FREE,
)
_UNHARMED: Final[dict[str, Any]] = {
    "state": QUEUED,
    "due_at": db_now(),
    "attempts": case((jobs.c.attempts > 0, jobs.c.attempts - 1), else_=0),
    **_FREE,
}
_RELEASE: Final = _held().values(**_UNHARMED)
_RELEASE_ALL: Final = (
    update(jobs)
    .where(tuple_(jobs.c.ledger_id, jobs.c.owner, jobs.c.fence).in_(bindparam("held", expanding=True)), is_leased)
    .values(**_UNHARMED)
    .returning(jobs.c.ledger_id)
)


def deliver_to(connection: Connection, *, ledger_id: str, kind: str, urls: list[str], body_text: str, mark: str = "") -> None:
    """Write one outbox row per URL, in the caller's transaction. The event ID is stable: it names job, kind and URL.

    `mark` tells events apart that a job may have several of.
    """
    rows = [
        {
            "event_id": uuid.uuid5(uuid.NAMESPACE_URL, f"{ledger_id}/{kind}{mark}/{url}").hex,
            "ledger_id": ledger_id,
            "kind": kind,
            "url": url,
            "receiver": receiver_of(url),
            "payload": body_text,
        }
        for url in dict.fromkeys(urls)
    ]
    if rows:
        connection.execute(insert_or_ignore(connection, outbox).values(created_at=db_now(), next_try_at=db_now()), rows)


def bury(connection: Connection, *, key: str, origin: str, code: str, message: str, **facts: Any) -> bool:
    """Write one dead letter unless `key` has one already; tell whether it is new."""
    row = {"dedupe_key": key, "origin": origin, "code": code, "message": message[:2000], **facts}
    statement = insert_or_ignore(connection, dead_letters).values(created_at=db_now()).returning(dead_letters.c.seq)
    return connection.execute(statement, row).first() is not None


class Leases:
    """The part of the ledger that workers write."""

    _engine: Engine

    def claim(self, ledger_id: str, *, owner: str, lease_seconds: float) -> Claim | ClaimRefused:
        """Lease one waiting job, in one atomic UPDATE on the primary key."""
        with writing(self._engine) as connection:
            row = connection.execute(_CLAIM, {"job": ledger_id, "new_owner": owner, "lease": lease_seconds}).first()
            if row is not None:
                record_events(connection, [{"ledger_id": ledger_id, "kind": "claimed", "owner": owner, "fence": row.fence}])
                return Claim(
                    ledger_id=ledger_id,
                    owner=owner,
                    fence=row.fence,
                    video_id=row.video_id,
                    source=row.source,
                    content_sha256=row.content_sha256,
                    callback_url=row.callback_url,
                    policy=row.policy,
                    attributes=json.loads(row.attributes),
                    trace_id=row.trace_id,
                    lane=row.lane,
                    attempts=row.attempts,
                    crash_attempts=row.crash_attempts,
                    retries=row.retries,
                    created_at=row.created_at,
                    waited_seconds=max(0.0, row.waited),
                    tenant=row.tenant,
                )
        with reading(self._engine) as connection:
            state = connection.scalar(select(jobs.c.state).where(jobs.c.ledger_id == ledger_id))
        if state is None:
            return ClaimRefused("unknown")
        if state in TERMINAL:
            return ClaimRefused("terminal")
        return ClaimRefused("leased" if state == LEASED else "not_due")

    def renew(self, owner: str, *, ledger_ids: Sequence[str], lease_seconds: float) -> dict[str, int]:
        """Renew the leases of the jobs an owner works on, in one statement; gives `{ledger_id: fence}` of what is still held.

        Named one by one: of a claim whose answer was lost the owner knows nothing, and that lease has to run out.
        """
        with writing(self._engine) as connection:
            rows = connection.execute(_RENEW, {"holder": owner, "held": ledger_ids, "lease": lease_seconds}).all()
        return {row.ledger_id: row.fence for row in rows}

    def commit_verdict(self, claim: Claim, *, verdict: VerdictRecord, urls: list[str]) -> bool:
        """Verdict, outbox and job state in ONE transaction.

        Returns:
            True when the verdict is new; False when the same judgement (video, content, bundle set, policy) was on record:
            then the job points at the older verdict, and of `urls` only the job's own callback gets that one, as the job's answer.

        Raises:
            LeaseLostError: another worker holds the job by now; nothing was written.
        """
        key = {"tenant": claim.tenant, "video_id": claim.video_id, "content_sha256": verdict.content_sha256}
        judgement = {**key, "bundle_set": verdict.bundle_set, "policy": verdict.policy}
        text = verdict.body_text()
        with writing(self._engine) as connection:
            statement = insert_or_ignore(connection, verdicts).values(created_at=db_now()).returning(verdicts.c.seq)
            row = {**judgement, "ledger_id": claim.ledger_id, "verdict": verdict.verdict, "p_fake": verdict.p_fake, "body": text}
            seq = connection.scalar(statement, row)
            is_new = seq is not None
            if not is_new:
                seq, text = connection.execute(select(verdicts.c.seq, verdicts.c.body).filter_by(**judgement)).one()
                urls = [url for url in urls if url == claim.callback_url]
                own = answer_to_job(json.loads(text), job_id=claim.ledger_id, attributes=claim.attributes, trace_id=claim.trace_id)
                text = json.dumps(own, separators=(",", ":"))
            self._finish(connection, claim, state=VERDICT, seq=seq)
            if is_new:
                opened = {"ledger_id": claim.ledger_id, "video_id": claim.video_id, "tenant": claim.tenant}
                open_review(connection, verdict_seq=seq, verdict=verdict, **opened)
                record_shadow(connection, verdict_seq=seq, verdict=verdict, **opened)
            deliver_to(connection, ledger_id=claim.ledger_id, kind="verdict.completed", urls=urls, body_text=text)
            record_events(connection, [_event(claim, "verdict" if is_new else "same_verdict", detail=str(seq))])
        return is_new

    def fail(self, claim: Claim, *, code: str, message: str, body: dict[str, Any], urls: list[str]) -> None:
        """End a job as FAILED with a code, a dead letter and its outbox row, in one transaction.

        Raises:
            LeaseLostError: another worker holds the job by now; nothing was written.
        """
        with writing(self._engine) as connection:
            self._finish(connection, claim, state=FAILED, code=code, text=message)
            bury(
                connection,
                key=f"job:{claim.ledger_id}",
                origin="job",
                code=code,
                message=message,
                ledger_id=claim.ledger_id,
                attempts=claim.attempts,
                payload=None,
            )
            deliver_to(connection, ledger_id=claim.ledger_id, kind="verdict.failed", urls=urls, body_text=json.dumps(body))
            record_events(connection, [_event(claim, "failed", detail=code)])

    def retry(self, claim: Claim, *, code: str, message: str, delay_seconds: float) -> None:
        """Give a job back after a typed error, to be tried again not before `delay_seconds`. Raises `LeaseLostError`."""
        values = {"delay": delay_seconds, "code": code, "text": message[:2000]}
        with writing(self._engine) as connection:
            _touch(connection, _RETRY, claim, values)
            record_events(connection, [_event(claim, "retried", detail=code)])

    def release(self, claim: Claim, *, why: str = "drain") -> None:
        """Hand a job back unharmed: the attempt is not counted. Raises `LeaseLostError`."""
        with writing(self._engine) as connection:
            _touch(connection, _RELEASE, claim, {})
            record_events(connection, [_event(claim, "released", detail=why)])

    def release_all(self, claims: Sequence[Claim], *, why: str) -> None:
        """Hand jobs back as `release` does, in one statement: a slow ledger is waited for once; lost leases are left out."""
        held = {(claim.ledger_id, claim.owner, claim.fence): claim for claim in claims}
        with writing(self._engine) as connection:
            rows = connection.execute(_RELEASE_ALL, {"held": list(held)}).all()
            given = {row.ledger_id for row in rows}
            record_events(connection, [_event(claim, "released", detail=why) for claim in held.values() if claim.ledger_id in given])

    @staticmethod
    def _finish(
        connection: Connection, claim: Claim, *, state: str, code: str | None = None, text: str | None = None, seq: int | None = None
    ) -> None:
        _touch(connection, _FINISH, claim, {"new_state": state, "code": code, "text": text and text[:2000], "seq": seq})


def _event(claim: Claim, kind: str, *, detail: str) -> dict[str, Any]:
    return {"ledger_id": claim.ledger_id, "kind": kind, "owner": claim.owner, "fence": claim.fence, "detail": detail}


def _touch(connection: Connection, statement: Update, claim: Claim, values: dict[str, Any]) -> None:
    result = connection.execute(statement, {"job": claim.ledger_id, "holder": claim.owner, "token": claim.fence, **values})
    if result.rowcount != 1:
        raise LeaseLostError(
            f"job {claim.ledger_id} is no longer held by {claim.owner} with fence {claim.fence}: its lease ran out or was taken, "
            "nothing was written"
        )
