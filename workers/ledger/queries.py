"""Reading the ledger: one job, lists of verdicts, the history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, select

from .engine import reading
from .records import JobRow, VerdictRow
from .review_queries import newest_first
from .schema import VERDICT, events, is_queued, jobs, verdicts
from .verdict_list import VerdictFilter, newest_verdicts, position_of


class Queries:
    """The part of the ledger that only reads."""

    _engine: Engine

    def job(self, ledger_id: str, *, tenant: str | None = None) -> JobRow | None:
        """One job by its ledger ID; only a tenant's own when one is named."""
        wanted = select(jobs, verdicts.c.body).where(jobs.c.ledger_id == ledger_id)
        return self._one(wanted if tenant is None else wanted.where(jobs.c.tenant == tenant))

    def outcome(self, ledger_id: str, *, tenant: str | None = None) -> JobRow | None:
        """One job; past its retention what its newest verdict tells of it, as verdicts are kept for longer."""
        of_tenant = [] if tenant is None else [verdicts.c.tenant == tenant]
        return self.job(ledger_id, tenant=tenant) or self._kept(verdicts.c.ledger_id == ledger_id, *of_tenant)

    def latest_outcome(self, video_id: str, *, tenant: str = "") -> JobRow | None:
        """The newest job of one video; past its retention what the video's newest verdict tells of it."""
        return self.latest_job(video_id, tenant=tenant) or self._kept(verdicts.c.tenant == tenant, verdicts.c.video_id == video_id)

    def latest_job(self, video_id: str, *, tenant: str = "") -> JobRow | None:
        """The newest job of one video."""
        wanted = select(jobs, verdicts.c.body).where(jobs.c.tenant == tenant, jobs.c.video_id == video_id)
        return self._one(wanted.order_by(jobs.c.created_at.desc(), jobs.c.ledger_id.desc()).limit(1))

    def _one(self, statement: Select[Any]) -> JobRow | None:
        joined = statement.select_from(jobs.outerjoin(verdicts, jobs.c.verdict_seq == verdicts.c.seq))
        with reading(self._engine) as connection:
            row = connection.execute(joined).first()
        if row is None:
            return None
        return JobRow(
            ledger_id=row.ledger_id,
            video_id=row.video_id,
            state=row.state,
            lane=row.lane,
            attempts=row.attempts,
            created_at=row.created_at,
            finished_at=row.finished_at,
            error_code=row.error_code,
            error_message=row.error_message,
            attributes=json.loads(row.attributes),
            trace_id=row.trace_id,
            body=json.loads(row.body) if row.body else None,
            tenant=row.tenant,
        )

    def _kept(self, *conditions: ColumnElement[bool]) -> JobRow | None:
        with reading(self._engine) as connection:
            row = connection.execute(select(verdicts).where(*conditions).order_by(newest_first()).limit(1)).first()
        if row is None:
            return None
        body = json.loads(row.body)
        return JobRow(
            ledger_id=row.ledger_id,
            video_id=row.video_id,
            state=VERDICT,
            lane="",
            attempts=0,
            created_at=row.created_at,
            finished_at=row.created_at,
            error_code=None,
            error_message=None,
            attributes=body.get("attributes") or {},
            trace_id=body.get("trace_id"),
            body=body,
            tenant=row.tenant,
        )

    def list_verdicts(self, wanted: VerdictFilter | None = None, *, before: int | None = None, limit: int = 50) -> list[VerdictRow]:
        """Verdicts of one tenant, newest first, behind the cursor `before`, the `seq` of the last one of the page before."""
        with reading(self._engine) as connection:
            position = None if before is None else position_of(connection, before)
            if before is not None and position is None:
                return []
            rows = connection.execute(newest_verdicts(wanted or VerdictFilter(), before=position, limit=limit))
            return [VerdictRow(seq=row.seq, body=json.loads(row.body)) for row in rows]

    def count_waiting(self) -> int:
        """Jobs that wait, from the partial index."""
        with reading(self._engine) as connection:
            return int(connection.scalar(select(func.count()).select_from(jobs).where(is_queued)) or 0)

    def history(self) -> Iterator[dict[str, Any]]:
        """The append-only event log in order."""
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=2000).execute(select(events).order_by(events.c.seq)):
                yield dict(row._mapping)
