"""Reading what people review: the queue, one item, its log, the history behind the threshold and agreement pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, Select, case, exists, func, null, or_, select

from .engine import reading
from .records import VerdictRow
from .review_schema import REPLACED, is_open, review_items, review_log
from .schema import db_now, jobs, verdicts
from .standing import CARRIED, LogEntry

_ITEM: Final = select(
    review_items,
    (db_now() - review_items.c.opened_at).label("age"),
    (review_items.c.claimed_until > db_now()).label("is_claimed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """One verdict that people look at."""

    verdict_seq: int
    ledger_id: str
    video_id: str
    tenant: str
    word: str
    p_fake: float | None
    reasons: tuple[str, ...]
    title: str | None
    age_seconds: float
    state: str
    reading: str
    readers: tuple[str, ...]
    """Who decided it already, oldest first."""
    claimed_by: str | None
    """Who holds it now; None when nobody does."""
    decision: str | None
    decided_by: str | None
    decided_at: float | None

    @property
    def is_open(self) -> bool:
        """Whether it waits for a decision."""
        return self.state == "OPEN"

    def may_read(self, actor: str) -> bool:
        """Whether this person may decide it."""
        return self.is_open and actor not in self.readers


@dataclass(frozen=True, slots=True)
class ScoredWord:
    """How many verdicts of one word lie where, for "what would change"."""

    word: str
    decision: str | None
    """Only those that people decided like this; None: all."""
    num_below: int
    """Below both lines."""
    num_between: int
    num_above: int


@dataclass(frozen=True, slots=True)
class VerdictRevision:
    """One verdict in a video's history."""

    seq: int
    word: str
    p_fake: float | None
    bundle_set: str
    created_at: float


@dataclass(frozen=True, slots=True)
class NewerSubmission:
    """What the newest job of a video came to, beside a verdict that is not its own."""

    state: str
    """As in `schema.jobs`."""
    verdict_seq: int | None
    """Its verdict; None: none yet, or it failed."""


@dataclass(frozen=True, slots=True)
class FoundVideo:
    """Where a search leads."""

    video_id: str
    verdict_seq: int
    """The verdict to show; 0: the newest of the house's video, or its job."""


def newest_first() -> ColumnElement[int]:
    """An order that no index gives: SQLite would walk every verdict backwards, where the few of one video are found by their name."""
    return (verdicts.c.seq + 0).desc()


def _places(p_fake: ColumnElement[float | None], review: float, fake: float) -> list[ColumnElement[int]]:
    conditions = (p_fake < review, (p_fake >= review) & (p_fake < fake), p_fake >= fake)
    return [func.sum(case((condition, 1), else_=0)) for condition in conditions]


def read_item(row: Any) -> ReviewItem:
    """One row of the item query."""
    return ReviewItem(
        verdict_seq=row.verdict_seq,
        ledger_id=row.ledger_id,
        video_id=row.video_id,
        tenant=row.tenant,
        word=row.word,
        p_fake=row.p_fake,
        reasons=tuple(row.reasons.split(",")) if row.reasons else (),
        title=row.title,
        age_seconds=max(0.0, row.age),
        state=row.state,
        reading=row.reading,
        readers=tuple(name for name in row.readers.split("|") if name),
        claimed_by=row.claimed_by if row.is_claimed else None,
        decision=row.decision,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )


def item_of(connection: Connection, verdict_seq: int, *, lock: bool = False) -> ReviewItem | None:
    """One item, locked for the rest of the transaction when asked."""
    statement = _ITEM.where(review_items.c.verdict_seq == verdict_seq)
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    return read_item(row) if row is not None else None


def has_newer_item(connection: Connection, verdict_seq: int) -> bool:
    """Whether people look, or have looked, at a newer verdict of the same video."""
    newer = review_items.alias("newer")
    same = [newer.c.tenant == review_items.c.tenant, newer.c.video_id == review_items.c.video_id, newer.c.state != REPLACED]
    found = select(review_items.c.verdict_seq).where(
        review_items.c.verdict_seq == verdict_seq, exists().where(*same, newer.c.verdict_seq > review_items.c.verdict_seq)
    )
    return connection.scalar(found) is not None


_ENTRY: Final = tuple(LogEntry.__dataclass_fields__)
_UNTOLD: Final = ("claimed", CARRIED)
"""What the history leaves out: opening a page is no step, and what is carried over stands there once already."""


