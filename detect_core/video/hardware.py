"""Decoding on a graphics card where the option asks for it: opened, proven on a clip made here, left at the first doubt.

Software has the last word. The card decodes only codecs whose standard fixes every bit of a picture, its pictures become
the planar ones that software gives, and whatever goes wrong on it is decoded again in software.
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.reformatter import VideoReformatter

from ..errors import HardwareDecodeError
from ..options import HardwareDecode
from . import sandbox

if TYPE_CHECKING:
    from .stream import DecodeTally

_EXACT_CODECS: Final = {"h264", "hevc", "vp8", "vp9"}
"""Others that cards decode (MPEG-2, MPEG-4, MJPEG) leave rounding to the decoder; AV1 is opened with libdav1d, which has no card."""
_PLANAR: Final = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
"""Downloaded format -> what software gives; the conversion only moves samples."""
_AS_IN_SOFTWARE: Final = {f"yuv{kind}" for kind in ("420p", "422p", "444p", "420p10le", "422p10le", "444p10le")} | {"yuvj420p"}
_DRIVER_FILES: Final = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
_SIDE_PX: Final = 256
"""Of the proof's pictures: cards refuse very small ones."""
_REFORMATTER = VideoReformatter()


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """A card that has proven itself to this process."""

    wish: HWAccel
    """Opens a decoder on it, for `av.open`."""
    held: HWAccel
    """Keeps the driver's context, which decoders share, from being made anew for each."""
    clip: bytes


def driver_files(folder: Path = Path("/dev")) -> tuple[str, ...]:
    """Device files of the driver; none where there is no card."""
    return tuple(sorted(str(path) for pattern in _DRIVER_FILES for path in folder.glob(pattern)))


def close_in(kind: HardwareDecode, *, memory_bytes: int, cpu_seconds: int) -> tuple[sandbox.SandboxState, Device | None, str]:
    """Open the card and enter the sandbox that leaves room for its driver; without a card the usual one.

    Returns:
        The layers that hold, the card if there is one, and why there is none.
    """
    files = driver_files()
    if not files:
        reason = "this machine or container has no /dev/nvidia* files"
        return sandbox.enter(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds), None, reason
    if not sandbox.admit_driver(files):
        reason = "the kernel has no Landlock, which must keep other files shut once a driver may open its own"
        return sandbox.enter(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds), None, reason
    try:
        device = open_device(kind)
    except Exception as err:  # a driver may fail in any way; the video is decoded all the same
        return sandbox.enter(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, driver="gave_up"), None, str(err)
    return sandbox.enter(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, driver="in_use", driver_files=files), device, ""


def open_device(kind: HardwareDecode) -> Device:
    """Load the driver, make its context and have it decode a clip as software does.

    Raises:
        HardwareDecodeError: no driver, no card, or other pictures.
    """
    try:
        ctypes.CDLL("libnvcuvid.so.1")  # FFmpeg would load it with the first decoder: too late
        wish = HWAccel(kind, allow_software_fallback=True, options={"primary_ctx": "1"})
        device = Device(wish=wish, held=wish.create(av.codec.Codec("h264", "r")), clip=_made_clip())
    except (OSError, RuntimeError, NotImplementedError, ValueError) as err:
        raise HardwareDecodeError(f"no {kind} decoder could be opened ({type(err).__name__}: {err}); check driver and container") from err
    prove(device)
    return device


def prove(device: Device) -> None:
    """Compare the card's pictures of the made clip with software's.

    Raises:
        HardwareDecodeError: they differ, or the card gave none.
    """
    try:
        found = _pictures(device.clip, device.wish)
    except (OSError, RuntimeError, ValueError) as err:
        raise HardwareDecodeError(f"the card does not decode a plain H.264 clip ({type(err).__name__}: {err})") from err
    if found != _pictures(device.clip, None):
        raise HardwareDecodeError("the card decodes a plain H.264 clip to other pictures than software")


def decode_with_fallback(
    decode: Callable[[HWAccel | None], Iterator[tuple[float, av.VideoFrame]]], device: Device, *, codec: str, tally: DecodeTally
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decode on the card; after its first fault go on in software with the frame that is due.

    Args:
        decode: one pass over the video, on a card or in software.
        device: the card.
        codec: canonical name.
        tally: told how it went; faults on the card are forgotten, software finds those that are the file's.
    """
    last = -np.inf
    tally.hardware = "unsupported"
    if codec in _EXACT_CODECS:
        try:
            for seconds, frame in decode(device.wish):
                _refuse_doubt(tally)
                last = seconds
                yield seconds, frame
            _refuse_doubt(tally)
            if np.isfinite(last):
                return
        except Exception:  # whatever it was: if it is the file's fault, software meets it again and names it
            tally.warnings.clear()
        tally.hardware = "failed"
    yield from (found for found in decode(None) if found[0] > last)


def as_in_software(frame: av.VideoFrame) -> av.VideoFrame:
    """A picture of a decoder that may run on the card, in the format that software would have given.

    Raises:
        HardwareDecodeError: there is no such format, or the conversion would not be exact.
    """
    name = frame.format.name
    if name in _AS_IN_SOFTWARE:
        return frame  # the card does not offer the video's pixel format: this came out of software
    if name not in _PLANAR or frame.width % 2 or frame.height % 2:
        raise HardwareDecodeError(f"the card gave a {frame.width}x{frame.height} picture of format {name}; software must decode it")
    return _REFORMATTER.reformat(frame, format=_PLANAR[name], threads=1)


def _refuse_doubt(tally: DecodeTally) -> None:
    if tally.warnings:
        raise HardwareDecodeError(f"decoding on the card met {', '.join(sorted(tally.warnings))}")


def _made_clip() -> bytes:
    made = io.BytesIO()
    ramp = np.arange(_SIDE_PX, dtype=np.uint8)
    with av.open(made, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "2", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = _SIDE_PX, _SIDE_PX, "yuv420p"
        for i in range(6):
            picture = np.stack(
                [ramp[:, None] ^ ramp, ramp[:, None] + np.uint8(9 * i) + 0 * ramp, ramp + np.uint8(31 * i) + 0 * ramp[:, None]], 2
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return made.getvalue()


def _pictures(clip: bytes, wish: HWAccel | None) -> list[bytes]:
    """Samples of every frame; on the card all must come from it."""
    found = []
    with av.open(io.BytesIO(clip), "r", format="mov", hwaccel=wish) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            if wish is not None and frame.format.name not in _PLANAR:
                raise HardwareDecodeError(f"the driver took a plain H.264 clip and software decoded it, to {frame.format.name}")
            found.append((as_in_software(frame) if wish else frame).to_ndarray().tobytes())
    return found
