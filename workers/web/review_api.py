"""`/v1/reviews`: the queue, one item with its log, and decisions, for programs that bring their own pages. Scope `review`.

The caller names the person who decided; what the pages refuse, this refuses with 409 and the same sentence.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidMessageError, UnknownReviewError
from ..ledger import ReviewItem
from ..services import Control
from .fields import RowNumber
from .session import NAMES, reviewer_name


class DecisionBody(BaseModel):
    """One decision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reviewer: str = Field(description=f"Who decided: {NAMES}")
    decision: Literal["clean", "fake", "unsure", "closed"] = Field(description="closed: looked at, no label")
    reason: str | None = Field(None, max_length=64)
    note: str | None = Field(None, max_length=4000)


def add_reviews(app: FastAPI, control: Control, *, can_review: Any) -> None:
    """Serve reviews."""
    ledger = control.ledger

    @app.get("/v1/reviews", dependencies=[can_review])
    def list_reviews(
        cursor: Annotated[RowNumber, Query(description="`next_cursor` of the page before")] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        verdict: Literal["suspicious", "manipulated", "inconclusive", "authentic"] | None = None,
        reading: Literal["first", "second", "settle", "appeal"] | None = None,
    ) -> JSONResponse:
        """What waits for people, oldest first."""
        items = ledger.review_queue(after=cursor, limit=limit + 1, word=verdict, reading_wanted=reading)
        following = items[limit - 1].verdict_seq if len(items) > limit else None
        return JSONResponse({"reviews": [item_body(item) for item in items[:limit]], "next_cursor": following})

    @app.get("/v1/reviews/{review_id}", dependencies=[can_review])
    def get_review(review_id: RowNumber) -> JSONResponse:
        """One item with its append-only log."""
        item = ledger.review_item(review_id)
        if item is None:
            raise UnknownReviewError("there is no such review item")
        return JSONResponse({**item_body(item), "log": [asdict(entry) for entry in ledger.review_entries(review_id)]})

    @app.post("/v1/reviews/{review_id}/decision", dependencies=[can_review])
    def decide(review_id: RowNumber, given: DecisionBody) -> JSONResponse:
        """Decide one item; 409 when it is held, decided, or was read by the same person before."""
        reviewer = reviewer_name(given.reviewer)
        if reviewer is None:
            raise InvalidMessageError(NAMES)
        share = control.settings.second_read_share
        item = ledger.review_decide(
            review_id, actor=reviewer, decision=given.decision, reason=given.reason, note=given.note, second_share=share
        )
        return JSONResponse(item_body(item))


def item_body(item: ReviewItem) -> dict[str, Any]:
    """One item as JSON."""
    return {
        "review_id": item.verdict_seq,
        "video_id": item.video_id,
        "tenant": item.tenant,
        "job_id": item.ledger_id,
        "verdict": item.word,
        "p_fake": item.p_fake,
        "reason_codes": list(item.reasons),
        "title": item.title,
        "state": item.state.lower(),
        "reading": item.reading,
        "waiting_seconds": round(item.age_seconds, 1),
        "held_by": item.claimed_by,
        "decision": item.decision,
        "decided_by": item.decided_by,
        "decided_at": item.decided_at,
    }
