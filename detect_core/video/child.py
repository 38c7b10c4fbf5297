"""The decode child: one process, one video, one open file descriptor, no way out but its socket and shared memory.

It answers four requests: `open` (measure), `next` (decode a window of sampled frames, small ones go out through
shared memory, full-size ones are held), `crops` (cut squares from the held ones) and `release`.
"""

from __future__ import annotations

import mmap
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import DecoderCrashError, DecodeResourceError, DetectCoreError, ResolutionTooSmallError, UndecodableError
from ..options import DecodeLimits
from . import picture, wire
from .doubt import without_doubt
from .foreign_file import ForeignFile
from .hardware import Device, decode_with_fallback
from .index import index_packets, refuse_still
from .probe import open_container
from .quantiser import key_quantiser, picture_quantiser, stream_steps
from .sandbox import SandboxState
from .stream import EXACT_IN_THREADS, DecodeTally, decode_wanted, leaves_a_stretch_unseen
from .upright import UPRIGHT, Orientation, is_beyond_belief, orientation_of, pixel_aspect, with_square_pixels

_MOST_CUT_SECONDS: Final = 1.0
"""What an edit list may leave out without a word: encoders hide a few pictures at the start."""


class DecodeChild:
    """State of one decode. Pictures cross in `shm`; everything else is JSON."""

    def __init__(self, sock: socket.socket, *, video_fd: int, shm_fd: int, state: SandboxState, device: Device | None = None) -> None:
        self._sock = sock
        self._file = ForeignFile(video_fd)
        self._shm = mmap.mmap(shm_fd, os.fstat(shm_fd).st_size)
        self._state = state
        self._device = device
        self._held: dict[int, tuple[av.VideoFrame, Orientation]] = {}
        self._orientation = UPRIGHT
        self._pixel_aspect = 1.0
        self._matrix_steps: float | None = 0.0
        self._stored_size = (0, 0)
        self._next_id = 0
        self._tally = DecodeTally()
        self._frames: Iterator[tuple[float, av.VideoFrame]] = iter(())
        self._carry: tuple[float, av.VideoFrame] | None = None
        self._limits = DecodeLimits()
        self._small_long_side_px = 640

    def serve(self) -> None:
        """Answer requests until the worker closes the socket."""
        while (received := wire.receive(self._sock)) is not None:
            message, _ = received
            wire.send(self._sock, self._answer(message))

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": True, **getattr(self, f"_on_{message['op']}")(message)}
        except DetectCoreError as err:
            return _failure(err)
        except MemoryError:
            self._held.clear()
            return _failure(DecodeResourceError("the decoder ran out of its memory limit; upload a smaller rendition"))
        except av.error.MemoryError:
            return _failure(DecodeResourceError("the decoder ran out of its memory limit; upload a smaller rendition"))
        except (av.error.FFmpegError, OSError, ValueError, ArithmeticError) as err:
            return _failure(UndecodableError(f"the video cannot be decoded ({type(err).__name__}: {err}); upload the original file"))
        except Exception as err:  # the file brought down code of ours: as telling as a crash of the decoder
            return _failure(
                DecoderCrashError(f"the decode child failed on this file ({type(err).__name__}: {err}); upload a re-encoded rendition")
            )

    def _on_open(self, message: dict[str, Any]) -> dict[str, Any]:
        limits = DecodeLimits(**message["limits"])
        self._limits, self._small_long_side_px = limits, int(message["small_long_side_px"])
        container, stream, warnings = open_container(self._file, limits=limits)
        index = index_packets(container, stream, limits=limits)
        facts = {
            "codec": str(stream.codec_context.codec.canonical_name),
            "container": container.format.name,
            "pixel_format": str(stream.codec_context.pix_fmt or "unknown"),
        }
        # read before a frame is: a large video is opened anew for that, and its first container is gone then
        self._pixel_aspect = pixel_aspect(stream.sample_aspect_ratio)
        is_unbelievable = is_beyond_belief(stream.sample_aspect_ratio)
        num_stated = stream.frames if facts["container"].startswith("mov") and "PARTIAL_DECODE" not in index.warnings else 0
        within = message["within_seconds"]
        decode = partial(
            decode_wanted,
            self._file,
            (container, stream),
            index,
            num_frames=int(message["num_frames"]),
            first_look=int(message["first_look"]) if message["first_look"] else None,
            within_seconds=(float(within[0]), float(within[1])) if within else None,
            limits=limits,
            tally=self._tally,
        )
        self._matrix_steps = stream_steps(stream.codec_context, index.key_packet)
        quantiser = key_quantiser(stream.codec_context, index.key_packet, pixels=limits.frame_pixels)
        threads = int(message["threads"])
        in_threads = False
        if self._device is not None:
            self._frames = decode_with_fallback(
                lambda hwaccel: decode(hwaccel=hwaccel), self._device, codec=facts["codec"], tally=self._tally
            )
        else:
            self._tally.hardware = "" if limits.hardware_decode == "off" else "unavailable"
            in_threads = threads > 1 and self._state.threads and bool(index.packets) and facts["codec"] in EXACT_IN_THREADS
            self._frames = without_doubt(decode(threads=threads), tally=self._tally) if in_threads else decode()
        if threads > 1 and self._state.threads:  # the other core is idle
            with ThreadPoolExecutor(max_workers=1) as beside:
                measured = beside.submit(quantiser)
                self._carry = next(self._frames, None)
            mean_quantiser = measured.result()
        else:
            mean_quantiser = quantiser()
            self._carry = next(self._frames, None)
        if self._carry is None:
            raise UndecodableError("not one picture came out of the decoder; upload the original file")
        refuse_still(facts["container"], index)
        first = self._carry[1]
        self._orientation, self._stored_size = orientation_of(first), (first.width, first.height)
        if min(first.width, first.height) < limits.short_side_px:
            raise ResolutionTooSmallError(
                f"the picture is {first.width}x{first.height}, the short side must be at least {limits.short_side_px}; upload the original size"
            )
        width, height = picture.upright_size(self._as_shown(first), orientation=self._orientation)
        is_unseen = not within and leaves_a_stretch_unseen(index, num_frames=int(message["num_frames"]))
        notes = [*warnings, *index.warnings, *(["UNSEEN_STRETCH"] * is_unseen)]
        if int(first.color_trc or 0) in picture.HDR_TRANSFERS:
            notes.append("HDR")
        if index.frame_rate and (num_stated - index.num_packets) / index.frame_rate > _MOST_CUT_SECONDS:
            notes.append("EDIT_LIST")
        if self._orientation != UPRIGHT:
            notes.append("ROTATED")
        if self._pixel_aspect != 1.0 and self._as_shown(first) is not first:
            notes.append("NON_SQUARE_PIXELS")
        elif self._pixel_aspect != 1.0 or is_unbelievable:
            notes.append("UNUSUAL_PIXEL_ASPECT")
        return {
            "info": {
                "width_px": width,
                "height_px": height,
                "duration_seconds": index.duration_seconds,
                "num_packets": index.num_packets,
                "num_keyframes": index.num_keyframes,
                "rotation_degrees": (360 - self._orientation.rotation) % 360,
                "frame_rate": index.frame_rate,
                "bit_rate": index.bit_rate,
                "quantiser": mean_quantiser,
                "warnings": notes,
                **facts,
            },
            "sandbox": self._state.as_json(),
            "in_threads": in_threads,
        }

    def _on_next(self, message: dict[str, Any]) -> dict[str, Any]:
        """Decode until `max_frames`, the shared memory or the hold limit is reached."""
        rows: list[dict[str, Any]] = []
        offset, held_bytes = 0, sum(_frame_bytes(frame) for frame, _ in self._held.values())
        while len(rows) < int(message["max_frames"]):
            self._carry = self._carry or next(self._frames, None)
            if self._carry is None:
                break
            seconds, frame = self._carry[0], self._as_shown(self._carry[1])
            # players follow each picture's own direction, which a message in the stream may change
            orientation = orientation_of(self._carry[1])
            if (self._carry[1].width, self._carry[1].height, orientation) != (*self._stored_size, self._orientation):
                self._tally.warnings.add("PICTURE_CHANGES")
            if picture.is_transparent(self._carry[1]):
                self._tally.warnings.add("ALPHA_IGNORED")
            held_bytes += _frame_bytes(frame)
            if rows and held_bytes > self._limits.hold_bytes:
                break
            small = picture.small_rgb(frame, long_side_px=self._small_long_side_px, orientation=orientation)
            if offset + small.nbytes > len(self._shm):
                break
            self._write(offset, small)
            height, width = small.shape[:2]
            full_width, _ = picture.upright_size(frame, orientation=orientation)
            rows.append(
                {
                    "id": self._next_id,
                    "pts": seconds,
                    "offset": offset,
                    "height": height,
                    "width": width,
                    "scale": full_width / width,
                    "quantiser": picture_quantiser(self._carry[1], steps=self._matrix_steps),
                }
            )
            self._held[self._next_id] = frame, orientation
            self._next_id += 1
            offset += small.nbytes
            self._carry = None
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "frames": rows,
            # not decoded ahead to be certain: a promised frame that turns out damaged ends the sample with an empty answer
            "more": bool(rows) and self._next_id < self._tally.num_planned,
            "warnings": sorted(self._tally.warnings),
            "packets_decoded": self._tally.num_packets_decoded,
            "planned": self._tally.num_planned,
            "hardware": self._tally.hardware,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_rss_bytes": usage.ru_maxrss * 1024,
        }

    def _on_crops(self, message: dict[str, Any]) -> dict[str, Any]:
        """Cut squares out of held full-size pictures; those around one face, which follow each other, in one go."""
        rows: list[dict[str, Any]] = []
        offset = 0
        for (number, x, y), requests in groupby(message["requests"], key=lambda r: (int(r["id"]), float(r["x"]), float(r["y"]))):
            squares = [picture.Square(float(r["side"]), int(r["size_px"]), bool(r["native"])) for r in requests]
            frame, orientation = self._held[number]
            cut = picture.cut_squares(frame, orientation=orientation, centre_xy=(x, y), squares=squares)
            for crop, sharpness in cut:
                self._write(offset, crop)
                rows.append({"offset": offset, "sharpness": sharpness})
                offset += crop.nbytes
        return {"crops": rows}

    def _on_release(self, message: dict[str, Any]) -> dict[str, Any]:
        up_to = message["up_to"]
        self._held = {number: held for number, held in self._held.items() if up_to is not None and number > int(up_to)}
        return {}

    def _as_shown(self, frame: av.VideoFrame) -> av.VideoFrame:
        return with_square_pixels(frame, aspect=self._pixel_aspect, max_pixels=self._limits.frame_pixels)

    def _write(self, offset: int, image: NDArray[np.uint8]) -> None:
        np.frombuffer(self._shm, np.uint8, image.nbytes, offset)[:] = image.reshape(-1)


def _frame_bytes(frame: av.VideoFrame) -> int:
    return sum(plane.buffer_size for plane in frame.planes)


def _failure(err: DetectCoreError) -> dict[str, Any]:
    return {"ok": False, "error": type(err).__name__, "message": str(err)[:500]}
