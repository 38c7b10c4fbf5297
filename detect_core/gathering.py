"""The first half of a screening: decode, find faces, cut them out and queue the crops, each stage while the others run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

from .batching import Pending, Share
from .bundle import Bundle
from .detectors import is_track_bundle
from .engine import Engine
from .explain import crop_request
from .faces.detect import SMALLEST_FACE_PX, boxes_in_full_size
from .faces.sparse import STRIDE
from .judging import Look
from .options import ScreeningOptions
from .structs import FaceBox, Frame, VideoInfo
from .video.decode import CropRequest, DecodeSession

_FIRST_WINDOW: Final = 1 + STRIDE
_WINDOW: Final = 5 * STRIDE
"""Frames that are looked at together while the next are decoded: few at first, so that work begins early, then a batch of the face
search. Each window but the last ends with a frame that is searched whole."""

OnStage = Callable[[str, float, float], None]
"""(stage, wall seconds, cpu seconds of the calling thread) at the end of each stage."""


class Clock:
    """Wall and CPU seconds per stage."""

    def __init__(self, on_stage: OnStage | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time until the block ends."""
        wall, cpu = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            spent = time.monotonic() - wall
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            if self._on_stage is not None:
                self._on_stage(name, spent, time.thread_time() - cpu)


@dataclass(frozen=True, slots=True)
class Run:
    """One screening under way."""

    look: Look
    options: ScreeningOptions
    clock: Clock
    deadline: float
    cancel: threading.Event | None
    share: Share = field(default_factory=Share)
    """Its part of the device, over all its looks."""
    decode_threads: int = 1
    cpu_before: float = 0.0
    """CPU seconds of decoding that an earlier look at the same video cost."""


def open_session(file: BinaryIO, run: Run) -> DecodeSession:
    """The decoding of one look; it is opened by `Gatherer.look_at`."""
    return DecodeSession(file, options=run.options, cancel=run.cancel, threads=run.decode_threads)


_Wait = tuple[list[tuple[int, int]], str, Pending]
"""(frame_id, box number) of queued crops, the detector's name, their logits to come."""


class Gatherer:
    """Looks at videos: frames, faces, crops, and the logits of detectors of single crops."""

    def __init__(self, engine: Engine, bundles: Sequence[Bundle]) -> None:
        self._engine = engine
        self._bundles = bundles

    def look_at(self, session: DecodeSession, run: Run, *, is_first: bool = False) -> VideoInfo:
        """Open the video and put into the run's look what there is to see.

        Args:
            session: of this run, not opened yet.
            run: its look is empty.
            is_first: take the options' `first_look` only.

        Raises:
            MediaError, DecodeLimitError, DetectorError, ScreeningCancelled: as `Screener.screen` says.
        """
        first_look = run.options.first_look if is_first else None
        with run.clock.stage("decode"):
            info = session.open(first_look=first_look)
            # in threads the few frames of a first look come soon enough to be searched in one batch
            frames, more = session.next_frames(first_look if first_look and session.in_threads else _FIRST_WINDOW)
        self._gather(session, frames, more, run, num_frames=first_look or run.options.num_frames)
        return replace(info, quantiser=run.look.quantiser(info.quantiser))

    def _gather(self, session: DecodeSession, frames: list[Frame], more: bool, run: Run, *, num_frames: int) -> None:
        """Decode, find faces, cut and score, window by window: while one is being looked at, the next is being decoded."""
        waits: list[_Wait] = []
        try:
            while frames:
                if more:
                    left = num_frames - len(run.look.frames) - len(frames)
                    session.ask_frames(left if 0 < left <= _WINDOW + 1 else _WINDOW)
                with run.clock.stage("detect"):
                    boxes = self.find_faces(frames, run)
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

    def _start_scoring(self, frames: Sequence[Frame], boxes: Sequence[Sequence[FaceBox]], run: Run, waits: list[_Wait]) -> None:
        """Queue the crops of `frames` for every detector of single crops; what is queued is added to `waits`."""
        keys = [(frame.frame_id, number) for frame, kept in zip(frames, boxes, strict=True) for number in range(len(kept))]
        for bundle in self._bundles:
            if not is_track_bundle(bundle):
                crops = [run.look.crops[key][bundle.name][0] for key in keys]
                wait = self._engine.start_logits(bundle.name, crops, deadline=run.deadline, cancel=run.cancel, share=run.share)
                waits.append((keys, bundle.name, wait))

    def _finish_scoring(self, waits: Sequence[_Wait], run: Run) -> None:
        look = run.look
        with run.clock.stage("classify"):
            for keys, name, wait in waits:
                started = time.monotonic()
                for key, value in zip(keys, wait(), strict=True):
                    look.logits.setdefault(key, {})[name] = float(value)
                look.waited[name] = look.waited.get(name, 0.0) + time.monotonic() - started

    def find_faces(self, frames: Sequence[Frame], run: Run) -> list[list[FaceBox]]:
        """The faces of frames that follow each other, in full-size pixels; what is left out is noted in the run's look."""
        if not frames:
            return []
        options, look = run.options, run.look
        # a face of min_face_px may shrink below what the face search sees: then it is asked for its smallest
        min_small_px = max(options.min_face_px / frames[0].scale, SMALLEST_FACE_PX)
        look.min_face_px = min_small_px * frames[0].scale
        found = self._engine.find_faces(
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
                for bundle in self._bundles:
                    keys.append((frame.frame_id, number, bundle.name))
                    requests.append(crop_request(box.frame_id, box.xyxy, bundle.crop))
        for (frame_id, number, name), cut in zip(keys, session.cut(requests), strict=True):
            look.crops.setdefault((frame_id, number), {})[name] = cut
        look.frames += frames
        look.boxes += [list(kept) for kept in boxes]
