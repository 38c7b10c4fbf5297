"""The list of verdicts: filters and a cursor, each page read from one covering index and only its own bodies looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, FromClause, Select, exists, func, or_, select, tuple_, union_all

from .review_schema import DECIDED, review_items
from .schema import verdicts

WORDS: Final = ("authentic", "suspicious", "manipulated", "inconclusive")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFilter:
    """Which verdicts somebody wants to see; what is None does not matter. Times are seconds since the epoch."""

    tenant: str = ""
    words: tuple[str, ...] = ()
    """Any of these; empty: all."""
    created_from: float | None = None
    created_to: float | None = None
    """Up to, but not including."""
    p_fake_min: float | None = None
    """Leaves out verdicts without a score, as does `p_fake_max`."""
    p_fake_max: float | None = None
    video_id: str | None = None
    """All revisions of one video."""
    video_id_prefix: str | None = None
    content_sha256: str | None = None
    bundle_set: str | None = None
    """`name@hash`, or either half of it."""
    is_reviewed: bool | None = None
    """Whether people have decided on it."""

    @property
    def names_rows(self) -> bool:
        """Whether it names a few rows, instead of a kind of rows."""
        return self.video_id is not None or self.content_sha256 is not None


def newest_verdicts(wanted: VerdictFilter, *, before: Any | None, limit: int) -> Select[Any]:
    """The statement for one page, newest first: `seq` and `body`, strictly behind `before`, which `position_of` gives."""
    columns = [verdicts.c.seq, verdicts.c.created_at]
    walks = [_named(wanted, before)] if wanted.names_rows else [_walked(wanted, before, word) for word in wanted.words or WORDS]
    limited = [select(*columns).where(*walk).order_by(*_newest_first(verdicts)).limit(limit).subquery() for walk in walks]
    page = union_all(*(select(walk) for walk in limited)).subquery()
    bodies = select(verdicts.c.seq, verdicts.c.body).join_from(page, verdicts, verdicts.c.seq == page.c.seq)
    return bodies.order_by(*_newest_first(page)).limit(limit)


def _newest_first(table: FromClause) -> tuple[ColumnElement[Any], ...]:
    return table.c.created_at.desc(), table.c.seq.desc()


def _walked(wanted: VerdictFilter, before: Any | None, word: str) -> list[ColumnElement[bool]]:
    """One word's verdicts: a walk in the order of the list's index, never further than a page of hits."""
    within = _within(wanted, before, verdicts.c.created_at)
    return [verdicts.c.tenant == wanted.tenant, verdicts.c.verdict == word, *within, *_conditions(wanted)]


def _named(wanted: VerdictFilter, before: Any | None) -> list[ColumnElement[bool]]:
    """A handful of rows, found by video ID or hash: all else is written as expressions, or SQLite would walk the whole list instead."""
    found = select(verdicts.c.seq)
    if wanted.video_id is not None:
        found = found.where(verdicts.c.tenant == wanted.tenant, verdicts.c.video_id == wanted.video_id)
    else:
        found = found.where(verdicts.c.tenant + "" == wanted.tenant)
    if wanted.content_sha256 is not None:
        found = found.where(verdicts.c.content_sha256 == wanted.content_sha256)
    words = [(verdicts.c.verdict + "").in_(wanted.words)] if wanted.words else []
    return [verdicts.c.seq.in_(found), *words, *_within(wanted, before, verdicts.c.created_at + 0), *_conditions(wanted)]


def _within(wanted: VerdictFilter, before: Any | None, created_at: ColumnElement[float]) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.created_from is not None:
        conditions.append(created_at >= wanted.created_from)
    if wanted.created_to is not None:
        conditions.append(created_at < wanted.created_to)
    if before is not None:
        conditions.append(tuple_(created_at, verdicts.c.seq) < before)
    return conditions


def position_of(connection: Connection, cursor: int) -> Any | None:
    """Where a page ends that ended with the verdict `cursor`, also when that one was erased meanwhile; None when nothing is behind it."""
    row = connection.execute(
        select(verdicts.c.created_at, verdicts.c.seq).where(verdicts.c.seq <= cursor).order_by(verdicts.c.seq.desc()).limit(1)
    ).first()
    if row is None:
        return None
    return tuple_(row.created_at, row.seq + (row.seq != cursor))


def _conditions(wanted: VerdictFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.p_fake_min is not None:
        conditions.append(verdicts.c.p_fake >= wanted.p_fake_min)
    if wanted.p_fake_max is not None:
        conditions.append(verdicts.c.p_fake <= wanted.p_fake_max)
    if wanted.bundle_set is not None:
        conditions.append(_is_made_by(wanted.bundle_set))
    if wanted.video_id_prefix is not None:  # LIKE takes A for a on SQLite
        conditions.append(func.substr(verdicts.c.video_id, 1, len(wanted.video_id_prefix)) == wanted.video_id_prefix)
    if wanted.is_reviewed is not None:
        decided = exists().where(review_items.c.verdict_seq == verdicts.c.seq, review_items.c.state == DECIDED)
        conditions.append(decided if wanted.is_reviewed else ~decided)
    return conditions


def _is_made_by(bundle_set: str) -> ColumnElement[bool]:
    column = verdicts.c.bundle_set
    if "@" in bundle_set:
        return column == bundle_set
    return or_(
        column == bundle_set, column.startswith(bundle_set + "@", autoescape=True), column.endswith("@" + bundle_set, autoescape=True)
    )
