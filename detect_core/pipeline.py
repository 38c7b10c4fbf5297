"""The only place that wires the stages together: an open file in, one explained verdict out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from .aggregate import STRATEGY, crowd_corrected, num_draws, windows_of
from .batching import BatchReport, Pending, Share
from .calibration import DEFAULT_SET, BundleSet, load_bundle_set
from .detectors import PrecisionWish, is_track_bundle
from .detectors.runtime import SCORE_TOLERANCE
from .engine import Engine
from .errors import BundleMismatchError, DecodeDoubtError, DecodeLimitError, DetectorError, MediaError
from .explain import crop_request
from .faces.detect import SMALLEST_FACE_PX, FaceDetector, boxes_in_full_size
from .faces.sparse import STRIDE
from .familiarity import first_crop_bundle
from .judging import Look, Scored, judge, loudest_crop
from .options import ScreeningOptions
from .scoring import score_tracks
from .second_opinion import asked_again
from .shadow import with_shadow, without_shadow
from .structs import FaceBox, Frame, Verdict, VideoInfo
from .video.decode import CropRequest, DecodeSession
from .video.keeper import keeper
from .video.sample import POLICY as SAMPLING_POLICY

_FIRST_WINDOW: Final = 1 + STRIDE
_WINDOW: Final = 5 * STRIDE
"""Frames that are looked at together while the next are decoded: few at first, so that work begins early, then a batch of the face
search. Each window but the last ends with a frame that is searched whole."""

OnStage = Callable[[str, float, float], None]
"""(stage, wall seconds, cpu seconds of the calling thread) at the end of each stage."""


class _Clock:
    """Wall and CPU seconds per stage."""

    def __init__(self, on_stage: OnStage | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        wall, cpu = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            spent = time.monotonic() - wall
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            if self._on_stage is not None:
                self._on_stage(name, spent, time.thread_time() - cpu)


@dataclass(frozen=True, slots=True)
class _Run:
    """One screening under way."""

    look: Look
    clock: _Clock
    deadline: float
    cancel: threading.Event | None
    share: Share = field(default_factory=Share)
    """Its part of the device, over all its looks."""
    decode_threads: int = 1
    cpu_before: float = 0.0
    """CPU seconds of decoding that an earlier look at the same video cost."""


def _session(file: BinaryIO, options: ScreeningOptions, run: _Run) -> DecodeSession:
    return DecodeSession(file, options=options, cancel=run.cancel, threads=run.decode_threads)


_Wait = tuple[list[tuple[int, int]], str, Pending]
"""(frame_id, box number) of queued crops, the detector's name, their logits to come."""


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
        run = _Run(look=Look(), clock=_Clock(on_stage), deadline=deadline, cancel=cancel, decode_threads=self.decode_threads)
        try:
            return self._screen(file, run)
        except DecodeDoubtError:
            return self._screen(file, replace(run, look=Look(), decode_threads=1))

    def _screen(self, file: BinaryIO, run: _Run) -> Verdict:
        if self._clear is not None:
            early, seconds = self._first_look(file, run, clear=self._clear)
            if early is not None:
                return early
            run = replace(run, cpu_before=seconds)
        with _session(file, self.options, run) as session:
            info = self._look_at(session, run)
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

    def _verdict(self, session: DecodeSession, info: VideoInfo, run: _Run, **said: Any) -> Verdict:
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

    def _ask_again(self, run: _Run, scored: Scored, verdict: Verdict, *, track_id: int) -> list[float]:
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

    def _look_again(self, file: BinaryIO, undecided: Verdict, run: _Run) -> Verdict:
        """Several looks at other frames of an undecided video, each judged as calibrated; the middle one counts. Raises as `screen`."""
        num_looks = self.options.num_looks_undecided
        more = replace(self.options, num_frames=num_looks * self.options.num_frames, first_look=None)
        with _session(file, more, run) as session:
            info = self._look_at(session, run, num_frames=more.num_frames)
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

    def _score(self, run: _Run, *, exact: bool = False) -> Scored:
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

    def _first_look(self, file: BinaryIO, run: _Run, *, clear: float) -> tuple[Verdict | None, float]:
        """The verdict of a few frames if they are clear, else None, and the CPU seconds of decoding them.

        Only these frames are decoded: they cost little more than half of the whole look, and most videos get no further.
        One that does is opened anew, so its verdict is that of a whole look and nothing else. Clear means that every
        frame came, that every face could be followed and that not one crop stands out: a stretch that the whole look would see (five of its
        frames) holds at least one frame of a first look of a quarter of them.
        """
        first = replace(run, look=Look())
        with _session(file, self.options, run) as session:
            info = self._look_at(session, first, num_frames=self.options.first_look, is_first=True)
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

    def _look_at(self, session: DecodeSession, run: _Run, *, num_frames: int | None = None, is_first: bool = False) -> VideoInfo:
        """Open the video and gather what there is to see."""
        with run.clock.stage("decode"):
            info = session.open(first_look=self.options.first_look if is_first else None)
            # in threads the few frames of a first look come soon enough to be searched in one batch
            at_once = self.options.first_look if is_first and session.in_threads else None
            frames, more = session.next_frames(at_once or _FIRST_WINDOW)
        self._gather(session, frames, more, run, num_frames=num_frames)
        return replace(info, quantiser=run.look.quantiser(info.quantiser))

    def _gather(self, session: DecodeSession, frames: list[Frame], more: bool, run: _Run, *, num_frames: int | None = None) -> None:
        """Decode, find faces, cut and score, window by window: while one is being looked at, the next is being decoded."""
        waits: list[_Wait] = []
        try:
            while frames:
                if more:
                    left = (num_frames or self.options.num_frames) - len(run.look.frames) - len(frames)
                    session.ask_frames(left if 0 < left <= _WINDOW + 1 else _WINDOW)
                with run.clock.stage("detect"):
                    boxes = self._find_faces(frames, run)
                following: list[Frame] = []
                if more:
                    with run.clock.stage("decode"):
                        following, more = session.take_frames()
                with run.clock.stage("crop"):
                    self._cut(session, frames, boxes, run.look)
                    session.release(up_to=frames[-1].frame_id)
                self._start_scoring(frames, boxes, run, waits)
                frames = following
            self._finish_scoring(waits, run)
        except BaseException:
            for _, _, wait in waits:
                wait.abandon()  # the device is there for the other videos
            raise

    def _start_scoring(self, frames: Sequence[Frame], boxes: Sequence[Sequence[FaceBox]], run: _Run, waits: list[_Wait]) -> None:
        """Queue the crops of `frames` for every detector of single crops; what is queued is added to `waits`."""
        keys = [(frame.frame_id, number) for frame, kept in zip(frames, boxes, strict=True) for number in range(len(kept))]
        for bundle in self._scored:
            if not is_track_bundle(bundle):
                crops = [run.look.crops[key][bundle.name][0] for key in keys]
                wait = self.engine.start_logits(bundle.name, crops, deadline=run.deadline, cancel=run.cancel, share=run.share)
                waits.append((keys, bundle.name, wait))

    def _finish_scoring(self, waits: Sequence[_Wait], run: _Run) -> None:
        look = run.look
        with run.clock.stage("classify"):
            for keys, name, wait in waits:
                started = time.monotonic()
                for key, value in zip(keys, wait(), strict=True):
                    look.logits.setdefault(key, {})[name] = float(value)
                look.waited[name] = look.waited.get(name, 0.0) + time.monotonic() - started

    def _judge(
        self,
        session: DecodeSession,
        info: VideoInfo,
        run: _Run,
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

    def _find_faces(self, frames: Sequence[Frame], run: _Run) -> list[list[FaceBox]]:
        if not frames:
            return []
        options, look = self.options, run.look
        # a face of min_face_px may shrink below what the face search sees: then it is asked for its smallest
        min_small_px = max(options.min_face_px / frames[0].scale, SMALLEST_FACE_PX)
        look.min_face_px = min_small_px * frames[0].scale
        found = self.engine.find_faces(
            [frame.image_hwc for frame in frames],
            min_face_px=min_small_px,
            deadline=run.deadline,
            cancel=run.cancel,
            before=look.found_last,
            share=run.share,
        )
        look.found_last = found[-1]
        boxes = [
            boxes_in_full_size(
                frame, faces, min_face_px=options.min_face_px, min_confidence=options.min_confidence, max_faces=options.max_faces_per_frame
            )
            for frame, faces in zip(frames, found, strict=True)
        ]
        look.num_dropped += sum(len(faces) for faces in found) - sum(len(kept) for kept in boxes)
        limit = options.max_faces_per_frame
        if any(
            sum(face.confidence >= options.min_confidence for face in faces) > limit == len(kept)
            for faces, kept in zip(found, boxes, strict=True)
        ):
            look.warnings.add("FACES_LEFT_OUT")
        return boxes

    def _cut(self, session: DecodeSession, frames: Sequence[Frame], boxes: Sequence[Sequence[FaceBox]], look: Look) -> None:
        keys: list[tuple[int, int, str]] = []
        requests: list[CropRequest] = []
        for frame, kept in zip(frames, boxes, strict=True):
            for number, box in enumerate(kept):
                for bundle in self._scored:
                    keys.append((frame.frame_id, number, bundle.name))
                    requests.append(crop_request(box.frame_id, box.xyxy, bundle.crop))
        for (frame_id, number, name), cut in zip(keys, session.cut(requests), strict=True):
            look.crops.setdefault((frame_id, number), {})[name] = cut
        look.frames += frames
        look.boxes += [list(kept) for kept in boxes]
