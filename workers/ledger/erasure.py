"""Forgetting: everything about one video when somebody asks, and everything that outlived its time.

Rows go in one transaction together with the audit line that says so. The review log is append-only by trigger; it lets go of rows
that have an erasure slip, and slips never outlive their transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Engine, Table, delete, func, insert, select, union

from ..messages import names_video
from .door_schema import erasure_slips, tenant_usage
from .doors import DAY_SECONDS, record_audit
from .engine import hold_lock, reading, writing
from .explanations import explanations
from .review_schema import login_links, review_items, review_log
from .schema import db_now, dead_letters, events, jobs, outbox, submission_keys, verdicts
from .shadows import shadow_verdicts
from .submissions import FORGETTING, VIDEO_ERASED

_CHUNK: Final = 500
_USAGE_DAYS: Final = 31


@dataclass(frozen=True, slots=True)
class Erased:
    """How much one erasure removed."""

    jobs: int = 0
    verdicts: int = 0
    reviews: int = 0
    other: int = 0
    """History, keys, events to deliver, dead letters, explanations, shadow opinions."""

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing."""
        return not any(asdict(self).values())


class Erasure:
    """The part of the ledger that forgets."""

    _engine: Engine

    def erase_video(self, video_id: str, *, tenant: str = "", actor: str, messages: int = 0) -> Erased:
        """Remove every row about one video, also while a worker holds it: that worker's commit then finds no lease.

        Args:
            video_id: whose traces.
            tenant: whose video; another tenant's video of the same ID stays.
            actor: who asked; kept in the audit log with the video's ID and the counts.
            messages: how many were removed from the broker before; the line in the audit log keeps a reader from taking them in.
        """
        letters: list[int] = []
        newest = 0
        if tenant == "":  # queue and stream know no tenants
            with writing(self._engine) as connection:
                hold_lock(connection, FORGETTING)  # no message is being buried: those that are later get higher numbers
                newest = connection.scalar(select(func.max(dead_letters.c.seq))) or 0
            with reading(self._engine) as connection:  # all of them are read: others may write meanwhile
                letters = _letters_that_name(connection, video_id, where=dead_letters.c.seq <= newest)
        with writing(self._engine) as connection:
            if tenant == "":
                hold_lock(connection, FORGETTING)  # not before: the search may take a while
                letters += _letters_that_name(connection, video_id, where=dead_letters.c.seq > newest)
            mine = delete(jobs).where(jobs.c.video_id == video_id, jobs.c.tenant == tenant).returning(jobs.c.ledger_id)
            # first, because it waits for a commit that is under way: what that wrote is seen below
            gone = list(connection.scalars(mine))
            judged = select(verdicts.c.seq).where(verdicts.c.video_id == video_id, verdicts.c.tenant == tenant)
            connection.execute(judged.with_for_update())  # waits for a revision that is under way, for the same reason
            seqs = list(connection.scalars(judged))
            traces = union(
                select(verdicts.c.ledger_id).where(verdicts.c.video_id == video_id, verdicts.c.tenant == tenant),
                select(review_items.c.ledger_id).where(review_items.c.video_id == video_id, review_items.c.tenant == tenant),
            )
            ledger_ids = sorted({*gone, *connection.scalars(traces)})
            erased = _erase_rows(connection, seqs=seqs, ledger_ids=ledger_ids, jobs_gone=len(gone))
            num_letters = _delete_in(connection, dead_letters, dead_letters.c.seq, letters)
            erased = replace(erased, other=erased.other + num_letters)
            if messages or not erased.is_empty:
                detail = {name: count for name, count in {**asdict(erased), "messages": messages}.items() if count}
                record_audit(connection, actor=actor, action=VIDEO_ERASED, target=video_id, tenant=tenant, detail=detail)
        return erased

    def retire_verdicts(self, *, days: float, page: int = 5000, actor: str = "janitor") -> Erased:
        """Remove at most `page` verdicts older than `days` with their reviews, the oldest first, and login links as old."""
        limit = days * DAY_SECONDS
        with writing(self._engine) as connection:
            # an unfinished history is never cut in the middle; tenant and video are there for the index
            same_video = (jobs.c.tenant == verdicts.c.tenant) & (jobs.c.video_id == verdicts.c.video_id)
            living = select(jobs.c.ledger_id).where(same_video, jobs.c.verdict_seq == verdicts.c.seq).exists()
            old = select(verdicts.c.seq, verdicts.c.ledger_id).where(verdicts.c.created_at < db_now() - limit, ~living)
            rows = connection.execute(old.order_by(verdicts.c.seq).limit(page)).all()
            erased = _erase_rows(connection, seqs=[row.seq for row in rows], ledger_ids=[row.ledger_id for row in rows], jobs_gone=0)
            num_stale = connection.execute(delete(login_links).where(login_links.c.expires_at < db_now() - limit)).rowcount
            connection.execute(delete(tenant_usage).where(tenant_usage.c.day < db_now() / DAY_SECONDS - _USAGE_DAYS))
            if erased.verdicts or num_stale:
                detail = {"verdicts": erased.verdicts, "reviews": erased.reviews, "other": erased.other + num_stale, "days": days}
                record_audit(connection, actor=actor, action="retired", target="verdicts", detail=detail)
        return Erased(0, erased.verdicts, erased.reviews, erased.other + num_stale)


def _erase_rows(connection: Connection, *, seqs: Sequence[int], ledger_ids: Sequence[str], jobs_gone: int) -> Erased:
    for start in range(0, len(seqs), _CHUNK):
        connection.execute(insert(erasure_slips), [{"verdict_seq": seq} for seq in seqs[start : start + _CHUNK]])
    num_reviews = _delete_in(connection, review_log, review_log.c.verdict_seq, seqs)
    num_reviews += _delete_in(connection, review_items, review_items.c.verdict_seq, seqs)
    if seqs:
        connection.execute(delete(erasure_slips))
    num_other = _delete_in(connection, shadow_verdicts, shadow_verdicts.c.verdict_seq, seqs)
    for table in (explanations, outbox, submission_keys, events, dead_letters):
        num_other += _delete_in(connection, table, table.c.ledger_id, ledger_ids)
    return Erased(jobs_gone, _delete_in(connection, verdicts, verdicts.c.seq, seqs), num_reviews, num_other)


def _letters_that_name(connection: Connection, video_id: str, *, where: ColumnElement[bool]) -> list[int]:
    """Refused messages, and events whose job is gone, in which the video is named in any spelling."""
    letters = select(dead_letters.c.seq, dead_letters.c.message, dead_letters.c.payload).where(where)
    rows = connection.execute(letters.execution_options(yield_per=_CHUNK))
    return [row.seq for row in rows if names_video(row.payload or "", video_id) or names_video(row.message, video_id)]


def _delete_in(connection: Connection, table: Table, column: Column[Any], values: Sequence[Any]) -> int:
    chunks = (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
    return sum(connection.execute(delete(table).where(column.in_(chunk))).rowcount for chunk in chunks)
