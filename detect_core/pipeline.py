"""The only place that wires the stages together: an open file in, one explained verdict out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from .aggregate import STRATEGY, TrackWindow, best_window, of_track, quality_weight
from .batching import BatchReport
from .bundle import Bundle
from .calibration import DEFAULT_SET, BundleSet, load_bundle_set
from .detectors import PrecisionWish, is_track_bundle
from .detectors.runtime import SCORE_TOLERANCE
from .engine import Engine
from .errors import BundleMismatchError
from .evidence import mean_logits, suspicious_segments, track_score, worst_moments
from .explain import crop_request
from .faces.detect import FaceDetector, FoundFace, boxes_in_full_size
from .faces.sparse import STRIDE
from .faces.track import follow
from .options import ScreeningOptions
from .policy import POLICY, Decision, FaceCounts, decide
from .structs import CropScore, DetectorReport, FaceBox, Frame, Sampling, Verdict, VideoInfo
from .versions import runtime_versions
from .video.decode import CropRequest, DecodeSession
from .video.keeper import keeper
from .video.sample import POLICY as SAMPLING_POLICY

_FIRST_WINDOW: Final = 1 + 2 * STRIDE
_WINDOW: Final = 2 * STRIDE
"""Frames that are looked at together while the next are decoded; each window ends with a frame that is searched whole."""

OnStage = Callable[[str, float, float], None]
"""(stage, wall seconds, cpu seconds of the calling thread) at the end of each stage."""


@dataclass(slots=True)
class _Look:
    """What has been gathered about one video so far."""

    frames: list[Frame] = field(default_factory=list)
    boxes: list[list[FaceBox]] = field(default_factory=list)
    crops: dict[tuple[int, int], dict[str, tuple[NDArray[np.uint8], float]]] = field(default_factory=dict)
    """(frame_id, box number) -> detector name -> (picture, sharpness)."""
    logits: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    """(frame_id, box number) -> detector name -> logit, of the detectors that score single crops."""
    waited: dict[str, float] = field(default_factory=dict)
    """Seconds that were spent waiting for each of them after the last frame."""
    found_last: list[FoundFace] | None = None
    """What the face detector found on the newest frame."""
    num_dropped: int = 0


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
        on_batch: Callable[[BatchReport], None] | None = None,
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
            on_batch: called after every batch, for metrics.

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
        self.engine = Engine(
            bundle_set, device=device, precision=precision, compiled=compiled, face_detector=face_detector, on_batch=on_batch
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
        on_batch: Callable[[BatchReport], None] | None = None,
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
            on_batch=on_batch,
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
            DecodeLimitError: decoding ran into a limit.
            DetectorError: a detector failed, or the deadline passed.
            ScreeningCancelled: `cancel` was set.
        """
        deadline = time.monotonic() + (deadline_seconds or self.options.total_seconds)
        clock = _Clock(on_stage)
        look = _Look()
        with DecodeSession(file, options=self.options, cancel=cancel) as session:
            with clock.stage("decode"):
                info = session.open()
            self._gather(session, look, clock, deadline=deadline, cancel=cancel)
            warnings = sorted(session.warnings)
            decode_cpu = session.cpu_seconds
        with clock.stage("classify"):
            scores, pictures, detector_seconds = self._score(look, deadline=deadline, cancel=cancel)
        with clock.stage("aggregate"):
            verdict = self._judge(info, look, scores, pictures, detector_seconds, warnings=warnings, clock=clock, decode_cpu=decode_cpu)
        if self.engine.is_exact or not self._is_close_call(verdict):
            return verdict
        with clock.stage("classify"):
            scores, pictures, detector_seconds = self._score(look, deadline=deadline, cancel=cancel, exact=True)
        with clock.stage("aggregate"):
            return self._judge(
                info, look, scores, pictures, detector_seconds, warnings=warnings, clock=clock, decode_cpu=decode_cpu, exact=True
            )

    def _gather(self, session: DecodeSession, look: _Look, clock: _Clock, *, deadline: float, cancel: threading.Event | None) -> None:
        """Decode, find faces, cut and score, window by window: while one is being looked at, the next is being decoded."""
        waits: list[tuple[list[tuple[int, int]], str, Callable[[], NDArray[np.float32]]]] = []
        with clock.stage("decode"):
            frames, more = session.next_frames(_FIRST_WINDOW)
        while frames:
            if more:
                left = self.options.num_frames - len(look.frames) - len(frames)
                session.ask_frames(left if left <= _FIRST_WINDOW else _WINDOW)
            with clock.stage("detect"):
                boxes = self._find_faces(frames, look, deadline=deadline, cancel=cancel)
            following: list[Frame] = []
            if more:
                with clock.stage("decode"):
                    following, more = session.take_frames()
            with clock.stage("crop"):
                self._cut(session, frames, boxes, look)
                session.release(up_to=frames[-1].frame_id)
            keys = [(frame.frame_id, number) for frame, kept in zip(frames, boxes, strict=True) for number in range(len(kept))]
            for bundle in self.bundle_set.bundles:
                if not is_track_bundle(bundle):
                    crops = [look.crops[key][bundle.name][0] for key in keys]
                    waits.append((keys, bundle.name, self.engine.start_logits(bundle.name, crops, deadline=deadline, cancel=cancel)))
            frames = following
        with clock.stage("classify"):
            for keys, name, wait in waits:
                started = time.monotonic()
                for key, value in zip(keys, wait(), strict=True):
                    look.logits.setdefault(key, {})[name] = float(value)
                look.waited[name] = look.waited.get(name, 0.0) + time.monotonic() - started

    def _is_close_call(self, verdict: Verdict) -> bool:
        """Whether what bf16 may add or take could carry a track over a threshold."""
        calibration = self.bundle_set.calibration
        probabilities = [verdict.p_fake, *(calibration.probability(track.z) for track in verdict.tracks if track.z is not None)]
        margin = 2 * SCORE_TOLERANCE["bf16"]
        return any(
            abs(probability - threshold) <= margin
            for probability in probabilities
            if probability is not None
            for threshold in (calibration.t_review, calibration.t_fake)
        )

    def _find_faces(self, frames: Sequence[Frame], look: _Look, *, deadline: float, cancel: threading.Event | None) -> list[list[FaceBox]]:
        if not frames:
            return []
        options = self.options
        # a face of min_face_px may shrink below what the cascade can see: then it is asked for its smallest
        min_small_px = max(options.min_face_px / frames[0].scale, 20.0)
        found = self.engine.find_faces(
            [frame.image_hwc for frame in frames], min_face_px=min_small_px, deadline=deadline, cancel=cancel, before=look.found_last
        )
        look.found_last = found[-1]
        boxes = [
            boxes_in_full_size(
                frame, faces, min_face_px=options.min_face_px, min_confidence=options.min_confidence, max_faces=options.max_faces_per_frame
            )
            for frame, faces in zip(frames, found, strict=True)
        ]
        look.num_dropped += sum(len(faces) for faces in found) - sum(len(kept) for kept in boxes)
        return boxes

    def _cut(self, session: DecodeSession, frames: Sequence[Frame], boxes: Sequence[Sequence[FaceBox]], look: _Look) -> None:
        keys: list[tuple[int, int, str]] = []
        requests: list[CropRequest] = []
        for frame, kept in zip(frames, boxes, strict=True):
            for number, box in enumerate(kept):
                for bundle in self.bundle_set.bundles:
                    keys.append((frame.frame_id, number, bundle.name))
                    requests.append(crop_request(box.frame_id, box.xyxy, bundle.crop))
        for (frame_id, number, name), cut in zip(keys, session.cut(requests), strict=True):
            look.crops.setdefault((frame_id, number), {})[name] = cut
        look.frames += frames
        look.boxes += [list(kept) for kept in boxes]

    def _score(
        self, look: _Look, *, deadline: float, cancel: threading.Event | None, exact: bool = False
    ) -> tuple[list[CropScore], dict[tuple[int, float], NDArray[np.uint8]], dict[str, float]]:
        """Score the crops of every track that is long enough to say something."""
        number_of = {id(box): (box.frame_id, number) for kept in look.boxes for number, box in enumerate(kept)}
        members = [
            (track.track_id, box, look.crops[number_of[id(box)]])
            for track in follow(look.frames, look.boxes)
            if len(track.boxes) >= 3
            for box in track.boxes
        ]
        logits: list[dict[str, float]] = [{} for _ in members]
        seconds: dict[str, float] = {}
        for bundle in self.bundle_set.bundles:
            started = time.monotonic()
            crops = [cuts[bundle.name][0] for _, _, cuts in members]
            if is_track_bundle(bundle):
                values = self._track_logits(bundle, [(track_id, box) for track_id, box, _ in members], crops)
            elif exact:
                scored = self.engine.logits(bundle.name, crops, deadline=deadline, cancel=cancel, exact=True)
                values = {i: float(value) for i, value in enumerate(scored)}
            else:
                values = {i: look.logits[number_of[id(box)]][bundle.name] for i, (_, box, _) in enumerate(members)}
            for i, value in values.items():
                logits[i][bundle.name] = value
            seconds[bundle.name] = look.waited.get(bundle.name, 0.0) + time.monotonic() - started
        first = self.bundle_set.bundles[0].name if self.bundle_set.bundles else ""
        scores = [
            CropScore(
                track_id=track_id,
                pts_seconds=box.pts_seconds,
                logits=logits[i],
                weight=quality_weight(confidence=box.confidence, side_px=box.side_px, sharpness=cuts[first][1]),
                side_px=box.side_px,
                xyxy=(float(box.xyxy[0]), float(box.xyxy[1]), float(box.xyxy[2]), float(box.xyxy[3])),
            )
            for i, (track_id, box, cuts) in enumerate(members)
        ]
        pictures = {(track_id, box.pts_seconds): cuts[first][0] for track_id, box, cuts in members}
        return scores, pictures, seconds

    def _track_logits(self, bundle: Bundle, faces: Sequence[tuple[int, FaceBox]], crops: Sequence[NDArray[np.uint8]]) -> dict[int, float]:
        """Logits of a detector of tracks by number of the crop; crops of tracks that are too short for it are left out."""
        out: dict[int, float] = {}
        for track_id in sorted({track_id for track_id, _ in faces}):
            members = [i for i, (other, _) in enumerate(faces) if other == track_id]
            points = [faces[i][1].landmarks_in_crop(bundle.crop.margin) for i in members]
            values = self.engine.track_logits(bundle.name, [crops[i] for i in members], points)
            if values is not None:
                out |= {i: float(value) for i, value in zip(members, values, strict=True)}
        return out

    def _judge(
        self,
        info: VideoInfo,
        look: _Look,
        scores: list[CropScore],
        pictures: dict[tuple[int, float], NDArray[np.uint8]],
        detector_seconds: dict[str, float],
        *,
        warnings: list[str],
        clock: _Clock,
        decode_cpu: float,
        exact: bool = False,
    ) -> Verdict:
        calibration = self.bundle_set.calibration
        tracks = {track_id: of_track(scores, track_id) for track_id in sorted({score.track_id for score in scores})}
        windows = {
            track_id: best_window([calibration.fusion.fuse(s.logits) for s in track], [s.weight for s in track], track_id=track_id)
            for track_id, track in tracks.items()
        }
        judged: list[TrackWindow] = [window for window in windows.values() if window is not None]
        decision = decide(
            judged,
            counts=FaceCounts(
                num_frames=len(look.frames),
                num_frames_with_face=sum(bool(kept) for kept in look.boxes),
                num_small_or_unsure=look.num_dropped,
                min_face_px=self.options.min_face_px,
            ),
            num_crops=sum(window.num_crops for window in judged),
            calibration=calibration,
            track_logits={window.track_id: mean_logits(tracks[window.track_id], window) for window in judged},
        )
        if len(look.frames) < 0.8 * min(self.options.num_frames, info.num_packets) and "PARTIAL_DECODE" not in warnings:
            warnings = [*warnings, "PARTIAL_DECODE"]
        return Verdict(
            verdict=decision.verdict,
            p_fake=decision.p_fake,
            reason_codes=decision.reason_codes,
            sentence=decision.sentence,
            video=info,
            sampling=Sampling(
                policy=SAMPLING_POLICY,
                num_requested=self.options.num_frames,
                num_decoded=len(look.frames),
                num_faces=sum(len(kept) for kept in look.boxes),
                pts_seconds=tuple(round(frame.pts_seconds, 6) for frame in look.frames),
            ),
            tracks=tuple(track_score(track, windows[track_id], calibration=calibration) for track_id, track in tracks.items()),
            segments=tuple(s for track in tracks.values() for s in suspicious_segments(track, calibration=calibration)),
            detectors=self._reports(tracks, windows, decision, detector_seconds, exact=exact),
            evidence=worst_moments(scores, calibration=calibration, pictures=pictures, thumbnails=self.options.thumbnails),
            warnings=tuple(warnings),
            bundle_set=self.bundle_set.label,
            policy=POLICY,
            t_review=calibration.t_review,
            t_fake=calibration.t_fake,
            calibration=calibration.name,
            stage_seconds={name: round(seconds, 4) for name, seconds in clock.seconds.items()},
            cpu_seconds=round(decode_cpu, 4),
            extra={"runtime": runtime_versions(self.device)},
        )

    def _reports(
        self,
        tracks: dict[int, list[CropScore]],
        windows: dict[int, TrackWindow | None],
        decision: Decision,
        seconds: dict[str, float],
        *,
        exact: bool,
    ) -> tuple[DetectorReport, ...]:
        """What each detector said about the deciding track; optional detectors without a bundle are listed, not scored."""
        window = windows.get(decision.track_id) if decision.track_id is not None else None
        means = mean_logits(tracks[window.track_id], window) if window is not None else {}
        reports = [
            DetectorReport(
                name=bundle.name,
                version=bundle.version,
                sha256=bundle.sha256,
                state="scored" if bundle.name in means else "no_crops",
                p_fake=float(1.0 / (1.0 + np.exp(-np.clip(means[bundle.name], -40, 40)))) if bundle.name in means else None,
                seconds=round(seconds.get(bundle.name, 0.0), 4),
                precision="fp32" if exact else self.engine.precision(bundle.name),
            )
            for bundle in self.bundle_set.bundles
        ]
        reports += [DetectorReport(name=name, version="", sha256=None, state="not_loaded") for name in self.bundle_set.missing]
        return tuple(reports)
