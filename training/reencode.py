"""Real H.264 encoding of crop sequences in memory, so that fakes and their twins share true compression."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

from detect_core.video.quantiser import EXPORT, picture_quantiser


def reencode_h264(
    frames: Sequence[NDArray[np.uint8]], *, crf: int, preset: str = "veryfast"
) -> tuple[list[NDArray[np.uint8]], float | None]:
    """Encode RGB frames (H, W, 3) of one even size with x264 and decode them again, in order.

    Returns:
        The frames, and the mean quantiser of the first, as `VideoInfo.quantiser` would be.
    """
    height, width = frames[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as sink:
        stream = sink.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": preset})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        sink.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        source.streams.video[0].codec_context.options = EXPORT
        decoded = list(source.decode(video=0))
    return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded], picture_quantiser(decoded[0])
