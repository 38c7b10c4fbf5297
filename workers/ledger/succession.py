"""A new verdict before people, and what becomes of the review of the one before it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from .records import VerdictRecord
from .review_queries import ReviewItem, entries_of, item_of
from .review_schema import DECIDED, OPEN, REPLACED, review_items, review_log
from .schema import db_now, verdicts
from .standing import LEDGER, LogEntry, carried, standing_of
from .submissions import insert_or_ignore

_PEOPLE_LOOK_AT: Final = frozenset({"suspicious", "manipulated", "inconclusive"})
_NOTHING_TO_SEE: Final = frozenset({"NO_FACE"})
"""Reason codes with which nobody needs to look: only faces are judged, and there is none."""


def needs_people(word: str, reason_codes: list[str]) -> bool:
    """Whether a verdict goes to the review queue."""
    return word in _PEOPLE_LOOK_AT and not _NOTHING_TO_SEE.intersection(reason_codes)


def open_review(
    connection: Connection, *, verdict_seq: int, ledger_id: str, video_id: str, verdict: VerdictRecord, tenant: str = ""
) -> bool:
    """Put a new verdict before people when it needs them, in the transaction that writes it.

    An undecided item of an older verdict of the same video is replaced: nobody decides on a superseded verdict. Whoever waits for an
    answer to an appeal, or for another reader of the same bytes, waits on in the new item, whatever the new verdict says.
    """
    waiting = [item for item in _older_items(connection, verdict_seq, video_id=video_id, tenant=tenant) if item.is_open]
    held = [entry for item in waiting for entry in _still_asked(connection, item, verdict)]
    for item in waiting:
        _replace(connection, item)
    if not held and not needs_people(verdict.verdict, _reasons(verdict)):
        return False
    opened = {"verdict_seq": verdict_seq, "ledger_id": ledger_id, "video_id": video_id, "tenant": tenant}
    _put_item(connection, opened, verdict=verdict, held=held, opened_like=waiting[-1].verdict_seq if held else None)
    return True


def keep_decision(
    connection: Connection, old_seq: int, *, verdict_seq: int, ledger_id: str, video_id: str, verdict: VerdictRecord, tenant: str = ""
) -> None:
    """Let what people decided on a verdict stand for its revision too; the revision says the same of the same bytes."""
    opened = {"verdict_seq": verdict_seq, "ledger_id": ledger_id, "video_id": video_id, "tenant": tenant}
    _put_item(connection, opened, verdict=verdict, held=carried(entries_of(connection, old_seq)), opened_like=old_seq)


def log_step(connection: Connection, item: ReviewItem, *, actor: str, kind: str, **facts: Any) -> None:
    """Write one line of the log, now."""
    row = {"verdict_seq": item.verdict_seq, "video_id": item.video_id, "actor": actor, "kind": kind, "reading": item.reading, **facts}
    connection.execute(insert(review_log).values(at=db_now(), **row))


def restand(connection: Connection, item: ReviewItem) -> ReviewItem:
    """Bring the item's row to what its log says, and let it go."""
    standing = standing_of(entries_of(connection, item.verdict_seq))
    row = update(review_items).where(review_items.c.verdict_seq == item.verdict_seq)
    connection.execute(
        row.values(
            state=OPEN if standing.is_open else DECIDED,
            reading=standing.reading,
            readers="|" + "".join(f"{name}|" for name in standing.readers),
            decision=standing.decision,
            decided_by=standing.decided_by,
            decided_at=standing.decided_at,
            claimed_by=None,
            claimed_until=None,
        )
    )
    return _known(connection, item.verdict_seq)


def _older_items(connection: Connection, verdict_seq: int, *, video_id: str, tenant: str) -> list[ReviewItem]:
    """Items of the video's older verdicts, oldest first, locked: a decided one must not be reopened while this one comes to be."""
    mine = [review_items.c.video_id == video_id, review_items.c.tenant == tenant, review_items.c.verdict_seq < verdict_seq]
    seqs = connection.scalars(select(review_items.c.verdict_seq).where(*mine).order_by(review_items.c.verdict_seq).with_for_update()).all()
    return [_known(connection, seq) for seq in seqs]


def _still_asked(connection: Connection, item: ReviewItem, verdict: VerdictRecord) -> list[LogEntry]:
    """What of an open item's log the next one goes on from; nothing when nobody had asked for more than a first look."""
    if item.reading == "first":
        return []
    held = carried(entries_of(connection, item.verdict_seq))
    if connection.scalar(select(verdicts.c.content_sha256).where(verdicts.c.seq == item.verdict_seq)) == verdict.content_sha256:
        return held
    # other bytes under the same ID: what was said of the old ones is no label of these, but an appeal still wants an answer
    return held if item.reading == "appeal" else []


def _replace(connection: Connection, item: ReviewItem) -> None:
    connection.execute(update(review_items).where(review_items.c.verdict_seq == item.verdict_seq).values(state=REPLACED))
    if item.reading != "first":  # a first look that nobody took is replaced without a word, or a new bundle set would fill the log
        log_step(connection, item, actor=LEDGER, kind="replaced")


def _put_item(
    connection: Connection, opened: dict[str, Any], *, verdict: VerdictRecord, held: list[LogEntry], opened_like: int | None
) -> None:
    """Write an item that stands where `held` says; it waits since now, or since as long as the item `opened_like`."""
    title = (verdict.body.get("attributes") or {}).get("title")
    row = {
        **opened,
        "word": verdict.verdict,
        "p_fake": verdict.p_fake,
        "reasons": ",".join(_reasons(verdict))[:200],
        "title": title[:200] if isinstance(title, str) else None,
        "state": OPEN,
        "reading": "first",
    }
    since = db_now()
    if opened_like is not None:
        since = connection.scalar(select(review_items.c.opened_at).where(review_items.c.verdict_seq == opened_like)) or since
    connection.execute(insert_or_ignore(connection, review_items).values(opened_at=since), row)
    if held:
        item = _known(connection, opened["verdict_seq"])
        for entry in held:
            said = {name: getattr(entry, name) for name in ("at", "actor", "kind", "reading", "decision", "reason", "note")}
            connection.execute(insert(review_log).values(verdict_seq=item.verdict_seq, video_id=item.video_id, **said))
        restand(connection, item)


def _reasons(verdict: VerdictRecord) -> list[str]:
    return list(verdict.body.get("reason_codes") or [])


def _known(connection: Connection, verdict_seq: int) -> ReviewItem:
    item = item_of(connection, verdict_seq)
    assert item is not None, verdict_seq
    return item
