"""The only place that wires the stages together: an open file in, one explained verdict out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from .aggregate import STRATEGY, crowd_corrected, num_draws, windows_of
from .batching import BatchReport
from .calibration import DEFAULT_SET, BundleSet, load_bundle_set
from .detectors import PrecisionWish, is_track_bundle
from .detectors.runtime import SCORE_TOLERANCE
from .engine import Engine
from .errors import BundleMismatchError, DecodeDoubtError, DecodeLimitError, DetectorError, MediaError
from .faces.detect import FaceDetector
from .familiarity import first_crop_bundle
from .gathering import Clock, Gatherer, OnStage, Run, open_session
from .judging import Look, Scored, judge, loudest_crop
from .options import ScreeningOptions
from .scoring import score_tracks
from .second_opinion import asked_again
from .shadow import with_shadow, without_shadow
from .structs import Verdict, VideoInfo
from .video.decode import DecodeSession
from .video.keeper import keeper
from .video.sample import POLICY as SAMPLING_POLICY


class Screener:
    """Screens videos with one set of bundles on one device. Thread-safe: one thread per video."""

    def __init__(
        self,
        bundle_set: BundleSet,
        *,
        options: ScreeningOptions | None = None,
        device: str = "cpu",
        precision: PrecisionWish = "fp32",
        compiled: bool = False,
        face_detector: FaceDetector | None = None,
        shadow: BundleSet | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
        decode_threads: int = 1,
    ) -> None:
        """Load the models and start the decode nursery.

        Args:
            bundle_set: verified bundles and their calibration.
            options: how a video is looked at.
            device: torch device that this process owns.
            precision: of the detectors. In bf16 a video whose score falls next to a threshold is scored again in
                fp32, so that the verdict's word is the one of fp32.
            compiled: let TorchInductor compile the detectors' nets.
            face_detector: another face detector than MTCNN.
            shadow: a second set that scores the same crops; its opinion is added to the verdict's `extra`, it never decides.
            on_batch: called after every batch, for metrics.
            decode_threads: of one video's decoder. More than one shortens the wait where cores would idle, for some more
                CPU time; a file that is not sound is decoded again in one.

        Raises:
            BundleError: weights are missing, changed or do not fit each other.
        """
        if bundle_set.calibration.strategy != STRATEGY:
            raise BundleMismatchError(
                f"bundle set {bundle_set.name} was calibrated for {bundle_set.calibration.strategy}, this version aggregates by {STRATEGY}; calibrate again"
            )
        self.bundle_set = bundle_set
        self.options = options or ScreeningOptions()
        self.device = device
        self.decode_threads = decode_threads
        self.shadow = shadow
        self._scored = with_shadow(bundle_set, shadow).bundles
        self.engine = Engine(
            with_shadow(bundle_set, shadow),
            device=device,
            precision=precision,
            compiled=compiled,
            face_detector=face_detector,
            on_batch=on_batch,
        )
        self._gatherer = Gatherer(self.engine, self._scored)
        keeper().warm()

    @classmethod
    def load(
        cls,
        bundle_set: Path | str = DEFAULT_SET,
        *,
        options: ScreeningOptions | None = None,
        device: str = "cpu",
        precision: PrecisionWish = "fp32",
        compiled: bool = False,
        face_detector: FaceDetector | None = None,
        shadow: Path | str | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
        decode_threads: int = 1,
    ) -> Self:
        """Load a bundle set from disk and start; arguments as for the class.

        Raises:
            BundleError: the set or a bundle is missing, changed or does not fit.
        """
        return cls(
            load_bundle_set(bundle_set),
            options=options,
            device=device,
            precision=precision,
            compiled=compiled,
            face_detector=face_detector,
            shadow=load_bundle_set(shadow) if shadow is not None else None,
            on_batch=on_batch,
            decode_threads=decode_threads,
        )

    def close(self) -> None:
        """Stop the device thread. The nursery stays for other screeners of the process and ends with it."""
        self.engine.close()

    def screen(
        self,
        file: BinaryIO,
        *,
        cancel: threading.Event | None = None,
        deadline_seconds: float | None = None,
        on_stage: OnStage | None = None,
    ) -> Verdict:
        """Judge one video.

        Args:
            file: an open file with a descriptor.
            cancel: set it to stop early.
            deadline_seconds: wall clock of the whole screening; the options' `total_seconds` by default.
            on_stage: told the duration of each stage as it ends.

        Returns:
            The verdict; "cannot tell" is one of them.

        Raises:
            MediaError: a subclass that names why this file cannot be judged.
            DecodeLimitError: decoding ran into a limit before there was a verdict.
            DetectorError: a detector failed, or the deadline passed, before there was a verdict.
            ScreeningCancelled: `cancel` was set.
        """
        deadline = time.monotonic() + (deadline_seconds or self.options.total_seconds)
        run = Run(
            look=Look(), options=self.options, clock=Clock(on_stage), deadline=deadline, cancel=cancel, decode_threads=self.decode_threads
        )
        try:
            return self._screen(file, run)
        except DecodeDoubtError:
            return self._screen(file, replace(run, look=Look(), decode_threads=1))

    def _screen(self, file: BinaryIO, run: Run) -> Verdict:
        if self._clear is not None:
            early, seconds = self._first_look(file, run, clear=self._clear)
            if early is not None:
                return early
            run = replace(run, cpu_before=seconds)
        with open_session(file, run) as session:
            info = self._gatherer.look_at(session, run)
            verdict = self._verdict(session, info, run)
        if verdict.verdict != "suspicious" or not self._may_look_again(info):
            return verdict
        try:
            return self._look_again(file, verdict, replace(run, look=Look(), cpu_before=run.cpu_before + session.cpu_seconds))
        except DecodeDoubtError:
            raise  # decoding in one thread has not been tried
        except (MediaError, DecodeLimitError, DetectorError):
            # a suspicion that was measured is worth more than none
            return replace(verdict, warnings=(*verdict.warnings, "LOOKS_FAILED"))

    def _verdict(self, session: DecodeSession, info: VideoInfo, run: Run, **said: Any) -> Verdict:
        """What the look says: in fp32 where bf16 might change the word, and asked again where it is a suspicion."""
        scored = self._score(run)
        verdict = self._judge(session, info, run, scored, **said)
        if not self.engine.is_exact and self._is_close_call(verdict):
            scored = self._score(run, exact=True)
            verdict = self._judge(session, info, run, scored, **said)
        again: dict[int, list[float]] = {}
        while verdict.verdict in ("suspicious", "manipulated") and verdict.deciding_track not in again:
            assert verdict.deciding_track is not None  # a suspicion is one about a face
            again[verdict.deciding_track] = self._ask_again(run, scored, verdict, track_id=verdict.deciding_track)
            verdict = self._judge(session, info, run, scored, again=again, **said)
        return verdict

    def _ask_again(self, run: Run, scored: Scored, verdict: Verdict, *, track_id: int) -> list[float]:
        """P(fake) of a track's window on re-compressed copies of its crops."""

        def rescore(name: str, crops: Sequence[NDArray[np.uint8]]) -> Sequence[float]:
            logits = self.engine.logits(name, crops, deadline=run.deadline, cancel=run.cancel, exact=True, share=run.share)
            return [float(value) for value in logits]

        calibration = self.bundle_set.calibration.under(verdict.video.quantiser)
        scores = [without_shadow(score) for score in scored.scores]
        with run.clock.stage("classify"):
            return asked_again(
                scores,
                scored.crops,
                track_id=track_id,
                num_draws=num_draws(windows_of(scores, calibration.fusion.fuse)),
                calibration=calibration,
                rescore=rescore,
                names=[bundle.name for bundle in self.bundle_set.bundles if not is_track_bundle(bundle)],
            )

    def _may_look_again(self, info: VideoInfo) -> bool:
        looks = self.options.num_looks_undecided
        return looks > 1 and info.num_packets >= looks * self.options.num_frames

    def _look_again(self, file: BinaryIO, undecided: Verdict, run: Run) -> Verdict:
        """Several looks at other frames of an undecided video, each judged as calibrated; the middle one counts. Raises as `screen`."""
        num_looks = self.options.num_looks_undecided
        run = replace(run, options=replace(self.options, num_frames=num_looks * self.options.num_frames, first_look=None))
        with open_session(file, run) as session:
            info = self._gatherer.look_at(session, run)
            looks = [replace(run, look=run.look.part(k, num_looks)) for k in range(num_looks)]
            said = {"sampling": f"{SAMPLING_POLICY}+{num_looks}_looks/2", "num_planned": session.num_planned // num_looks}
            verdicts = [self._verdict(session, info, look, **said) for look in looks]
            order = sorted((v.p_fake, i) for i, v in enumerate(verdicts) if v.p_fake is not None)
            if len(order) < num_looks:
                return undecided
            middle = order[len(order) // 2][1]
            return self._verdict(session, info, looks[middle], looks=[p for p, _ in order], **said)

    @property
    def _clear(self) -> float | None:
        """P(fake) after the first look below which a video is let go; None when every video gets the whole look."""
        is_smaller = self.options.first_look is not None and self.options.first_look < self.options.num_frames
        return self.bundle_set.calibration.first_look_clear if is_smaller else None

    @property
    def _inexactness(self) -> float:
        """What P(fake) may differ by from that of fp32, with room to spare."""
        return 0.0 if self.engine.is_exact else 2 * SCORE_TOLERANCE["bf16"] * max(1.0, self.bundle_set.calibration.steepness)

    def _score(self, run: Run, *, exact: bool = False) -> Scored:
        first = first_crop_bundle(self.bundle_set.bundles)  # not the shadow's: it never decides
        return score_tracks(
            run.look,
            self.engine,
            self._scored,
            sharpness_of=first.name if first is not None else "",
            deadline=run.deadline,
            cancel=run.cancel,
            exact=exact,
            share=run.share,
        )

    def _first_look(self, file: BinaryIO, run: Run, *, clear: float) -> tuple[Verdict | None, float]:
        """The verdict of a few frames if they are clear, else None, and the CPU seconds of decoding them.

        Only these frames are decoded: they cost little more than half of the whole look, and most videos get no further.
        One that does is opened anew, so its verdict is that of a whole look and nothing else. Clear means that every
        frame came, that every face could be followed and that not one crop stands out: a stretch that the whole look would see (five of its
        frames) holds at least one frame of a first look of a quarter of them.
        """
        first = replace(run, look=Look())
        with open_session(file, first) as session:
            info = self._gatherer.look_at(session, first, is_first=True)
            scored = self._score(first)
            verdict = self._judge(
                session, info, first, scored, num_requested=session.num_planned, sampling=f"{SAMPLING_POLICY}+first_look/3"
            )
        all_seen = len(first.look.frames) == session.num_planned
        all_followed = len(scored.scores) == sum(len(kept) for kept in first.look.boxes)
        calibration = self.bundle_set.calibration.under(info.quantiser)
        loudest = loudest_crop([without_shadow(score).logits for score in scored.scores], calibration)
        is_clear = all_seen and all_followed and loudest < clear - self._inexactness
        return (verdict if is_clear and verdict.verdict == "authentic" else None), session.cpu_seconds

    def _judge(
        self,
        session: DecodeSession,
        info: VideoInfo,
        run: Run,
        scored: Scored,
        *,
        num_requested: int | None = None,
        num_planned: int | None = None,
        sampling: str = SAMPLING_POLICY,
        again: Mapping[int, Sequence[float]] = MappingProxyType({}),
        looks: Sequence[float] = (),
    ) -> Verdict:
        with run.clock.stage("aggregate"):
            verdict = judge(
                run.look,
                scored,
                info=info,
                bundle_set=self.bundle_set,
                shadow=self.shadow,
                options=self.options,
                num_requested=num_requested or self.options.num_frames,
                num_planned=session.num_planned if num_planned is None else num_planned,
                sampling_policy=sampling,
                device=self.device,
                warnings=sorted(session.warnings | run.look.warnings),
                stage_seconds=run.clock.seconds,
                decode_cpu=run.cpu_before + session.cpu_seconds,
                again=again,
                looks=looks,
            )
        if session.hardware:
            verdict.extra["hardware_decode"] = session.hardware
        return verdict

    def _is_close_call(self, verdict: Verdict) -> bool:
        """Whether what bf16 may add or take could carry a track over a threshold."""
        calibration = self.bundle_set.calibration
        scores = [track.z for track in verdict.tracks if track.z is not None]
        # as many as can be judged; that number is not known here, and a close call too many only costs time
        corrected = [crowd_corrected(z, num_draws=draws, beta=calibration.beta) for z in scores for draws in range(1, len(scores) + 1)]
        probabilities = [verdict.p_fake, *(calibration.probability(z) for z in (*scores, *corrected))]
        return any(
            abs(probability - threshold) <= self._inexactness
            for probability in probabilities
            if probability is not None
            for threshold in (calibration.t_review, calibration.t_fake)
        )
