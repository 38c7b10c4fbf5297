"""The queue: what waits for people, oldest first. And the video to take next."""

from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Form, Query, Request, Response

from ..errors import ReviewConflictError, UnknownReviewError
from .fields import RowNumber
from .pages import render
from .session import Session
from .signed_in import Desk, go

PAGE: Final = 40
_MAX_BULK: Final = 200
Word = Literal["manipulated", "suspicious", "inconclusive"]
Reading = Literal["first", "second", "settle", "appeal"]
Who = Literal["all", "free", "mine"]


def add_queue(app: FastAPI, desk: Desk) -> None:
    """Serve the queue."""
    reader, writer = Depends(desk.reader()), Depends(desk.writer())

    @app.get("/")
    def queue(
        request: Request,
        session: Annotated[Session, reader],
        word: Word | Literal[""] = "",
        reading: Reading | Literal[""] = "",
        who: Who = "all",
        after: Annotated[RowNumber, Query()] = 0,
        closed: Annotated[int, Query(ge=0)] = 0,
        left: Annotated[int, Query(ge=0)] = 0,
        done: Annotated[RowNumber, Query()] = 0,
    ) -> Response:
        items = desk.ledger.review_queue(
            after=after,
            limit=PAGE + 1,
            word=word or None,
            reading_wanted=reading or None,
            claimed_by=session.reviewer if who == "mine" else None,
            hide_from=session.reviewer if who == "free" else None,
        )
        page = items[:PAGE]
        filters = {name: value for name, value in (("word", word), ("reading", reading), ("who", who if who != "all" else "")) if value}
        following = urlencode({**filters, "after": page[-1].verdict_seq}) if len(items) > PAGE else None
        counts = desk.ledger.review_counts()
        return render(
            request,
            "queue.html",
            session=session,
            items=page,
            following=following,
            filters=filters,
            word=word,
            reading=reading,
            who=who,
            after=after,
            num_closed=closed,
            num_left=left,
            done=desk.ledger.review_item(done) if done else None,
            num_open=sum(counts.values()),
            per_word={name: sum(n for (w, _), n in counts.items() if w == name) for name in ("manipulated", "suspicious", "inconclusive")},
            per_reading={name: sum(n for (_, r), n in counts.items() if r == name) for name in ("first", "second", "settle", "appeal")},
        )

    @app.post("/next")
    def take_next(session: Annotated[Session, writer], after: Annotated[RowNumber, Form()] = 0) -> Response:
        return go(next_path(desk, session, after=after))

    @app.post("/close")
    def close_many(session: Annotated[Session, writer], seq: Annotated[list[RowNumber] | None, Form()] = None) -> Response:
        chosen = (seq or [])[:_MAX_BULK]
        num_closed = sum(_close(desk, verdict_seq, session) for verdict_seq in chosen)
        num_left = len(chosen) - num_closed
        return go(f"/?closed={num_closed}" + (f"&left={num_left}" if num_left else ""))


def _close(desk: Desk, verdict_seq: int, session: Session) -> bool:
    """Close one video without a label; False when it is left as it is, which keeps none of the others open."""
    item = desk.ledger.review_item(verdict_seq)
    if item is None or item.reading != "first":  # a decision is in force: closed in passing, its label would be gone
        return False
    try:
        desk.ledger.review_decide(verdict_seq, actor=session.reviewer, decision="closed")
    except (ReviewConflictError, UnknownReviewError):
        return False  # somebody was quicker: theirs counts
    return True


def next_path(desk: Desk, session: Session, *, after: int, done: int | None = None) -> str:
    """The page of the oldest video behind `after` that this person can take, else of the oldest at all, else the queue."""
    found = desk.ledger.review_queue(after=after, limit=1, hide_from=session.reviewer)
    if not found and after:
        found = desk.ledger.review_queue(limit=1, hide_from=session.reviewer)
    if not found:
        return f"/?done={done}" if done else "/"
    flash = f"&done={done}" if done else ""
    return f"/videos/{found[0].video_id}?seq={found[0].verdict_seq}{flash}"
