"""Search, the append-only log (page and CSV), and agreement between readers."""

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from ..ledger import LogEntry
from ..ledger.review_queries import FoundVideo
from ..ledger.standing import CARRIED
from .agreement import agreement_of
from .fields import RowNumber
from .pages import render
from .session import PREFIX, Session, actor_name
from .signed_in import Desk
from .wording import when

PAGE: Final = 100
_CSV_PAGE: Final = 5_000
_NUM_STEPS: Final = 5_000
"""How people agree now is the question: the decisions of years ago would only slow the answer down."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def _revision(found: FoundVideo) -> str:
    return f"?seq={found.verdict_seq}" if found.verdict_seq else ""


def add_history(app: FastAPI, desk: Desk) -> None:
    """Serve search, log and agreement."""
    reader = Depends(desk.reader())

    @app.get("/search")
    def search(request: Request, session: Annotated[Session, reader], q: Annotated[str, Query(max_length=200)] = "") -> Response:
        text = q.replace("\0", "").strip()  # nothing has a NUL in its name, and Postgres would not look for one
        found = desk.ledger.find_videos(text) if text else []
        if len(found) == 1:
            return Response(status_code=303, headers={"Location": f"{PREFIX}/videos/{found[0].video_id}{_revision(found[0])}"})
        videos = [
            (each.video_id, _revision(each), desk.ledger.verdict_revisions(each.video_id, verdict_seq=each.verdict_seq, limit=1))
            for each in found
        ]
        return render(request, "search.html", session=session, q=text, videos=videos)

    @app.get("/log")
    def log(
        request: Request,
        session: Annotated[Session, reader],
        before: Annotated[RowNumber | None, Query(ge=1)] = None,
        by: Annotated[str, Query(max_length=64)] = "",
    ) -> Response:
        name = actor_name(by)
        if by.strip() and name is None:
            entries = []  # nobody can have such a name
        else:
            entries = desk.ledger.review_history(before=before, limit=PAGE + 1, actor=name, reader=session.reviewer)
        page = entries[:PAGE]
        return render(request, "log.html", session=session, entries=page, by=by, following=page[-1].seq if len(entries) > PAGE else None)

    @app.get("/log.csv")
    def log_as_csv(session: Annotated[Session, reader]) -> Response:
        headers = {"Content-Disposition": 'attachment; filename="veriframe-reviews.csv"', "Cache-Control": "no-store"}
        return StreamingResponse(_csv_pages(desk, session.reviewer), media_type="text/csv", headers=headers)

    @app.get("/agreement")
    def agreement(request: Request, session: Annotated[Session, reader]) -> Response:
        entries = desk.ledger.review_decisions(limit=_NUM_STEPS)
        newest = _NUM_STEPS if sum(entry.kind != CARRIED for entry in entries) == _NUM_STEPS else None
        return render(request, "agreement.html", session=session, agreement=agreement_of(entries), newest=newest)


def _csv_pages(desk: Desk, reader: str) -> Iterator[str]:
    """The whole log, newest first, a page of it at a time: it may be long."""
    yield _csv([["seq", "at_utc", "video_id", "verdict_seq", "actor", "kind", "reading", "decision", "reason", "note", "undoes"]])
    before = None
    while entries := desk.ledger.review_history(before=before, limit=_CSV_PAGE, reader=reader):
        yield _csv([_csv_row(entry) for entry in entries])
        before = entries[-1].seq


def _csv(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _csv_row(e: LogEntry) -> list[object]:
    said = [e.reading, e.decision, _inert(e.reason), _inert(e.note), e.undoes]
    return [e.seq, when(e.at), e.video_id, e.verdict_seq, e.actor, e.kind, *said]


def _inert(text: str | None) -> str | None:
    """What somebody wrote, so that no spreadsheet takes it for a formula."""
    return "'" + text if text and text.startswith(_FORMULA) else text
