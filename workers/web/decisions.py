"""The buttons of a video page: take, decide, undo, note, ask for a second reader, appeal. Each is a plain form."""

from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Form, Response

from ..errors import UnknownReviewError
from ..ledger import ReviewItem
from .fields import RowNumber
from .queue_page import next_path
from .session import Session
from .signed_in import Desk, go

Choice = Literal["clean", "fake", "unsure", "closed"]


def add_decisions(app: FastAPI, desk: Desk) -> None:
    """Serve the forms."""
    _add_holding(app, desk)
    _add_deciding(app, desk)
    _add_remarks(app, desk)


def _item_of(desk: Desk, seq: int) -> ReviewItem:
    item = desk.ledger.review_item(seq)
    if item is None:
        raise UnknownReviewError("there is no such review item")
    return item


def _back_to(item: ReviewItem) -> Response:
    return go(f"/videos/{item.video_id}?seq={item.verdict_seq}")


def _add_holding(app: FastAPI, desk: Desk) -> None:
    writer, ledger = Depends(desk.writer()), desk.ledger

    @app.post("/items/{seq}/claim")
    def claim(seq: RowNumber, session: Annotated[Session, writer]) -> Response:
        """Hold the item; the page sends this when it opens and while it stays open."""
        ledger.review_claim(seq, actor=session.reviewer, seconds=desk.settings.review_claim_seconds)
        return Response(status_code=204)

    @app.post("/items/{seq}/skip")
    def skip(seq: RowNumber, session: Annotated[Session, writer]) -> Response:
        _item_of(desk, seq)
        ledger.review_release(seq, actor=session.reviewer, kind="skipped")
        return go(next_path(desk, session, after=seq))


def _add_deciding(app: FastAPI, desk: Desk) -> None:
    writer, ledger, settings = Depends(desk.writer()), desk.ledger, desk.settings

    @app.post("/items/{seq}/decide")
    def decide(
        seq: RowNumber,
        session: Annotated[Session, writer],
        decision: Annotated[Choice, Form()],
        reason: Annotated[str, Form(max_length=64)] = "",
        note: Annotated[str, Form(max_length=4000)] = "",
    ) -> Response:
        share = settings.second_read_share
        ledger.review_decide(seq, actor=session.reviewer, decision=decision, reason=reason or None, note=note or None, second_share=share)
        return go(next_path(desk, session, after=seq, done=seq))

    @app.post("/items/{seq}/undo")
    def undo(seq: RowNumber, session: Annotated[Session, writer]) -> Response:
        return _back_to(ledger.review_undo(seq, actor=session.reviewer, hold_seconds=settings.review_claim_seconds))


def _add_remarks(app: FastAPI, desk: Desk) -> None:
    writer, ledger = Depends(desk.writer()), desk.ledger

    @app.post("/items/{seq}/note")
    def note(seq: RowNumber, session: Annotated[Session, writer], note: Annotated[str, Form(max_length=4000)] = "") -> Response:
        if note.strip():
            ledger.review_note(seq, actor=session.reviewer, note=note)
        return _back_to(_item_of(desk, seq))

    @app.post("/items/{seq}/second")
    def ask_second(seq: RowNumber, session: Annotated[Session, writer]) -> Response:
        return _back_to(ledger.review_reopen(seq, actor=session.reviewer, kind="second_asked"))

    @app.post("/items/{seq}/appeal")
    def appeal(seq: RowNumber, session: Annotated[Session, writer], note: Annotated[str, Form(max_length=4000)] = "") -> Response:
        return _back_to(ledger.review_reopen(seq, actor=session.reviewer, kind="appealed", note=note or None))
