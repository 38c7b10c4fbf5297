"""A short clip around the worst moment with boxes and scores drawn in: what an appeal or a colleague can look at without our page.

The decode child opens the upload; FFmpeg only ever sees the raw pictures that we drew. Its command line is compiled by
ffmpeg-python and run here, with limits on time, memory, size and processes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

import cv2
import ffmpeg
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from .errors import DecodeResourceError, DecodeTimeoutError, OptionError
from .options import ScreeningOptions
from .structs import Frame
from .video.decode import DecodeSession

MAX_CLIP_SECONDS: Final = 12.0
_PICTURES_PER_SECOND: Final = 12
_FOLLOWED_SECONDS: Final = 1.6
"""Samples up to this far apart are one stretch, through which a face was followed."""
_NEAR_SECONDS: Final = 0.3
"""How far from a sample its box still stands."""
_ENCODE_SECONDS: Final = 60
_ENCODE_MEMORY_BYTES: Final = 2 * 1024**3
_CLIP_BYTES: Final = 32 * 1024**2
_COLOURS: Final = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""RGB by track number, after Okabe and Ito: told apart without colour vision; the number stands beside the box as well."""

_LIMITS: Final = {
    resource.RLIMIT_CPU: _ENCODE_SECONDS,
    resource.RLIMIT_AS: _ENCODE_MEMORY_BYTES,
    resource.RLIMIT_FSIZE: _CLIP_BYTES,
    resource.RLIMIT_CORE: 0,
}
# A process that limits itself, then becomes FFmpeg: `preexec_fn` is not safe in a process with threads.
_LIMITED: Final = f"import os,resource,sys\nfor w,v in {_LIMITS}.items(): resource.setrlimit(w,(v,v))\nos.execv(sys.argv[1],sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class DrawnTrack:
    """One face over time, as the verdict's evidence has it."""

    track_id: int
    pts_seconds: tuple[float, ...]
    """Ascending."""
    scores: tuple[float, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    """`xyxy` in pixels of the upright full-size frame."""

    def __post_init__(self) -> None:
        if not len(self.pts_seconds) == len(self.scores) == len(self.boxes) > 0:
            raise OptionError(
                f"a drawn track needs one time, score and box each, got {len(self.pts_seconds)}, {len(self.scores)} and {len(self.boxes)}"
            )

    def at(self, seconds: float) -> tuple[NDArray[np.float64], float] | None:
        """The box between two samples and the score of the nearer one, as the player of the review pages shows them.

        None where nobody looked: away from every sample, outside the track and in its gaps.
        """
        times = np.asarray(self.pts_seconds)
        after = int(np.searchsorted(times, seconds))
        around = [i for i in (after - 1, after) if 0 <= i < len(times)]
        nearest = min(around, key=lambda i: abs(times[i] - seconds))
        is_followed = len(around) == 2 and times[after] - times[after - 1] <= _FOLLOWED_SECONDS
        if not is_followed and abs(times[nearest] - seconds) > _NEAR_SECONDS:
            return None
        columns = np.asarray(self.boxes, np.float64)
        box = np.array([np.interp(seconds, times, columns[:, i]) for i in range(4)])
        return box, self.scores[nearest]


def annotated_clip(
    file: BinaryIO,
    tracks: Sequence[DrawnTrack],
    *,
    within_seconds: tuple[float, float],
    threshold: float | None,
    options: ScreeningOptions | None = None,
    cancel: threading.Event | None = None,
) -> bytes:
    """Make an MP4 (H.264, no sound) of a stretch with every track's box, number and score.

    Args:
        file: the video.
        tracks: what is drawn.
        within_seconds: [start, end], at most `MAX_CLIP_SECONDS` long.
        threshold: drawn as a mark on each score bar.
        options: limits of the decode child.
        cancel: set it to stop early.

    Raises:
        MediaError, DecodeLimitError: as in a screening; the encoder's limits are among them.
    """
    start, end = within_seconds
    if not 0 < end - start <= MAX_CLIP_SECONDS:
        raise OptionError(f"an annotated clip lasts up to {MAX_CLIP_SECONDS:g} s, got {end - start:g}")
    wanted = max(2, round((end - start) * _PICTURES_PER_SECOND))
    options = replace(options or ScreeningOptions(), num_frames=wanted, within_seconds=within_seconds)
    pictures: list[NDArray[np.uint8]] = []
    with DecodeSession(file, options=options, cancel=cancel) as session:
        session.open()
        more = True
        while more:
            frames, more = session.next_frames(wanted)
            pictures += [_drawn(frame, tracks, threshold=threshold) for frame in frames]
            if more:
                session.release()
    rate = max(1.0, min(float(_PICTURES_PER_SECOND), len(pictures) / (end - start)))
    return _encoded(pictures, rate=rate)


def _drawn(frame: Frame, tracks: Sequence[DrawnTrack], *, threshold: float | None) -> NDArray[np.uint8]:
    image = frame.image_hwc.copy()
    height = image.shape[0]
    size = max(0.5, height / 720)
    for track in tracks:
        here = track.at(frame.pts_seconds)
        if here is None:
            continue
        (x0, y0, x1, y1), score = (here[0] / frame.scale).round().astype(int), here[1]
        colour = _COLOURS[(track.track_id - 1) % len(_COLOURS)]
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
        _label(image, f"face {track.track_id}: {score:.2f}", (x0, max(y0 - 6, round(18 * size))), size=size, colour=colour)
        _score_bar(image, (x0, x1, min(y1 + 4, height - 6)), score=score, threshold=threshold, colour=colour)
    _label(image, f"{frame.pts_seconds:.2f} s", (6, height - 8), size=size, colour=(255, 255, 255))
    return image


def _label(image: NDArray[np.uint8], text: str, origin: tuple[int, int], *, size: float, colour: tuple[int, int, int]) -> None:
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x, y = origin
    cv2.rectangle(image, (x - 2, y - height - 3), (x + width + 2, y + below), (0, 0, 0), -1)  # readable on any picture
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _score_bar(
    image: NDArray[np.uint8], place: tuple[int, int, int], *, score: float, threshold: float | None, colour: tuple[int, int, int]
) -> None:
    x0, x1, y = place
    cv2.rectangle(image, (x0, y), (x1, y + 5), (0, 0, 0), -1)
    cv2.rectangle(image, (x0, y), (x0 + round((x1 - x0) * score), y + 5), colour, -1)
    if threshold is not None:
        mark = x0 + round((x1 - x0) * threshold)
        cv2.line(image, (mark, y - 2), (mark, y + 7), (255, 255, 255), 1)


def _encoded(pictures: Sequence[NDArray[np.uint8]], *, rate: float) -> bytes:
    """The pictures as an MP4 that a browser plays from its first bytes."""
    height, width = pictures[0].shape[0] // 2 * 2, pictures[0].shape[1] // 2 * 2  # 4:2:0 wants even sides
    with tempfile.NamedTemporaryFile(suffix=".mp4") as target:
        command: list[str] = (
            ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=f"{rate:.4f}")
            .output(
                target.name,
                vcodec="libx264",
                pix_fmt="yuv420p",
                preset="veryfast",
                crf=23,
                threads=1,
                movflags="+faststart",
                loglevel="error",
            )
            .overwrite_output()
            .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
        )
        # the size may change within a video, that of the clip cannot
        fitted = [each if each.shape == pictures[0].shape else cv2.resize(each, pictures[0].shape[1::-1]) for each in pictures]
        payload = b"".join(np.ascontiguousarray(picture[:height, :width]).tobytes() for picture in fitted)
        _run_encoder(command, payload)
        return target.read()


def _run_encoder(command: Sequence[str], payload: bytes) -> None:
    nothing: dict[str, str] = {}
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _LIMITED, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=nothing,
        start_new_session=True,
    ) as encoder:
        try:
            _out, stderr = encoder.communicate(payload, timeout=_ENCODE_SECONDS)
        except subprocess.TimeoutExpired as err:
            encoder.kill()
            raise DecodeTimeoutError(f"encoding the annotated clip took longer than {_ENCODE_SECONDS} s and was stopped") from err
    if encoder.returncode != 0:
        tail = stderr.decode(errors="replace")[-300:]
        raise DecodeResourceError(f"tried to encode {len(payload)} bytes of pictures, ffmpeg ended with {encoder.returncode}: {tail}")
