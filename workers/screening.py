"""One job from claim to commit: claim -> fetch -> screen -> commit, with every way it can end.

The detectors are behind `Screener`; `detect_core.pipeline.Screener` is the one the product runs. Whatever happens, a job
ends here in a commit, a named failure, a retry or a hand-back, or its lease runs out and the janitor takes it back.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol, TypeVar

import structlog

from detect_core.errors import BundleError, DecodeLimitError, DecodeTimeoutError, DetectorError, MediaError
from detect_core.structs import Verdict

from . import tracing
from .errors import LeaseLostError, LedgerUnavailableError, SourceError, WorkerError
from .in_flight import InFlight, IsolationGate, Running
from .ledger import Claim, ClaimRefused, Ledger, ShadowRecord, VerdictRecord
from .ledger.schema import ISOLATE
from .messages import JobFacts, failure_body, verdict_body
from .metrics import Metrics
from .retry import Action, Decision, decide
from .settings import Settings
from .sources import Sources

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")
OnStage = Callable[[str, float, float], None]
_COMMIT_PAUSE_SECONDS: Final = 0.5
_STAGE_OF: Final[dict[type[BaseException], str]] = {
    SourceError: "fetch",
    MediaError: "decode",
    DecodeLimitError: "decode",
    DetectorError: "classify",
    BundleError: "classify",
}


class Screener(Protocol):
    """The detectors. Thread-safe: called from all task threads at once."""

    def screen(
        self,
        file: BinaryIO,
        *,
        cancel: threading.Event | None = None,
        deadline_seconds: float = 840.0,
        on_stage: OnStage | None = None,
    ) -> Verdict:
        """Judge one video.

        Args:
            file: a real file with a descriptor, positioned at its start.
            cancel: set by the caller to end the screening early.
            deadline_seconds: wall clock for the whole screening.
            on_stage: called after each stage with its name, wall seconds and CPU seconds.

        Raises:
            DetectCoreError: every way in which the file or the system could not be judged.
        """
        ...

    def close(self) -> None:
        """Free devices and child processes."""
        ...


class DrainingError(WorkerError):
    """Raised when a message arrives while this worker drains: it is left for another one."""

    code = "DRAINING"
    retryable = True


class Screening:
    """Runs claimed jobs in this process; one instance, called from all task threads."""

    def __init__(self, *, ledger: Ledger, screener: Screener, sources: Sources, metrics: Metrics, settings: Settings, owner: str) -> None:
        self.in_flight = InFlight()
        self.num_received = 0
        """Messages that reached this process; only its change means something."""
        self._gate = IsolationGate()
        self._ledger = ledger
        self._screener = screener
        self._sources = sources
        self._metrics = metrics
        self._settings = settings
        self._owner = owner

    def run(self, ledger_id: str, *, lane: str, delivery_tag: str | None = None) -> str:
        """Claim one job and bring it to an end.

        Args:
            ledger_id: the row that the message named.
            lane: the dispatch lane the message came from; `isolate` runs alone.
            delivery_tag: the broker's handle of the message, renewed while the job runs.

        Returns:
            How it ended: `verdict`, `failed`, `retried`, `released`, `lost`, or `skipped`.

        Raises:
            DrainingError: this worker takes nothing new.
            LedgerUnavailableError: the claim could not be tried.
        """
        self.num_received += 1
        with self._gate.enter(alone=lane == ISOLATE):
            if self.in_flight.draining.is_set():
                raise DrainingError("this worker drains")
            claim = self._ledger.claim(ledger_id, owner=self._owner, lease_seconds=self._settings.lease_seconds)
            if isinstance(claim, ClaimRefused):
                self._metrics.duplicates.labels(reason=claim.reason).inc()
                return "skipped"
            running = Running(claim=claim, delivery_tag=delivery_tag)
            self.in_flight.add(running)
            bound = structlog.contextvars.bind_contextvars(
                ledger_id=ledger_id, video_id=claim.video_id, trace_id=tracing.trace_id_of(claim.trace_id) or claim.trace_id
            )
            try:
                with tracing.span("veriframe screen", traceparent=claim.trace_id, kind="CONSUMER", **_traced(claim)) as running.span:
                    return self._run_claimed(running)
            finally:
                self.in_flight.remove(running)
                structlog.contextvars.reset_contextvars(**bound)

    def _run_claimed(self, running: Running) -> str:
        claim = running.claim
        self._metrics.queue_wait_seconds.labels(queue=claim.lane).observe(claim.waited_seconds)
        try:
            record = self._screen(running)
            return self._commit(running, record)
        except LeaseLostError:
            log.info("lease_lost", fence=claim.fence)
            return "lost"
        except MemoryError as err:
            gc.collect()
            self._metrics.failures.labels(stage=running.stage, reason="memory").inc()
            return self._settle(running, err)
        except Exception as err:
            return self._settle(running, err)

    def _screen(self, running: Running) -> VerdictRecord:
        claim, started = running.claim, time.monotonic()
        media = self._sources.fetch(
            claim.video_id, source=claim.source, content_sha256=claim.content_sha256, cancel=running.cancel, tenant=claim.tenant
        )
        fetched = time.monotonic()
        self._metrics.stage_seconds.labels(stage="fetch", device="cpu").observe(fetched - started)
        self._metrics.last_progress.labels(stage="fetch").set_to_current_time()
        below = running.span.traceparent
        tracing.record("fetch", below=below, seconds=fetched - started)

        def on_stage(stage: str, wall_seconds: float, cpu_seconds: float) -> None:
            running.stage = stage
            tracing.record(stage, below=below, seconds=wall_seconds)
            self._metrics.stage_seconds.labels(stage=stage, device=self._settings.device).observe(wall_seconds)
            self._metrics.stage_cpu_seconds.labels(stage=stage).inc(max(0.0, cpu_seconds))
            self._metrics.last_progress.labels(stage=stage).set_to_current_time()

        try:
            running.stage = "decode"
            remaining = max(1.0, self._settings.video_soft_seconds - (fetched - started))
            verdict = self._screener.screen(media.file, cancel=running.cancel, deadline_seconds=remaining, on_stage=on_stage)
        finally:
            media.close()
        running.stage = "store"
        ended = time.monotonic()
        self._observe(verdict, wall_seconds=ended - fetched)
        timing = {
            "queue": round(claim.waited_seconds * 1000),
            "fetch": round((fetched - started) * 1000),
            "total": round((ended - started) * 1000),
        }
        body = verdict_body(verdict, job=self._facts(claim, content_sha256=media.sha256, timing_ms=timing))
        return VerdictRecord(
            content_sha256=media.sha256,
            bundle_set=verdict.bundle_set,
            policy=verdict.policy,
            verdict=verdict.verdict,
            p_fake=verdict.p_fake,
            body=body.to_json(),
            shadow=self._shadow(verdict),
        )

    def _shadow(self, verdict: Verdict) -> ShadowRecord | None:
        opinion = verdict.extra.get("shadow")
        if opinion is None:
            return None
        self._metrics.shadow_verdicts.labels(outcome="agrees" if opinion.verdict == verdict.verdict else "differs").inc()
        share = self._settings.shadow_review_share
        return ShadowRecord(bundle_set=opinion.bundle_set, verdict=opinion.verdict, p_fake=opinion.p_fake, review_share=share)

    def _observe(self, verdict: Verdict, *, wall_seconds: float) -> None:
        if wall_seconds > 0 and verdict.video.duration_seconds > 0:
            self._metrics.realtime_ratio.observe(verdict.video.duration_seconds / wall_seconds)
            self._metrics.media_seconds.inc(verdict.video.duration_seconds)
        self._metrics.stage_cpu_seconds.labels(stage="decode").inc(verdict.cpu_seconds)  # the decode child's, which no thread of ours sees
        if verdict.extra.get("hardware_decode"):
            self._metrics.hardware_decodes.labels(outcome=verdict.extra["hardware_decode"]).inc()
        self._metrics.frames_sampled.inc(verdict.sampling.num_requested)
        self._metrics.frames_decoded.inc(verdict.sampling.num_decoded)
        self._metrics.frames_dropped.labels(reason="not_decoded").inc(
            max(0, min(verdict.sampling.num_requested, verdict.video.num_packets) - verdict.sampling.num_decoded)
        )
        self._metrics.faces_detected.inc(verdict.sampling.num_faces)
        for track in verdict.tracks:
            for _seconds, score in track.scores:
                self._metrics.face_score.labels(model=verdict.bundle_set).observe(score)
        for detector in verdict.detectors:
            if detector.state == "scored":
                self._metrics.faces_scored.labels(model=detector.name).inc(sum(track.num_crops for track in verdict.tracks))

    def _facts(self, claim: Claim, *, content_sha256: str | None = None, timing_ms: dict[str, int] | None = None) -> JobFacts:
        return JobFacts(
            video_id=claim.video_id,
            job_id=claim.ledger_id,
            content_sha256=content_sha256 or claim.content_sha256,
            attributes=claim.attributes,
            worker=self._owner,
            trace_id=claim.trace_id,
            timing_ms=timing_ms or {},
        )

    def _urls(self, claim: Claim) -> list[str]:
        return [url for url in (self._settings.webhook_url, claim.callback_url) if url]

    def _commit(self, running: Running, record: VerdictRecord) -> str:
        claim = running.claim
        with tracing.span("store", traceparent=running.span.traceparent):
            is_new = self._write(running, lambda: self._ledger.commit_verdict(claim, verdict=record, urls=self._urls(claim)))
        running.span.note(verdict=record.verdict, bundle_set=record.bundle_set, new=is_new)
        if not is_new:
            self._metrics.duplicates.labels(reason="dedupe").inc()
        self._ended(running, verdict=record.verdict, model=record.bundle_set)
        log.info("verdict", verdict=record.verdict, p_fake=record.p_fake, new=is_new)
        return "verdict"

    def _settle(self, running: Running, error: Exception) -> str:
        """Turn an error into a retry, a failure or a hand-back."""
        claim, reason = running.claim, running.cancel_reason
        try:
            if reason == "lease_lost":
                return "lost"
            if reason == "drain":
                self._write(running, lambda: self._ledger.release(claim))
                log.info("released", why="drain")
                return "released"
            if reason == "deadline":
                error = DecodeTimeoutError(f"screening was still running after {self._settings.video_soft_seconds:g} s and was stopped")
            decision = decide(error, retries=claim.retries)
            if decision.action is Action.RETRY:
                return self._retry(running, decision, error)
            return self._fail(running, decision, error)
        except LeaseLostError:
            log.info("lease_lost", fence=claim.fence)
            return "lost"

    def _retry(self, running: Running, decision: Decision, error: Exception) -> str:
        claim = running.claim
        self._write(
            running,
            lambda: self._ledger.retry(claim, code=decision.code, message=decision.message, delay_seconds=decision.delay_seconds),
        )
        self._metrics.retries.labels(reason=decision.code).inc()
        running.span.failed(decision.code)
        log.warning("retried", code=decision.code, delay_seconds=round(decision.delay_seconds, 1), exc_info=_untyped(decision, error))
        return "retried"

    def _fail(self, running: Running, decision: Decision, error: Exception) -> str:
        claim = running.claim
        body = failure_body(code=decision.code, message=decision.message, retryable=decision.retryable, job=self._facts(claim))
        self._write(
            running,
            lambda: self._ledger.fail(claim, code=decision.code, message=decision.message, body=body.to_json(), urls=self._urls(claim)),
        )
        self._metrics.failures.labels(stage=_failed_stage(running, error), reason=decision.code).inc()
        self._metrics.dead_letters.labels(code=decision.code).inc()
        running.span.failed(decision.code)
        self._ended(running, verdict="none", model="none")
        log.warning("failed", code=decision.code, message=decision.message, exc_info=_untyped(decision, error))
        return "failed"

    def _ended(self, running: Running, *, verdict: str, model: str) -> None:
        lane, seconds = running.claim.lane, time.monotonic() - running.started
        self._metrics.processed.labels(verdict=verdict, queue=lane, model=model).inc()
        trace_id = tracing.trace_id_of(running.span.traceparent)
        exemplar = {"trace_id": trace_id} if trace_id is not None else None
        self._metrics.processing_seconds.labels(queue=lane).observe(seconds, exemplar)
        self._metrics.end_to_end_seconds.labels(queue=lane).observe(running.claim.waited_seconds + seconds, exemplar)
        self._metrics.last_progress.labels(stage="store").set_to_current_time()

    def _write(self, running: Running, write: Callable[[], _Result]) -> _Result:
        """Write to the ledger, waiting out an outage: a finished screening is not thrown away for a restarted database.

        Safe to repeat: a commit that did arrive makes the repetition a `LeaseLostError`, which changes nothing.
        """
        give_up = time.monotonic() + self._settings.lease_seconds * 2
        while True:
            try:
                return write()
            except LedgerUnavailableError as err:
                if time.monotonic() > give_up or running.cancel_reason == "lease_lost":
                    log.error("ledger_lost", code=err.code, note="the lease runs out and the job is sent again")
                    raise LeaseLostError("the ledger could not be reached for two lease times") from err
                time.sleep(_COMMIT_PAUSE_SECONDS)


def _traced(claim: Claim) -> dict[str, str | float]:
    return {
        "video_id": claim.video_id,
        "job_id": claim.ledger_id,
        "lane": claim.lane,
        "attempt": claim.attempts,
        "waited_seconds": claim.waited_seconds,
    }


def _untyped(decision: Decision, error: Exception) -> Exception | None:
    return error if decision.code == "INTERNAL" else None


def _failed_stage(running: Running, error: Exception) -> str:
    return next((stage for cls, stage in _STAGE_OF.items() if isinstance(error, cls)), running.stage)
