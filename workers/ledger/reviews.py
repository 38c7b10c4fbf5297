"""What people do with verdicts: take, decide, undo, note, appeal. Every step is one transaction and one line of an append-only log.

An item is held by one person at a time, for a while; a decision on an item that another one holds, or that was decided
meanwhile, is refused with who and when.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from sqlalchemy import Connection, Engine, insert, update

from ..errors import ReviewConflictError, UnknownReviewError
from .engine import writing
from .review_queries import ReviewItem, ReviewQueries, entries_of, has_newer_item, item_of
from .review_schema import DECIDED, REPLACED, login_links, review_items
from .schema import db_now
from .standing import DECISIONS, SAMPLING, undoable
from .succession import log_step, needs_people, open_review, restand

_NOTE_CHARACTERS: Final = 4000


class Reviews(ReviewQueries):
    """The part of the ledger that reviewers write."""

    _engine: Engine

    def review_claim(self, verdict_seq: int, *, actor: str, seconds: float) -> ReviewItem:
        """Hold one item for a while, or hold it longer.

        Raises:
            ReviewConflictError: somebody else holds it, it is decided, or this person has decided it before.
            UnknownReviewError: there is no such item.
        """
        with writing(self._engine) as connection:
            item = _require_open(connection, verdict_seq, actor=actor)
            held = update(review_items).where(review_items.c.verdict_seq == verdict_seq)
            connection.execute(held.values(claimed_by=actor, claimed_until=db_now() + seconds))
            if item.claimed_by != actor:
                log_step(connection, item, actor=actor, kind="claimed")
            return _require(item_of(connection, verdict_seq))

    def review_release(self, verdict_seq: int, *, actor: str, kind: str = "released") -> None:
        """Let an item go; nothing happens when this person does not hold it."""
        with writing(self._engine) as connection:
            mine = update(review_items).where(review_items.c.verdict_seq == verdict_seq, review_items.c.claimed_by == actor)
            if connection.execute(mine.values(claimed_by=None, claimed_until=None)).rowcount:
                log_step(connection, _require(item_of(connection, verdict_seq)), actor=actor, kind=kind)

    def review_decide(
        self,
        verdict_seq: int,
        *,
        actor: str,
        decision: str,
        reason: str | None = None,
        note: str | None = None,
        second_share: float = 0.0,
    ) -> ReviewItem:
        """Decide one item, whether it was claimed before or not.

        Args:
            verdict_seq: the item.
            actor: who decides.
            decision: clean, fake, unsure, or closed (looked at, no label).
            reason: a short tag.
            note: free text.
            second_share: share of first decisions that a second person reads blind; drawn by a hash of the item, so it is repeatable.

        Raises:
            ReviewConflictError: as `review_claim`.
            UnknownReviewError: there is no such item.
        """
        assert decision in DECISIONS, decision
        with writing(self._engine) as connection:
            item = _require_open(connection, verdict_seq, actor=actor)
            log_step(connection, item, actor=actor, kind="decided", decision=decision, reason=_trimmed(reason), note=_trimmed(note))
            if item.reading == "first" and decision in ("clean", "fake") and _is_drawn(verdict_seq, second_share):
                log_step(connection, item, actor=SAMPLING, kind="second_asked")
            return restand(connection, item)

    def review_undo(self, verdict_seq: int, *, actor: str, hold_seconds: float) -> ReviewItem:
        """Take one's own newest decision back and hold the item again.

        Raises:
            ReviewConflictError: it is not theirs, somebody acted since, or a newer verdict took the item's place.
            UnknownReviewError: there is no such item.
        """
        with writing(self._engine) as connection:
            item = _require_newest(connection, verdict_seq)
            entry = undoable(entries_of(connection, verdict_seq), actor)
            if entry is None or item.claimed_by not in (None, actor):
                raise ReviewConflictError(f"there is no decision of {actor} on {item.video_id} to take back: somebody acted on it since")
            log_step(connection, item, actor=actor, kind="undone", undoes=entry.seq)
            restand(connection, item)
            held = update(review_items).where(review_items.c.verdict_seq == verdict_seq)
            connection.execute(held.values(claimed_by=actor, claimed_until=db_now() + hold_seconds))
            return _require(item_of(connection, verdict_seq))

    def review_note(self, verdict_seq: int, *, actor: str, note: str) -> None:
        """Write a note on an item. Raises `UnknownReviewError`."""
        with writing(self._engine) as connection:
            item = _require(item_of(connection, verdict_seq))
            log_step(connection, item, actor=actor, kind="noted", note=_trimmed(note))

    def review_reopen(self, verdict_seq: int, *, actor: str, kind: str, note: str | None = None) -> ReviewItem:
        """Ask for a second reader (`second_asked`) or another look after an appeal (`appealed`) at a decided item.

        Raises:
            ReviewConflictError: it waits for a decision already, or a newer verdict took the item's place.
            UnknownReviewError: there is no such item.
        """
        assert kind in ("second_asked", "appealed"), kind
        with writing(self._engine) as connection:
            item = _require_newest(connection, verdict_seq)
            if item.state != DECIDED:
                raise ReviewConflictError(f"{item.video_id} waits for a decision already: decide it first")
            log_step(connection, item, actor=actor, kind=kind, note=_trimmed(note))
            # it waits from now on, however long ago the verdict was made
            connection.execute(update(review_items).where(review_items.c.verdict_seq == verdict_seq).values(opened_at=db_now()))
            return restand(connection, item)

    def make_login(self, reviewer: str, *, seconds: float) -> str:
        """Make a one-time login token for one reviewer; only its hash is stored."""
        token = secrets.token_urlsafe(24)
        row = {"token_sha256": _digest(token), "reviewer": reviewer}
        with writing(self._engine) as connection:
            connection.execute(insert(login_links).values(created_at=db_now(), expires_at=db_now() + seconds, **row))
        return token

    def use_login(self, token: str) -> str | None:
        """Use a login token up; gives its reviewer, or None when it is unknown, used or too old."""
        fresh = update(login_links).where(
            login_links.c.token_sha256 == _digest(token), login_links.c.used_at.is_(None), login_links.c.expires_at > db_now()
        )
        with writing(self._engine) as connection:
            reviewer = connection.scalar(fresh.values(used_at=db_now()).returning(login_links.c.reviewer))
        return str(reviewer) if reviewer is not None else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _is_drawn(verdict_seq: int, share: float) -> bool:
    draw = int.from_bytes(hashlib.sha256(f"second-read/{verdict_seq}".encode()).digest()[:8], "big")
    return draw < share * 2**64


def _trimmed(note: str | None) -> str | None:
    return (note.replace("\0", "").strip()[:_NOTE_CHARACTERS] or None) if note else None


def _require(item: ReviewItem | None) -> ReviewItem:
    if item is None:
        raise UnknownReviewError("there is no such review item: it needs no people, or the ID is wrong")
    return item


def _require_newest(connection: Connection, verdict_seq: int) -> ReviewItem:
    """The item, locked, unless a newer one of the same video took its place: decided or not, people act on that one."""
    item = _require(item_of(connection, verdict_seq, lock=True))
    if item.state == REPLACED or has_newer_item(connection, verdict_seq):
        raise ReviewConflictError(f"{item.video_id} has a newer verdict: open that one")
    return item


def _require_open(connection: Connection, verdict_seq: int, *, actor: str) -> ReviewItem:
    item = _require(item_of(connection, verdict_seq, lock=True))
    if item.state == REPLACED:
        raise ReviewConflictError(f"{item.video_id} has a newer verdict: decide on that one")
    if not item.is_open:
        raise ReviewConflictError(f"{item.video_id} was decided by {item.decided_by} already: {item.decision}")
    if actor in item.readers:
        raise ReviewConflictError(f"you have read {item.video_id} before: this reading is for another person")
    if item.claimed_by not in (None, actor):
        raise ReviewConflictError(f"{item.claimed_by} is looking at {item.video_id} just now: take another one, or wait until it is free")
    return item


__all__ = ["Reviews", "needs_people", "open_review"]
