"""Make an explanation when a person asks: heat-maps of the worst moments and an annotated clip, from the media if they are still there.

Runs where videos are screened, never in the web process: it needs the nets and it opens uploads. The media are fetched and
checked as for a screening; what comes out shows faces, so it is kept for minutes (`VERIFRAME_EXPLANATION_SECONDS`).
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import structlog

from detect_core.errors import BundleMismatchError

from .errors import LedgerError, WorkerError
from .in_flight import InFlight
from .ledger import Ledger
from .ledger.explanations import WANTED
from .messages import EvidenceBody, VerdictBody, evidence_body
from .promotion import bundle_set_in_charge
from .retry import decide
from .settings import Settings
from .sources import Sources

if TYPE_CHECKING:
    from detect_core.annotate import DrawnTrack
    from detect_core.calibration import BundleSet

log = structlog.get_logger(__name__)
NUM_MOMENTS: Final = 3
"""Moments that are explained: the first of the evidence, which are about the face that decided."""
_CLIP_MARGIN_SECONDS: Final = 2.5


class NothingToExplainError(WorkerError):
    """Raised when a verdict rests on no scored face, or there is no verdict."""

    code = "NOTHING_TO_EXPLAIN"


@dataclass(frozen=True, slots=True)
class ExplainedVideo:
    """What a person gets to see."""

    body: dict[str, Any]
    """`{moments: [{t, track, detector, loudest, bbox, score, detector_score, logit, pictures: {kind: base64 JPEG}}], clip: {...} | null,
    seconds, ...}`; `score` is that of all detectors together, `detector` the one that is drawn: `loudest`, unless that one looks at whole
    tracks."""
    pictures: dict[str, bytes]
    """JPEG by name, `moment-1-grad_cam.jpg`."""
    clip: bytes | None
    """MP4 around the worst moment."""


def explain_video(file: BinaryIO, verdict: VerdictBody, *, bundle_set: BundleSet, device: str = "cpu") -> ExplainedVideo:
    """Explain one finished verdict from its video.

    Raises:
        NothingToExplainError: the verdict measured no face: there is nothing to explain.
        BundleMismatchError: another bundle set made it.
        DetectCoreError: the video cannot be decoded any more, or a detector failed.
    """
    from detect_core.annotate import annotated_clip
    from detect_core.explain import Moment, drawable_detectors, explain, num_frames_decoded
    from detect_core.heatmap import jpeg

    started = time.monotonic()
    evidence = evidence_body(verdict)
    chosen = [moment for moment in evidence.moments if moment.detector is not None][:NUM_MOMENTS]
    if verdict.sampling is None or not chosen:
        raise NothingToExplainError("this verdict names no face with a score: there is nothing to explain")
    if verdict.bundle_set != bundle_set.label:
        raise BundleMismatchError(
            f"the verdict was made by {verdict.bundle_set}, loaded is {bundle_set.label}; load that set (VERIFRAME_BUNDLE_SET), or screen again"
        )
    drawable = drawable_detectors(bundle_set)
    if not drawable:
        raise NothingToExplainError(f"no detector of {bundle_set.label} looks at single crops: there is nothing to draw")
    moments = [Moment(track_id=m.track, pts_seconds=m.t, xyxy=m.bbox, detector=str(m.detector)) for m in chosen]
    num_frames = num_frames_decoded(verdict.sampling.policy, num_requested=verdict.sampling.requested)
    explained = explain(file, moments, bundle_set=bundle_set, num_frames=num_frames, device=device)
    if not explained:
        whole_tracks = not {moment.detector for moment in moments} & {*drawable}
        raise NothingToExplainError(
            "none of the verdict's moments came out of the decoder again: it was sampled otherwise than this build samples"
            + ("; or only detectors of whole tracks count in a video compressed so hard: they look at no single picture" * whole_tracks)
        )
    stored_as = dict(zip(moments, chosen, strict=True))
    shown = [(stored_as[each.moment], each) for each in explained]
    heat_seconds = time.monotonic() - started
    file.seek(0)
    within = _stretch(evidence, centre=chosen[0].t)
    tracks = _drawn_tracks(evidence)
    threshold = evidence.thresholds.fake if evidence.thresholds else None
    clip = annotated_clip(file, tracks, within_seconds=within, threshold=threshold) if tracks else None
    pictures = {
        f"moment-{number}-{kind}.jpg": jpeg(picture)
        for number, (_, each) in enumerate(shown, start=1)
        for kind, picture in each.pictures.items()
    }
    body = {
        "bundle_set": bundle_set.label,
        "moments": [
            {
                "t": stored.t,
                "track": stored.track,
                "detector": each.detector,
                "loudest": stored.detector,
                "bbox": list(stored.bbox),
                "score": stored.score,
                "detector_score": 1 / (1 + math.exp(-max(min(each.logit, 40.0), -40.0))),
                "logit": each.logit,
                "pictures": {kind: base64.b64encode(pictures[f"moment-{number}-{kind}.jpg"]).decode() for kind in each.pictures},
            }
            for number, (stored, each) in enumerate(shown, start=1)
        ],
        "clip": {"start": within[0], "end": within[1], "bytes": len(clip)} if clip is not None else None,
        "seconds": {"heatmaps": round(heat_seconds, 3), "total": round(time.monotonic() - started, 3)},
    }
    return ExplainedVideo(body=body, pictures=pictures, clip=clip)


def _stretch(evidence: EvidenceBody, *, centre: float) -> tuple[float, float]:
    end = min(centre + _CLIP_MARGIN_SECONDS, max(evidence.frame.duration if evidence.frame else centre, centre))
    start = max(0.0, centre - _CLIP_MARGIN_SECONDS)
    return start, max(end, start + 0.1)


def _drawn_tracks(evidence: EvidenceBody) -> list[DrawnTrack]:
    from detect_core.annotate import DrawnTrack

    return [
        DrawnTrack(
            track_id=track.id, pts_seconds=tuple(track.samples.t), scores=tuple(track.samples.score), boxes=tuple(track.samples.bbox)
        )
        for track in evidence.tracks
        if track.samples.bbox
    ]


class Explaining:
    """Answers requests for explanations in a worker process; called from task threads."""

    def __init__(self, *, ledger: Ledger, sources: Sources, settings: Settings, in_flight: InFlight) -> None:
        self._ledger = ledger
        self._sources = sources
        self._settings = settings
        self._in_flight = in_flight
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._bundle_set: BundleSet | None = None

    def run(self, ledger_id: str) -> str:
        """Explain one job's verdict and what else is asked for meanwhile; gives `ready` or the code of what was in the way of the first.

        One at a time: people wait for seconds, videos must not wait for people. While another thread is at it, that one is told
        and `waiting` comes back at once, so that no second thread is taken from videos.
        """
        answers: dict[str, str] = {}
        self._waiting.append(ledger_id)
        # looked at again after the lock is let go: who came in between found it taken and left
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                with self._in_flight.explaining():
                    while self._waiting:
                        asked = self._waiting.popleft()
                        answers[asked] = self._answer(asked)
            finally:
                self._lock.release()
        return answers.get(ledger_id, "waiting")

    def _answer(self, ledger_id: str) -> str:
        try:
            asked = self._ledger.explanation(ledger_id)
            if asked is None or asked.state != WANTED:
                return "not wanted"  # it waited for longer than the person
            if self._in_flight.draining.is_set():
                self._ledger.refuse_explanation(ledger_id, code="DRAINING", message="the worker that was to make it stops: ask again")
                return "DRAINING"
            return self._explain_or_refuse(ledger_id)
        except LedgerError as err:
            log.warning("explanation_lost", ledger_id=ledger_id, code=err.code, note="the person asks again")
            return err.code
        except Exception:  # a bug of ours: those who wait behind it must not be forgotten
            log.exception("explanation_failed", ledger_id=ledger_id)
            return "INTERNAL"

    def _explain_or_refuse(self, ledger_id: str) -> str:
        try:
            explained = self._explain(ledger_id)
        except LedgerError:
            raise
        except Exception as err:
            return self._refuse(ledger_id, err)
        self._ledger.put_explanation(ledger_id, body=explained.body, clip=explained.clip, seconds=self._settings.explanation_seconds)
        log.info("explained", ledger_id=ledger_id, **explained.body["seconds"])
        return "ready"

    def _explain(self, ledger_id: str) -> ExplainedVideo:
        job = self._ledger.outcome(ledger_id)
        if job is None or job.body is None:
            raise NothingToExplainError("this job has no verdict: there is nothing to explain")
        verdict = VerdictBody.model_validate(job.body)
        named = self._ledger.media_of(ledger_id)  # a verdict that outlived its job: by the media template
        source = named[1] if named is not None else None
        fetched = self._sources.fetch(
            job.video_id, source=source, content_sha256=verdict.content_sha256, cancel=threading.Event(), tenant=job.tenant
        )
        try:
            return explain_video(fetched.file, verdict, bundle_set=self._loaded(), device="cpu")
        finally:
            fetched.close()

    def _loaded(self) -> BundleSet:
        from detect_core.calibration import load_bundle_set

        if self._bundle_set is None:
            self._bundle_set = load_bundle_set(bundle_set_in_charge(self._settings))
        return self._bundle_set

    def _refuse(self, ledger_id: str, error: Exception) -> str:
        decision = decide(error, retries=0)
        self._ledger.refuse_explanation(ledger_id, code=decision.code, message=decision.message)
        log.warning("explanation_refused", ledger_id=ledger_id, code=decision.code, exc_info=error if decision.code == "INTERNAL" else None)
        return decision.code
