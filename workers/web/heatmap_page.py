"""Heat-maps on a video page: asked for with one key, made by a worker, shown when they are ready. They show faces and expire.

And the case file for appeals, with those heat-maps in it while they are there.
"""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from starlette.exceptions import HTTPException

from ..case_file import case_zip, read_case
from ..errors import UnknownVideoError, WorkerError
from ..ledger.schema import VERDICT
from ..messages import VerdictBody
from .evidence import stored_pictures
from .explanation import explanation_state
from .pages import render
from .session import Session
from .signed_in import Desk
from .video_page import Revision, VideoId, outcome_of

_ASK_AGAIN_SECONDS = 180.0
_NO_CASE = "there is no verdict yet, or its job is past its retention: a case file can not be made"
_OLD = "Heat-maps are made for the newest verdict of a video, not for this older one."
OFF = "Heat-maps show faces and are switched off here (VERIFRAME_EXPLANATION_SECONDS=0)."


def add_heatmaps(app: FastAPI, desk: Desk) -> None:
    """Serve the fragment and the clip."""
    reader, writer = Depends(desk.reader()), Depends(desk.writer())

    @app.post("/videos/{video_id}/heatmap")
    def ask(request: Request, video_id: VideoId, session: Annotated[Session, writer], seq: Revision = 0) -> Response:
        job_id, is_newest = _job_of(desk, video_id, seq)
        problem = _OLD if not is_newest else None if desk.settings.explanation_seconds else OFF
        try:
            if problem is None:
                _tell_a_worker(desk, job_id)
        except WorkerError as err:
            problem = f"No worker can be told just now ({err.code}). Ask again in a moment."
        return _fragment(request, session, video_id=video_id, seq=seq, state={} if problem else _state(desk, job_id), problem=problem)

    @app.get("/videos/{video_id}/heatmap")
    def look(
        request: Request,
        video_id: VideoId,
        session: Annotated[Session, reader],
        seq: Revision = 0,
        tries: Annotated[int, Query(ge=0, le=1000)] = 0,
    ) -> Response:
        job_id, is_newest = _job_of(desk, video_id, seq)
        if not is_newest:
            return _fragment(request, session, video_id=video_id, seq=seq, state={}, problem=_OLD)
        return _fragment(request, session, video_id=video_id, seq=seq, state=_state(desk, job_id), tries=tries)

    @app.get("/videos/{video_id}/heatmap/clip")
    def clip(video_id: VideoId, _session: Annotated[Session, reader], seq: Revision = 0) -> Response:
        job_id, is_newest = _job_of(desk, video_id, seq)
        found = desk.ledger.explanation_clip(job_id) if is_newest else None
        if found is None:
            raise UnknownVideoError("the clip has expired: ask for the heat-maps again")
        return Response(found, media_type="video/mp4", headers={"Cache-Control": "private, no-store"})


def add_case_file(app: FastAPI, desk: Desk) -> None:
    """Serve the case file for an appeal."""
    reader = Depends(desk.reader())

    @app.get("/videos/{video_id}/case.zip")
    def case_file(video_id: VideoId, session: Annotated[Session, reader], seq: Revision = 0) -> Response:
        outcome, verdict_seq = outcome_of(desk, video_id, seq)
        if desk.ledger.reads_blind(video_id, verdict_seq=verdict_seq, actor=session.reviewer):
            raise HTTPException(
                403, "You may be the second reader of this video: its case file, which holds the first decision, waits for yours."
            )
        job = desk.ledger.outcome(outcome.job_id) if outcome.job_id is not None else None
        verdict = desk.ledger.verdict_of(video_id, verdict_seq=verdict_seq) if verdict_seq else None
        if job is None or verdict is None:
            raise UnknownVideoError(_NO_CASE)
        shown = stored_pictures(desk.ledger, job.ledger_id) if job.body == verdict.body else {}
        # the verdict of the page: the job's own may be a newer one
        case = read_case(desk.ledger, replace(job, state=VERDICT, body=verdict.body))
        headers = {"Content-Disposition": f'attachment; filename="{video_id}-case.zip"', "Cache-Control": "private, no-store"}
        return Response(case_zip(case, pictures=shown), media_type="application/zip", headers=headers)


def _job_of(desk: Desk, video_id: str, seq: int) -> tuple[str, bool]:
    """The job behind a verdict, and whether that verdict is what the job came to; a job is explained, not one of its older verdicts."""
    outcome, verdict_seq = outcome_of(desk, video_id, seq)
    if not verdict_seq or outcome.job_id is None:
        raise UnknownVideoError("there is no verdict to explain yet")
    job = desk.ledger.outcome(outcome.job_id)  # past its retention too the newest verdict is the one that a worker explains
    return outcome.job_id, job is None or job.body is None or VerdictBody.model_validate(job.body) == outcome


def _tell_a_worker(desk: Desk, job_id: str) -> None:
    desk.control.dispatcher.check()  # before the wish is on record, or nobody would be told until it expires
    if desk.ledger.want_explanation(job_id, seconds=_ASK_AGAIN_SECONDS):
        desk.control.dispatcher.ask_for_explanation(job_id)


def _state(desk: Desk, job_id: str) -> dict[str, Any]:
    try:
        return explanation_state(desk.control, job_id)
    except UnknownVideoError:
        return {"state": "expired"}


def _fragment(
    request: Request, session: Session, *, video_id: str, seq: int, state: dict[str, Any], tries: int = 0, problem: str | None = None
) -> Response:
    facts: dict[str, Any] = {"video_id": video_id, "seq": seq, "state": state, "tries": tries, "problem": problem}
    return render(request, "heatmap.html", session=session, **facts)
