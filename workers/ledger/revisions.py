"""Judging the archive again: a new verdict stands beside the old one and names it; nothing is ever overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, exists, func, select, update

from .engine import reading, writing
from .explanations import explanations
from .leases import deliver_to
from .records import VerdictRecord, VerdictRow
from .review_schema import DECIDED, OPEN, review_items
from .schema import db_now, events, jobs, verdicts
from .submissions import insert_or_ignore, record_events
from .succession import keep_decision, open_review


@dataclass(frozen=True, slots=True)
class ArchivedVerdict:
    """The newest verdict of one video."""

    seq: int
    ledger_id: str
    tenant: str
    video_id: str
    content_sha256: str
    bundle_set: str
    revision: int
    verdict: str
    p_fake: float | None
    body: dict[str, Any]
    source: str | None
    """Where the video was taken from; None: by the media template, or its job is no longer on record."""
    callback_url: str | None


class Revisions:
    """The part of the ledger that holds more than one verdict of a video."""

    _engine: Engine

    def archive(self, *, not_by: str, limit: int | None = None) -> Iterator[ArchivedVerdict]:
        """The newest verdict of every video that the bundle set `not_by` has not judged, newest first."""
        newer, judged = verdicts.alias("newer"), verdicts.alias("judged")
        same = [newer.c.tenant == verdicts.c.tenant, newer.c.video_id == verdicts.c.video_id, newer.c.seq > verdicts.c.seq]
        done = [
            judged.c.tenant == verdicts.c.tenant,
            judged.c.video_id == verdicts.c.video_id,
            judged.c.content_sha256 == verdicts.c.content_sha256,
            judged.c.bundle_set == not_by,
        ]
        wanted = (
            select(verdicts, jobs.c.source, jobs.c.callback_url)
            .select_from(verdicts.outerjoin(jobs, jobs.c.ledger_id == verdicts.c.ledger_id))
            .where(~exists().where(*same), ~exists().where(*done))
            .order_by(verdicts.c.seq.desc())
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(wanted).all()
        for row in rows:
            yield ArchivedVerdict(
                seq=row.seq,
                ledger_id=row.ledger_id,
                tenant=row.tenant,
                video_id=row.video_id,
                content_sha256=row.content_sha256,
                bundle_set=row.bundle_set,
                revision=row.revision,
                verdict=row.verdict,
                p_fake=row.p_fake,
                body=json.loads(row.body),
                source=row.source,
                callback_url=row.callback_url,
            )

    def verdicts_of(self, video_id: str, *, tenant: str = "") -> list[VerdictRow]:
        """Every verdict of one video, oldest first."""
        wanted = select(verdicts.c.seq, verdicts.c.body).where(verdicts.c.tenant == tenant, verdicts.c.video_id == video_id)
        with reading(self._engine) as connection:
            return [VerdictRow(seq=row.seq, body=json.loads(row.body)) for row in connection.execute(wanted.order_by(verdicts.c.seq))]

    def history_of(self, ledger_id: str) -> list[dict[str, Any]]:
        """One job's events, oldest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(events).where(events.c.ledger_id == ledger_id).order_by(events.c.seq)).all()
        return [dict(row._mapping) for row in rows]

    def revise(self, old: ArchivedVerdict, *, verdict: VerdictRecord, urls: list[str]) -> bool:
        """Write a revision of `old`; its body must say `revision` and `supersedes`.

        Receivers are told when the word changes, and people are asked again when it does or when nobody had decided yet. A decision on
        a word that stays is kept: it stands for the revision too.

        Returns:
            False when nothing was written: this judgement was on record already, or `old` is no longer the video's newest verdict (the
            video was forgotten, or another version of it was judged, while this one was looked at again).
        """
        assert verdict.body["supersedes"] == old.seq, verdict.body["supersedes"]
        text = verdict.body_text()
        row = {
            "ledger_id": old.ledger_id,
            "tenant": old.tenant,
            "video_id": old.video_id,
            "content_sha256": verdict.content_sha256,
            "bundle_set": verdict.bundle_set,
            "policy": verdict.policy,
            "revision": old.revision + 1,
            "supersedes": old.seq,
            "verdict": verdict.verdict,
            "p_fake": verdict.p_fake,
            "body": text,
        }
        with writing(self._engine) as connection:
            if not _is_newest(connection, old):
                return False
            seq = connection.scalar(insert_or_ignore(connection, verdicts).values(created_at=db_now()).returning(verdicts.c.seq), row)
            if seq is None:
                return False
            # all jobs that point at it: the same bytes submitted again share one verdict
            mine = [jobs.c.tenant == old.tenant, jobs.c.video_id == old.video_id]
            connection.execute(update(jobs).where(*mine, jobs.c.verdict_seq == old.seq).values(verdict_seq=seq))
            # an explanation is a job's, whose row may be past its retention, and says what the set before saw
            revised = select(jobs.c.ledger_id).where(*mine, jobs.c.verdict_seq == seq)
            stale = explanations.c.ledger_id.in_(revised) | (explanations.c.ledger_id == old.ledger_id)
            connection.execute(delete(explanations).where(stale))
            flips = verdict.verdict != old.verdict
            opened = {"ledger_id": old.ledger_id, "video_id": old.video_id, "tenant": old.tenant}
            item = select(review_items.c.state).where(review_items.c.verdict_seq == old.seq)
            state = connection.scalar(item.with_for_update())
            if flips or state == OPEN:
                open_review(connection, verdict_seq=seq, verdict=verdict, **opened)
            elif state == DECIDED:
                keep_decision(connection, old.seq, verdict_seq=seq, verdict=verdict, **opened)
            if flips:
                deliver_to(connection, ledger_id=old.ledger_id, kind="verdict.revised", urls=urls, body_text=text, mark=f"#{seq}")
            record_events(connection, [{"ledger_id": old.ledger_id, "kind": "revised", "detail": str(seq)}])
        return True


def _is_newest(connection: Connection, old: ArchivedVerdict) -> bool:
    """Whether the verdict is still on record, held from an erasure until the transaction ends, and none of its video is newer."""
    mine = [jobs.c.tenant == old.tenant, jobs.c.video_id == old.video_id]
    connection.execute(select(jobs.c.ledger_id).where(*mine).with_for_update())  # jobs before verdicts, as an erasure takes them
    held = connection.scalar(select(verdicts.c.seq).where(verdicts.c.seq == old.seq).with_for_update())
    newest = select(func.max(verdicts.c.seq)).where(verdicts.c.tenant == old.tenant, verdicts.c.video_id == old.video_id)
    return held is not None and connection.scalar(newest) == old.seq
