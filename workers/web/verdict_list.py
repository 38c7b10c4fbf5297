"""`GET /v1/verdicts`: a tenant's verdicts, newest first, page by page, as few of them as the caller wants."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..ledger import Ledger, VerdictFilter
from ..messages import VerdictBody
from .auth import ApiKey
from .fields import RowNumber

MAX_PAGE: Final = 500
Word = Literal["authentic", "suspicious", "manipulated", "inconclusive"]
Score = Annotated[float | None, Field(ge=0, le=1)]
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d")


def _spelled_out(value: object) -> object:
    """Refuse bare numbers, which pydantic would take for seconds or milliseconds since 1970 by their size."""
    if value is not None and not _TIME.match(str(value)):
        raise ValueError(f"expected a time like 2026-11-20T09:00:00Z, got {str(value)[:40]!r}")
    return value


Moment = Annotated[AwareDatetime | None, BeforeValidator(_spelled_out), Field(examples=["2026-11-20T09:00:00Z"])]


class ListQuery(BaseModel):
    """What a caller may ask for. A name that is none is refused: a misspelt filter would look like one that lets everything through."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: RowNumber | None = Field(None, ge=1, description="`next_cursor` of the page before, with the same filters")
    limit: int = Field(50, ge=1, le=MAX_PAGE)
    verdict: list[Word] = Field([], max_length=4, description="Any of these words; repeat it for several")
    created_from: Moment = Field(None, description="Written at or after this time; RFC 3339 with its zone")
    created_to: Moment = Field(None, description="Written before this time")
    p_fake_min: Score = Field(None, description="Score at or above; leaves out verdicts without a score")
    p_fake_max: Score = Field(None, description="Score at or below; leaves out verdicts without a score")
    video_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,128}$", description="All revisions of one video")
    video_id_prefix: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,128}$", description="Video IDs that begin so")
    content_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Of the file that was judged")
    bundle_set: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._@-]{1,128}$", description="What judged: `name@hash`, or the name or the hash alone"
    )
    reviewed: bool | None = Field(None, description="Whether people have decided on it")

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for low, high in (("created_from", "created_to"), ("p_fake_min", "p_fake_max")):
            first, last = getattr(self, low), getattr(self, high)
            if first is not None and last is not None and first > last:
                raise ValueError(f"{low} ({first}) lies above {high} ({last}): nothing can lie between them")
        return self

    def of_tenant(self, tenant: str) -> VerdictFilter:
        """The same for the ledger."""
        return VerdictFilter(
            tenant=tenant,
            words=tuple(dict.fromkeys(self.verdict)),
            created_from=self.created_from.timestamp() if self.created_from else None,
            created_to=self.created_to.timestamp() if self.created_to else None,
            p_fake_min=self.p_fake_min,
            p_fake_max=self.p_fake_max,
            video_id=self.video_id,
            video_id_prefix=self.video_id_prefix,
            content_sha256=self.content_sha256,
            bundle_set=self.bundle_set,
            is_reviewed=self.reviewed,
        )


class VerdictPage(BaseModel):
    """One page."""

    verdicts: list[VerdictBody]
    next_cursor: int | None = Field(description="For the next page; null on the last one")


def add_verdict_list(app: FastAPI, ledger: Ledger, *, can_read: Any) -> None:
    """Serve the list."""

    @app.get("/v1/verdicts", response_model=VerdictPage)
    def list_verdicts(wanted: Annotated[ListQuery, Query()], key: ApiKey = can_read) -> JSONResponse:
        """Verdicts, newest first; every filter that is given must hold."""
        rows = ledger.list_verdicts(wanted.of_tenant(key.tenant), before=wanted.cursor, limit=wanted.limit + 1)
        page = rows[: wanted.limit]
        following = page[-1].seq if len(rows) > wanted.limit else None
        return JSONResponse({"verdicts": [row.body for row in page], "next_cursor": following})
