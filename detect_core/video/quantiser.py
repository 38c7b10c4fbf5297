"""How hard a video was compressed: the mean quantisers of a key picture and of the looked-at ones, as the decoder itself saw them.

Only H.264 pictures say so (0 to 51, ITU-T H.264 clause 7.4.5; six steps halve the detail that is kept). A file that was
compressed hard once and gently a second time shows the second quantiser: what is low proves nothing, what is high does.
Where scaling matrices make the steps finer than that number says, they are counted in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, cast

import av
import numpy as np
from av.packet import Packet
from av.sidedata.sidedata import SideData, Type
from av.video.stream import VideoStream

from .scaling import matrix_steps

_TYPE_H264: Final = 1
_HEADER: Final = struct.Struct("=I4xQQii")
"""Head of libavutil's AVVideoEncParams: blocks, offset, bytes per block, kind of codec, quantiser of the picture."""
_MOST: Final = 51.0
_DELTA_AT: Final = 16
"""Where a block holds what it adds to the picture's quantiser, after four integers of place and size."""
EXPORT: Final = {"export_side_data": "venc_params"}
"""Option of a decoder that attaches the quantisers to its pictures."""


class KeyPicture:
    """Keeps one key packet of a stream while it is indexed, from its second half: openings are often black."""

    def __init__(self) -> None:
        self.packet: Packet[VideoStream] | None = None
        self._count = 0

    def add(self, packet: Packet[VideoStream]) -> None:
        """Tell about the next key packet."""
        self._count += 1
        if self._count & (self._count - 1) == 0:  # a power of two: the last of them lies in the second half
            self.packet = packet


def key_quantiser(context: av.VideoCodecContext, packet: Packet[VideoStream] | None, *, pixels: int) -> Callable[[], float | None]:
    """What decodes a key picture and says its mean quantiser; None for other codecs and where it cannot be decoded.

    It has a decoder of its own, made here, so that it may be called in another thread while the stream is decoded.

    Args:
        context: of the stream; it is not touched.
        packet: a key packet of the stream.
        pixels: largest picture that is decoded.
    """
    steps = stream_steps(context, packet)
    if context.name != "h264" or packet is None or steps is None:
        return lambda: None
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = context.extradata
    decoder.thread_count = 1
    decoder.options = {**EXPORT, "max_pixels": str(pixels)}
    return partial(_mean_quantiser, decoder, packet, steps=steps)


def stream_steps(context: av.VideoCodecContext, packet: Packet[VideoStream] | None) -> float | None:
    """What the stream's scaling matrices add to its quantisers, see `scaling.matrix_steps`; 0 for other codecs.

    Args:
        context: of the stream.
        packet: a key packet of the stream.
    """
    return matrix_steps(context.extradata, bytes(packet)) if context.name == "h264" and packet is not None else 0.0


def _mean_quantiser(decoder: av.VideoCodecContext, packet: Packet[VideoStream], *, steps: float) -> float | None:
    try:
        pictures = [*decoder.decode(packet), *decoder.decode(None)]
    except (av.error.FFmpegError, MemoryError, ValueError, OverflowError):  # what is wrong here, decoding the whole will name
        return None
    found = [value for picture in pictures if (value := picture_quantiser(picture, steps=steps)) is not None]
    return float(np.mean(found)) if found else None


def picture_quantiser(picture: av.VideoFrame, *, steps: float | None = 0.0) -> float | None:
    """Mean quantiser over the blocks of one H.264 picture that was decoded with `EXPORT`, as of 8 bits; None without that data.

    Args:
        picture: as decoded.
        steps: what its stream's scaling matrices add; None if that is unknown.
    """
    attached = cast("Iterable[SideData]", picture.side_data)  # its stubs take it for a mapping of names
    payload = next((bytes(data) for data in attached if data.type == Type.VIDEO_ENC_PARAMS), b"")
    if len(payload) < _HEADER.size:
        return None
    num_blocks, offset, block_bytes, kind, base = _HEADER.unpack_from(payload)
    if (
        steps is None
        or kind != _TYPE_H264
        or num_blocks == 0
        or block_bytes < _DELTA_AT + 4
        or offset + num_blocks * block_bytes > len(payload)
    ):
        return None
    blocks = np.frombuffer(payload, np.uint8, num_blocks * block_bytes, offset).reshape(num_blocks, block_bytes)
    deltas = blocks[:, _DELTA_AT : _DELTA_AT + 4].copy().view(np.int32)
    # deep pictures count six steps more per bit; taken back, a value means the same detail for all
    value = float(base + deltas.mean()) - 6 * (picture.format.components[0].bits - 8)
    return value + steps if value <= _MOST else None
