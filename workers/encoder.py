"""Encodes the clips that the demo and the bench make for themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from .errors import EncodeError


def encode_clip(path: Path, frames: Iterable[NDArray[np.uint8]], *, size_wh: tuple[int, int], rate: int, **options: Any) -> None:
    """Write frames as an upload would come: H.264, 4:2:0.

    Args:
        path: of the clip; what is there is overwritten.
        frames: RGB (H, W, 3) uint8 of the size given.
        size_wh: pixels, both even.
        rate: frames a second.
        options: of FFmpeg's output, e.g. `crf=21`.

    Raises:
        EncodeError: FFmpeg ended early or could not write.
    """
    width, height = size_wh
    command = (
        ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=rate)
        .output(str(path), vcodec="libx264", pix_fmt="yuv420p", loglevel="error", **options)
        .overwrite_output()
        .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        assert encoder.stderr is not None
        with suppress(BrokenPipeError), encoder.stdin:  # what an encoder that ended early says is on its stderr
            for frame in frames:
                encoder.stdin.write(frame.tobytes())
        stderr = encoder.stderr.read().decode(errors="replace")
    if encoder.returncode != 0:
        raise EncodeError(
            f"tried to encode {path}, ffmpeg ended with {encoder.returncode}: {stderr[-300:].strip()}; "
            "check the folder, its permissions and the room on its disk"
        )
