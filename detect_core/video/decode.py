"""Client of one decode child: sampled frames in, crops on request, deadlines kept, the child killed when it must be."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..errors import (
    DecodeDoubtError,
    DecodeProtocolError,
    DecoderCrashError,
    DecodeResourceError,
    DecodeTimeoutError,
    DetectCoreError,
    EmptyInputError,
    FileTooLargeError,
    ScreeningCancelled,
)
from ..options import HARDWARE_OUTCOMES, ScreeningOptions
from ..structs import Frame, VideoInfo
from . import wire
from .keeper import ChildHandle, NurseryKeeper, keeper

SHARED_BYTES: Final = 48 * 1024 * 1024
"""Shared memory of one decode: 60 small pictures of 640x360, or 600 crops of 160 px. Pages are used on touch only."""

_CRASH_SIGNALS: Final = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}
_MISFITS: Final = (KeyError, TypeError, ValueError, OverflowError)
"""What an answer raises that is JSON and not what the protocol says; the last one is of numbers that are not finite."""
_MAX_WHOLE: Final = 2**53
"""Of a count: arithmetic and JSON keep such numbers exact."""
_MAX_LETTERS: Final = 500
"""Of what the child says in words."""


@dataclass(frozen=True, slots=True)
class CropRequest:
    """A square wanted from a held full-size picture."""

    frame_id: int
    centre_xy: tuple[float, float]
    """Pixels of the upright full-size picture."""
    side: float
    """Side of the square in those pixels."""
    size_px: int
    """Side of the result."""
    native: bool = False
    """Cut `size_px` source pixels, no resampling."""


class DecodeSession:
    """One video in one decode child. Use as a context manager; not thread-safe."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        options: ScreeningOptions,
        cancel: threading.Event | None = None,
        nursery: NurseryKeeper | None = None,
        threads: int = 1,
    ) -> None:
        """Start a child for `file`.

        Args:
            file: an open file with a descriptor; the child gets a copy of the descriptor and nothing else.
            options: sampling and limits.
            cancel: checked ten times a second while waiting.
            nursery: where children come from; the process-wide one by default.
            threads: of the decoder, for codecs that are exact in several and where the sandbox can let threads and no
                processes be started. With more than one every method may raise `DecodeDoubtError`: start anew with one.

        Raises:
            EmptyInputError: the file holds no bytes.
            FileTooLargeError: it holds more bytes than the limit.
        """
        limits = options.decode
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise EmptyInputError("the file is empty (0 bytes); upload it again")
        if size > limits.file_bytes:
            raise FileTooLargeError(f"the file holds {size} bytes, the limit is {limits.file_bytes}; upload a smaller rendition")
        self._options = options
        self._cancel = cancel
        self._threads = threads
        self._spent_seconds = 0.0
        self.sandbox: dict[str, Any] = {}
        self.num_packets_decoded = 0
        self.num_planned = 0
        self._num_asked = 0
        self._num_frames = 0
        self._last_pts_seconds = -math.inf
        self.cpu_seconds = 0.0
        self.peak_rss_bytes = 0
        self.warnings: set[str] = set()
        self.hardware = ""
        self.in_threads = False
        shm_fd = os.memfd_create("veriframe-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(shm_fd, SHARED_BYTES)
            # without the seals a hostile child could shrink the file and kill the worker with SIGBUS
            fcntl.fcntl(shm_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._shm = mmap.mmap(shm_fd, SHARED_BYTES, prot=mmap.PROT_READ)
            self._child: ChildHandle = (nursery or keeper()).spawn(video_fd=file.fileno(), shm_fd=shm_fd, limits=limits, threads=threads)
        finally:
            os.close(shm_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child and free the shared memory."""
        self._child.kill()
        self._child.close()
        self._shm.close()

    def open(self, *, first_look: int | None = None) -> VideoInfo:
        """Measure the video.

        Args:
            first_look: decode only about this many of the sampled frames, evenly spread over them; None: all.

        Raises:
            MediaError: a subclass that names why this file is refused.
            DecodeLimitError: the child ran into a limit.
        """
        answer = self._ask(
            {
                "op": "open",
                "limits": asdict(self._options.decode),
                "num_frames": self._options.num_frames,
                "first_look": first_look,
                "threads": self._threads,
                "within_seconds": self._options.within_seconds,
                "small_long_side_px": self._options.small_long_side_px,
            }
        )
        try:
            info = _video_info(answer["info"])
            self.sandbox = dict(answer["sandbox"])
            self.in_threads = bool(answer.get("in_threads"))
        except _MISFITS as err:
            raise self._protocol_error(f"its description of the video does not fit ({err})") from err
        self.warnings.update(info.warnings)
        return info

    def next_frames(self, max_frames: int) -> tuple[list[Frame], bool]:
        """Decode the next sampled frames; their full-size pictures are held until `release`.

        Returns:
            Frames in display order (fewer than `max_frames` when the child's memory budget is full or the sample
            ends), and whether more follow.

        Raises:
            MediaError: decoding met something that is refused.
            DecodeLimitError: the child ran into a limit.
        """
        self.ask_frames(max_frames)
        return self.take_frames()

    def ask_frames(self, max_frames: int) -> None:
        """Let the child decode the next sampled frames while the caller does something else; then `take_frames`."""
        self._num_asked = max_frames
        with self._conversation(time.monotonic()):
            wire.send(self._child.sock, {"op": "next", "max_frames": max_frames})

    def take_frames(self) -> tuple[list[Frame], bool]:
        """The frames asked for with `ask_frames`; returns and raises as `next_frames`."""
        answer = self._answer()
        try:
            rows = answer["frames"]
            self._count(len(rows))  # before a picture is copied: a short message can name any number of them
            frames = [
                Frame(
                    frame_id=int(row["id"]),
                    pts_seconds=float(row["pts"]),
                    image_hwc=self._picture(row["offset"], row["height"], row["width"], most_px=max(2, self._options.small_long_side_px)),
                    scale=_finite(row["scale"]),
                    quantiser=float(row["quantiser"]) if row.get("quantiser") is not None else None,
                )
                for row in rows
            ]
            self._in_order(frames)
            self.num_packets_decoded = _whole(answer["packets_decoded"])
            self.num_planned = _whole(answer["planned"])
            self.cpu_seconds = _finite(answer["cpu_seconds"])
            self.peak_rss_bytes = _whole(answer["peak_rss_bytes"])
            self.warnings.update(_words(warning) for warning in answer["warnings"])
            hardware = str(answer.get("hardware", ""))
            self.hardware = hardware if hardware in HARDWARE_OUTCOMES else ""
            more = bool(answer["more"])
        except _MISFITS as err:
            raise self._protocol_error(f"its frames do not fit ({err})") from err
        if more and not frames:
            raise self._protocol_error("it promised more frames and sent none")
        return frames, more

    def cut(self, requests: Sequence[CropRequest]) -> list[tuple[NDArray[np.uint8], float]]:
        """Cut squares out of held pictures, in the order of `requests`.

        Returns:
            (image (S, S, 3) RGB uint8, sharpness) per request.

        Raises:
            DecodeLimitError: the child ran into a limit.
        """
        results: list[tuple[NDArray[np.uint8], float] | None] = [None] * len(requests)
        batch: list[int] = []
        used = 0
        for i in range(len(requests)):
            num_bytes = 3 * requests[i].size_px ** 2
            if batch and used + num_bytes > SHARED_BYTES:
                self._cut_batch(requests, batch, results)
                batch, used = [], 0
            batch.append(i)
            used += num_bytes
        if batch:
            self._cut_batch(requests, batch, results)
        return [result for result in results if result is not None]

    def release(self, *, up_to: int | None = None) -> None:
        """Forget the held full-size pictures, so that the next ones have room; only those up to a frame number when one is given."""
        self._ask({"op": "release", "up_to": up_to})

    def _count(self, num_frames: int) -> None:
        """Refuse more frames than were asked for, and more in all than are ever sampled: an endless video would fill the worker's memory."""
        self._num_frames += num_frames
        if num_frames > self._num_asked or self._num_frames > self._options.num_frames:
            raise ValueError(
                f"{num_frames} frames, {self._num_frames} in all, where {self._num_asked} were asked for and {self._options.num_frames} are sampled"
            )

    def _in_order(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if not self._last_pts_seconds < frame.pts_seconds < math.inf:
                raise ValueError(f"a frame at {frame.pts_seconds} s after one at {self._last_pts_seconds} s")
            self._last_pts_seconds = frame.pts_seconds

    def _cut_batch(
        self, requests: Sequence[CropRequest], batch: Sequence[int], results: list[tuple[NDArray[np.uint8], float] | None]
    ) -> None:
        rows = [
            {"id": r.frame_id, "x": r.centre_xy[0], "y": r.centre_xy[1], "side": r.side, "size_px": r.size_px, "native": r.native}
            for r in (requests[i] for i in batch)
        ]
        answer = self._ask({"op": "crops", "requests": rows})
        try:
            for i, row in zip(batch, answer["crops"], strict=True):
                size = requests[i].size_px
                sharpness = float(row["sharpness"])
                results[i] = (self._picture(row["offset"], size, size, most_px=size), sharpness if np.isfinite(sharpness) else 0.0)
        except _MISFITS as err:
            raise self._protocol_error(f"its crops do not fit ({err})") from err

    def _picture(self, offset: int, height: int, width: int, *, most_px: int) -> NDArray[np.uint8]:
        """Copy one picture out of shared memory; the child is not trusted to stay inside it."""
        offset, height, width = int(offset), int(height), int(width)
        num_bytes = 3 * height * width
        if not (0 < height <= most_px and 0 < width <= most_px and 0 <= offset <= SHARED_BYTES - num_bytes):
            raise ValueError(f"picture {height}x{width} at {offset} lies outside the shared memory, or is larger than {most_px} pixels")
        return np.frombuffer(self._shm, np.uint8, num_bytes, offset).reshape(height, width, 3).copy()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """One request and its answer, within the decode budget."""
        started = time.monotonic()
        with self._conversation(started):
            self._child.sock.settimeout(max(0.1, self._remaining(started)))  # a child that does not read must not hold up the worker
            wire.send(self._child.sock, message)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The answer to the request under way. Only time that is spent waiting here counts as decoding."""
        started = time.monotonic()
        with self._conversation(started):
            self._wait_readable(started)
            # for the whole message: a child that sends it byte by byte is late all the same
            received = wire.receive(self._child.sock, deadline=time.monotonic() + max(0.1, self._remaining(started)))
        if received is None:
            raise self._death()
        answer, _ = received
        if answer.get("ok") is True:
            return answer
        error = _named_error(answer)
        if isinstance(error, DecodeDoubtError) and self._threads == 1:
            raise self._protocol_error("it doubts what one thread decoded")
        raise error

    @contextmanager
    def _conversation(self, started: float) -> Iterator[None]:
        """Charge the time to the decode budget and name what goes wrong on the wire."""
        try:
            yield
        except TimeoutError as err:
            raise self._timeout() from err
        except wire.WireError as err:
            if self._child.dead.wait(0.2):  # cut off in the middle of a message
                raise self._death() from err
            raise self._protocol_error(str(err)) from err
        except OSError as err:
            raise self._death() from err
        finally:
            self._spent_seconds += time.monotonic() - started

    def _remaining(self, started: float) -> float:
        return self._options.decode.wall_seconds - self._spent_seconds - (time.monotonic() - started)

    def _wait_readable(self, started: float) -> None:
        while True:
            if self._cancel is not None and self._cancel.is_set():
                self._child.kill()
                raise ScreeningCancelled("the screening was cancelled while the video was being decoded")
            remaining = self._remaining(started)
            if remaining <= 0:
                raise self._timeout()
            poller = select.poll()
            poller.register(self._child.sock, select.POLLIN)
            if poller.poll(min(remaining, 0.1) * 1000):
                return

    def _timeout(self) -> DecodeTimeoutError:
        self._child.kill()
        seconds = self._options.decode.wall_seconds
        return DecodeTimeoutError(f"decoding took longer than {seconds:.0f} s and was stopped; upload a shorter or simpler rendition")

    def _protocol_error(self, what: str) -> DecodeProtocolError:
        self._child.kill()
        return DecodeProtocolError(f"the decode child misbehaved: {_words(what)}; the file is treated as hostile")

    def _death(self) -> DetectCoreError:
        self._child.dead.wait(5)
        status = self._child.status
        if status in _CRASH_SIGNALS:
            return DecoderCrashError(f"the decoder crashed on this file (signal {-(status or 0)}); upload a re-encoded rendition")
        if status == -signal.SIGXCPU:
            return DecodeResourceError("the decoder used up its CPU time; upload a shorter or simpler rendition")
        return DecodeResourceError(f"the decode child ended early (status {status}); the video will be tried again")


def _video_info(said: dict[str, Any]) -> VideoInfo:
    """The child's description of the video, every field of the type that it must have.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it does not fit.
    """
    whole = {name: _whole(said[name]) for name in ("width_px", "height_px", "num_packets", "num_keyframes", "rotation_degrees")}
    words = {name: _words(said[name]) for name in ("codec", "container", "pixel_format")}
    rates = {name: None if said.get(name) is None else _finite(said[name]) for name in ("frame_rate", "bit_rate")}
    warnings = tuple(_words(warning) for warning in said["warnings"])
    return VideoInfo(**{**said, **whole, **words, **rates, "duration_seconds": _finite(said["duration_seconds"]), "warnings": warnings})


def _whole(value: Any) -> int:
    number = int(value)
    if not 0 <= number <= _MAX_WHOLE:
        raise ValueError("a count is negative, or larger than any that is counted here")
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def _words(value: Any) -> str:
    """Text that can be shown and stored: neither long, nor with control characters or halves of surrogate pairs."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value)[:_MAX_LETTERS])


def _named_error(answer: dict[str, Any]) -> DetectCoreError:
    """The child's error under its own class, if it is one that a child may raise."""
    name = _words(answer.get("error"))
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, (errors.MediaError, errors.DecodeLimitError)):
        return kind(_words(answer.get("message")))
    return DecodeProtocolError(f"the decode child answered with an unknown error {name!r}; the file is treated as hostile")
