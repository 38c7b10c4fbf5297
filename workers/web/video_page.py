"""One video: the player, the score over time, one lane per face, the verdict card, and what people said."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query, Request, Response

from ..errors import UnknownVideoError
from ..ledger.standing import undoable
from ..messages import EvidenceBody, VerdictBody, evidence_body
from ..messages.enqueue import VIDEO_ID_PATTERN
from ..outcome import job_body
from .copies import Copies
from .digests import Digests
from .evidence import cached_json
from .fields import RowNumber
from .lanes import make_lanes
from .media import CHANGED, GONE, Media, Remote, answer_range, open_media
from .pages import render
from .session import Session
from .signed_in import Desk

VideoId = Annotated[str, Path(pattern=VIDEO_ID_PATTERN)]
Revision = Annotated[RowNumber, Query()]
_PAGE_READS_BYTES: Final = 64 * 1024**2
"""A video up to this size is hashed before its page is sent; of a larger one the player hears."""


def add_video(app: FastAPI, desk: Desk) -> None:
    """Serve the page of one video, its evidence and its media."""
    reader = Depends(desk.reader())
    copies, digests = Copies(desk.settings), Digests()

    @app.get("/videos/{video_id}")
    def video(request: Request, video_id: VideoId, session: Annotated[Session, reader], seq: Revision = 0, done: Revision = 0) -> Response:
        outcome, verdict_seq = outcome_of(desk, video_id, seq)
        evidence = evidence_body(outcome)
        item = desk.ledger.review_item(verdict_seq) if verdict_seq else None
        entries = desk.ledger.review_entries(verdict_seq) if item is not None else []
        # the second reader judges blind: what the first one said is shown once both have spoken
        is_blind = desk.ledger.reads_blind(video_id, verdict_seq=verdict_seq, actor=session.reviewer)
        media = _media(desk, outcome, digests, at_most_bytes=_PAGE_READS_BYTES)
        if isinstance(media, Media):
            media.close()
        duration = evidence.frame.duration if evidence.frame else 0.0
        thresholds = evidence.thresholds
        return render(
            request,
            "video.html",
            session=session,
            outcome=outcome,
            evidence=evidence,
            verdict_seq=verdict_seq,
            revisions=desk.ledger.verdict_revisions(video_id, verdict_seq=verdict_seq),
            item=item,
            entries=[] if is_blind else [entry for entry in entries if entry.kind != "claimed"],
            is_blind=is_blind,
            can_decide=item is not None and item.may_read(session.reviewer) and item.claimed_by in (None, session.reviewer),
            can_undo=item is not None and item.claimed_by in (None, session.reviewer) and undoable(entries, session.reviewer) is not None,
            is_superseded=item is not None and desk.ledger.review_is_superseded(verdict_seq),
            newest=desk.ledger.newer_submission(verdict_seq) if verdict_seq else None,
            lanes=make_lanes(
                evidence.tracks,
                duration_seconds=duration,
                review=thresholds.review if thresholds else None,
                fake=thresholds.fake if thresholds else None,
            ),
            media_missing=media if isinstance(media, str) else None,
            is_fetched=isinstance(media, Remote),
            done=desk.ledger.review_item(done) if done else None,
        )

    @app.get("/videos/{video_id}/evidence.json")
    def video_evidence(request: Request, video_id: VideoId, _session: Annotated[Session, reader], seq: Revision = 0) -> Response:
        return cached_json(request, chart_facts(evidence_body(outcome_of(desk, video_id, seq)[0])))

    @app.get("/videos/{video_id}/media")
    async def video_media(request: Request, video_id: VideoId, _session: Annotated[Session, reader], seq: Revision = 0) -> Response:
        outcome, _ = await asyncio.to_thread(outcome_of, desk, video_id, seq)
        media = await asyncio.to_thread(_media, desk, outcome, digests)
        if isinstance(media, Remote):
            media = await copies.open(media, content_sha256=outcome.content_sha256)
        if isinstance(media, Media):
            return answer_range(request, media)
        return Response(media, status_code=404, media_type="text/plain")


def chart_facts(evidence: EvidenceBody) -> dict[str, Any]:
    """What the chart and the boxes over the player need, without pictures."""
    body = evidence.to_json()
    return {
        "duration": body["frame"]["duration"] if body["frame"] else 0.0,
        "frame": body["frame"],
        "thresholds": body["thresholds"],
        "looked_at": body["looked_at"],
        "segments": body["segments"],
        "tracks": [{"id": track["id"], **track["samples"]} for track in body["tracks"]],
    }


def outcome_of(desk: Desk, video_id: str, seq: int) -> tuple[VerdictBody, int]:
    """The wanted revision, else the newest verdict, else the job as it stands (then without a verdict number).

    Raises:
        UnknownVideoError: nothing of this ID is on record.
    """
    found = desk.ledger.verdict_of(video_id, verdict_seq=seq or None)
    if found is not None:
        return VerdictBody.model_validate(found.body), found.seq
    job = desk.ledger.latest_job(video_id)
    if job is None or seq:
        raise UnknownVideoError("no such video is on record: check the ID")
    return VerdictBody.model_validate(job_body(job)), 0


def _media(desk: Desk, outcome: VerdictBody, digests: Digests, *, at_most_bytes: int | None = None) -> Media | Remote | str:
    """The video that was judged, opened; or a sentence. A local file larger than `at_most_bytes` is not hashed now."""
    known = desk.ledger.media_of(outcome.job_id) if outcome.job_id else None
    if known is None:  # a verdict that outlived its job: by the media template, and only what has the hash that was judged
        kept = desk.ledger.outcome(outcome.job_id) if outcome.job_id and outcome.content_sha256 else None
        if kept is None:
            return GONE
        known = kept.video_id, None, kept.tenant
    video_id, source, tenant = known
    media = open_media(desk.settings, video_id=video_id, source=source, tenant=tenant)
    if not isinstance(media, Media) or outcome.content_sha256 is None:
        return media
    try:
        is_judged = digests.of(media.descriptor, at_most_bytes=at_most_bytes) in (None, outcome.content_sha256)
    except OSError:
        is_judged = False
    if is_judged:
        return media
    media.close()
    return CHANGED