def _read_blind_by(actor: str) -> Select[tuple[int]]:
    """All items, under any verdict, of the videos that wait for a second reader, whom this person may be."""
    every = review_items.alias("every")
    same = (every.c.tenant == review_items.c.tenant) & (every.c.video_id == review_items.c.video_id)
    is_mine = ~review_items.c.readers.contains(f"|{actor}|", autoescape=True)
    return select(every.c.verdict_seq).join(review_items, same).where(is_open, review_items.c.reading == "second", is_mine)


def _tenant_of(verdict_seq: int) -> ColumnElement[str]:
    """Whose video of an ID one of its verdicts is about; the house's where it is about none."""
    return func.coalesce(select(verdicts.c.tenant).where(verdicts.c.seq == verdict_seq).scalar_subquery(), "")


def _entry(row: Any) -> LogEntry:
    """One row of the log, whose columns are the entry's fields in order."""
    return LogEntry(**dict(zip(_ENTRY, row, strict=True)))


def entries_of(connection: Connection, verdict_seq: int) -> list[LogEntry]:
    """The log of one item, oldest first."""
    rows = connection.execute(select(review_log).where(review_log.c.verdict_seq == verdict_seq).order_by(review_log.c.seq))
    return [_entry(row) for row in rows]


class ReviewQueries:
    """The part of the ledger that the dashboard reads."""

    _engine: Engine

    def review_queue(
        self,
        *,
        after: int = 0,
        limit: int = 50,
        word: str | None = None,
        reading_wanted: str | None = None,
        claimed_by: str | None = None,
        hide_from: str | None = None,
    ) -> list[ReviewItem]:
        """What waits for people, oldest first, behind the cursor `after`.

        Args:
            after: `verdict_seq` of the last item of the page before.
            limit: page size.
            word: only this verdict word.
            reading_wanted: first, second, settle or appeal.
            claimed_by: only what this person holds.
            hide_from: leave out what this person has decided or another one holds: what they can take now.
        """
        statement = _ITEM.where(is_open, review_items.c.verdict_seq > after).order_by(review_items.c.verdict_seq).limit(limit)
        if word is not None:
            statement = statement.where(review_items.c.word == word)
        if reading_wanted is not None:
            statement = statement.where(review_items.c.reading == reading_wanted)
        if claimed_by is not None:
            statement = statement.where(review_items.c.claimed_by == claimed_by, review_items.c.claimed_until > db_now())
        if hide_from is not None:
            held = (review_items.c.claimed_until > db_now()) & (review_items.c.claimed_by != hide_from)
            statement = statement.where(
                or_(review_items.c.claimed_until.is_(None), ~held),
                ~review_items.c.readers.contains(f"|{hide_from}|", autoescape=True),
            )
        with reading(self._engine) as connection:
            return [read_item(row) for row in connection.execute(statement)]

    def review_counts(self) -> dict[tuple[str, str], int]:
        """Open items per (word, reading), from the partial index."""
        statement = select(review_items.c.word, review_items.c.reading, func.count()).where(is_open)
        with reading(self._engine) as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(statement.group_by(review_items.c.word, review_items.c.reading))}

    def review_item(self, verdict_seq: int) -> ReviewItem | None:
        """One item."""
        with reading(self._engine) as connection:
            return item_of(connection, verdict_seq)

    def review_item_of(self, video_id: str) -> ReviewItem | None:
        """The newest item of one video."""
        statement = _ITEM.where(review_items.c.video_id == video_id).order_by(review_items.c.verdict_seq.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(statement).first()
        return read_item(row) if row is not None else None

    def review_is_superseded(self, verdict_seq: int) -> bool:
        """Whether a newer item of the same video took this one's place, decided or not."""
        with reading(self._engine) as connection:
            return has_newer_item(connection, verdict_seq)

    def review_entries(self, verdict_seq: int) -> list[LogEntry]:
        """The log of one item, oldest first."""
        with reading(self._engine) as connection:
            return entries_of(connection, verdict_seq)

    def review_history(
        self, *, before: int | None = None, limit: int = 100, actor: str | None = None, reader: str | None = None
    ) -> list[LogEntry]:
        """The whole log, newest first; without what `reader` must not know before a blind reading."""
        statement = select(review_log).where(review_log.c.kind.not_in(_UNTOLD)).order_by(review_log.c.seq.desc()).limit(limit)
        if before is not None:
            statement = statement.where(review_log.c.seq < before)
        if actor is not None:
            statement = statement.where(review_log.c.actor == actor)
        if reader is not None:
            statement = statement.where(or_(review_log.c.actor == reader, review_log.c.verdict_seq.not_in(_read_blind_by(reader))))
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(statement)]

    def reads_blind(self, video_id: str, *, verdict_seq: int, actor: str) -> bool:
        """Whether this person may be the second reader of the video, who must not know what was said of it, under any of its verdicts.

        `verdict_seq`, one of them, says whose video of that ID is meant; 0: the house's.
        """
        of_video = [review_items.c.tenant == _tenant_of(verdict_seq), review_items.c.video_id == video_id]
        with reading(self._engine) as connection:
            return connection.scalar(_read_blind_by(actor).where(*of_video).limit(1)) is not None

    def review_decisions(self, *, limit: int) -> list[LogEntry]:
        """The newest decisions, undos and requests for second readers, the oldest of them first: what agreement is computed from.

        Beyond `limit`: what was carried over to an item before its second reading, as the first one then stands there only.
        """
        kinds = ("decided", "undone", "second_asked")
        steps = select(review_log).where(review_log.c.kind.in_(kinds)).order_by(review_log.c.seq.desc()).limit(limit)
        with reading(self._engine) as connection:
            found = [_entry(row) for row in connection.execute(steps)]
            if found:
                read_twice = select(review_log.c.verdict_seq).where(
                    review_log.c.seq >= found[-1].seq, review_log.c.kind == "decided", review_log.c.reading == "second"
                )
                held = select(review_log).where(review_log.c.verdict_seq.in_(read_twice), review_log.c.kind == CARRIED)
                found += [_entry(row) for row in connection.execute(held)]
        return sorted(found, key=lambda entry: entry.seq)

    def media_of(self, ledger_id: str) -> tuple[str, str | None, str] | None:
        """Video ID, source and tenant of a job; None when its row was retired."""
        named = select(jobs.c.video_id, jobs.c.source, jobs.c.tenant).where(jobs.c.ledger_id == ledger_id)
        with reading(self._engine) as connection:
            row = connection.execute(named).first()
        return (row.video_id, row.source, row.tenant) if row is not None else None

    def verdict_of(self, video_id: str, *, verdict_seq: int | None = None) -> VerdictRow | None:
        """One verdict of a video: the one named, else the newest."""
        wanted = select(verdicts.c.seq, verdicts.c.body).where(verdicts.c.video_id == video_id)
        newest = wanted.where(verdicts.c.tenant == "").order_by(newest_first()).limit(1)
        waiting = select(review_items.c.verdict_seq).where(review_items.c.video_id == video_id)
        elsewhere = wanted.where(verdicts.c.seq.in_(waiting)).order_by(newest_first()).limit(1)  # a tenant's: found by its item
        with reading(self._engine) as connection:
            if verdict_seq is not None:
                row = connection.execute(wanted.where(verdicts.c.seq == verdict_seq)).first()
            else:
                row = connection.execute(newest).first() or connection.execute(elsewhere).first()
        return VerdictRow(seq=row.seq, body=json.loads(row.body)) if row is not None else None

    def verdict_revisions(self, video_id: str, *, verdict_seq: int = 0, limit: int = 50) -> list[VerdictRevision]:
        """Every verdict of a video, newest first, without bodies.

        Args:
            video_id: whose.
            verdict_seq: one of them, which says whose video of that ID is meant; 0: the house's.
            limit: at most so many.
        """
        wanted = [verdicts.c[name] for name in ("seq", "verdict", "p_fake", "bundle_set", "created_at")]
        # named first: the list's index has all these columns, and SQLite would rather walk it than look a few rows up
        named = select(verdicts.c.seq).where(verdicts.c.tenant == _tenant_of(verdict_seq), verdicts.c.video_id == video_id)
        statement = select(*wanted).where(verdicts.c.seq.in_(named)).order_by(newest_first()).limit(limit)
        with reading(self._engine) as connection:
            return [VerdictRevision(*row) for row in connection.execute(statement)]

    def newer_submission(self, verdict_seq: int) -> NewerSubmission | None:
        """The newest job of a verdict's video; None when that verdict is what it came to."""
        of = select(jobs.c.state, jobs.c.verdict_seq).join(
            verdicts, (verdicts.c.tenant == jobs.c.tenant) & (verdicts.c.video_id == jobs.c.video_id)
        )
        newest = of.where(verdicts.c.seq == verdict_seq).order_by(jobs.c.created_at.desc(), jobs.c.ledger_id.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(newest).first()
        return NewerSubmission(*row) if row is not None and row.verdict_seq != verdict_seq else None

    def find_videos(self, text: str, *, limit: int = 50) -> list[FoundVideo]:
        """Videos behind a video ID, a job ID, or a SHA-256 of the content or its first 8 and more digits.

        A tenant's video is found once it has a verdict: by its ID alone the pages show the house's.
        """
        judged = select(verdicts.c.video_id, verdicts.c.tenant, func.max(verdicts.c.seq)).group_by(verdicts.c.tenant, verdicts.c.video_id)
        statements: list[Select[Any]] = [
            select(jobs.c.video_id, jobs.c.tenant, null()).where(jobs.c.tenant == "", jobs.c.video_id == text).limit(1),
            judged.where(verdicts.c.tenant == "", verdicts.c.video_id == text),
            select(jobs.c.video_id, jobs.c.tenant, jobs.c.verdict_seq).where(jobs.c.ledger_id == text),
            judged.where(verdicts.c.ledger_id == text),
        ]
        digits = text.lower()
        if 8 <= len(digits) <= 64 and all(c in "0123456789abcdef" for c in digits):
            content = verdicts.c.content_sha256
            statements.append(judged.where(content >= digits, content <= digits + "g").limit(limit))
        with reading(self._engine) as connection:
            rows = [tuple(row) for statement in statements for row in connection.execute(statement)]
        found = [FoundVideo(video_id, seq if tenant else 0) for video_id, tenant, seq in rows if seq or not tenant]
        return list(dict.fromkeys(found))[:limit]

    def bundle_sets(self) -> list[tuple[str, int]]:
        """Bundle sets with scored verdicts and how many, most used first."""
        count = func.count()
        statement = select(verdicts.c.bundle_set, count).where(verdicts.c.p_fake.is_not(None)).group_by(verdicts.c.bundle_set)
        with reading(self._engine) as connection:
            return [(row[0], row[1]) for row in connection.execute(statement.order_by(count.desc()))]

    def thresholds_in_use(self, bundle_set: str) -> tuple[float, float] | None:
        """The lines that one bundle set is used with: review, fake."""
        wanted = select(verdicts.c.body).where(verdicts.c.bundle_set == bundle_set, verdicts.c.p_fake.is_not(None))
        with reading(self._engine) as connection:
            body = connection.scalar(wanted.limit(1))  # any: the lines are part of the bundle set
        score = (json.loads(body).get("score") or {}) if body else {}
        review, fake = score.get("threshold_review"), score.get("threshold")
        return (float(review), float(fake)) if review is not None and fake is not None else None

    def scored_words(self, bundle_set: str, *, review: float, fake: float) -> list[ScoredWord]:
        """Verdicts of one bundle set per word and place relative to two lines: all of them, and those decided per decision.

        All are counted from an index alone; only decided ones are looked up one by one.
        """
        scored = [verdicts.c.bundle_set == bundle_set, verdicts.c.p_fake.is_not(None)]
        everything = (
            select(verdicts.c.verdict, null(), *_places(verdicts.c.p_fake, review, fake)).where(*scored).group_by(verdicts.c.verdict)
        )
        # a subquery and no join: SQLite must start from the decided items, not from every verdict of the set
        made_by = select(verdicts.c.bundle_set).where(verdicts.c.seq == review_items.c.verdict_seq).scalar_subquery()
        p_fake = review_items.c.p_fake
        decided = (
            select(review_items.c.word, review_items.c.decision, *_places(p_fake, review, fake))
            .where(review_items.c.decision.is_not(None), p_fake.is_not(None), made_by == bundle_set)
            .group_by(review_items.c.word, review_items.c.decision)
        )
        with reading(self._engine) as connection:
            return [ScoredWord(*row) for statement in (everything, decided) for row in connection.execute(statement)]

    def score_histogram(self, bundle_set: str, *, num_bins: int = 50) -> Sequence[int]:
        """Scored verdicts of one bundle set per even bin of p_fake."""
        place = func.floor(verdicts.c.p_fake * num_bins)
        statement = select(place, func.count()).where(verdicts.c.bundle_set == bundle_set, verdicts.c.p_fake.is_not(None)).group_by(place)
        bins = [0] * num_bins
        with reading(self._engine) as connection:
            for where, count in connection.execute(statement):
                bins[min(int(where), num_bins - 1)] += count
        return bins
