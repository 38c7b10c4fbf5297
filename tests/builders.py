"""Clips made at test time. Nothing here comes from a camera but the public-domain astronaut of scikit-image."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def moving_pictures(count: int, *, size: tuple[int, int] = (320, 240), seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures with moving edges, gradients and a little noise, so that every codec has something to get wrong."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pictures = []
    for i in range(count):
        wave = 127 + 90 * np.sin((x + 3 * i) / 17) * np.cos((y - 2 * i) / 23)
        image = np.stack([wave, np.roll(wave, 5 * i, axis=1), 255 * x / width], axis=2)
        left, top = (7 * i) % (width - 40), (4 * i) % (height - 40)
        image[top : top + 40, left : left + 40] = (230, 30 + i % 200, 60)
        pictures.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return pictures


def flat_pictures(colour: tuple[int, int, int], count: int, *, size: tuple[int, int] = (128, 96)) -> list[NDArray[np.uint8]]:
    """Pictures of one RGB colour."""
    return [np.full((size[1], size[0], 3), colour, np.uint8)] * count


def write_clip(
    target: Path | io.BytesIO,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    container: str | None = None,
    pixel_format: str = "yuv420p",
    rate: int = 25,
    times: Sequence[float] | None = None,
    options: Mapping[str, str] | None = None,
    colour_range: str | None = None,
    matrix: str | None = None,
) -> None:
    """Encode RGB pictures.

    Args:
        target: file or buffer; the container follows from the suffix unless named.
        pictures: (H, W, 3) RGB.
        codec: FFmpeg encoder name.
        container: FFmpeg muxer name.
        pixel_format: of the encoded stream.
        rate: pictures per second.
        times: presentation time per picture in seconds instead of a constant rate.
        options: encoder options.
        colour_range: `pc` writes full range, `tv` limited, None leaves it unsaid.
        matrix: `bt709`, `smpte170m`, ... or None.
    """
    with _usual_priority():
        output = av.open(str(target) if isinstance(target, Path) else target, "w", format=container)
        tick = Fraction(1, rate) if times is None else Fraction(1, 90_000)
        stream = None
        for i, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream(codec, rate=rate, options=dict(options or {}))
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], pixel_format
                stream.codec_context.time_base = tick
                if colour_range:
                    stream.codec_context.color_range = {"pc": 2, "tv": 1}[colour_range]
                if matrix:
                    stream.codec_context.colorspace = {"bt709": 1, "smpte170m": 6}[matrix]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=pixel_format,
                dst_colorspace={"bt709": "ITU709", "smpte170m": "ITU601", None: None}[matrix],
                dst_color_range={"pc": 2, "tv": 1, None: None}[colour_range],
            )
            seconds = times[i] if times is not None else i / rate
            frame.pts, frame.time_base = round(seconds / float(tick)), tick
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode(None))
        output.close()


@contextmanager
def _usual_priority() -> Iterator[None]:
    """Take back what libsvtav1 does as root: the thread that encodes, and whatever it starts later, would run before all others."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write_tone(target: Path, *, seconds: float = 1.0) -> None:
    """An audio-only file."""
    with av.open(str(target), "w") as output:
        stream = output.add_stream("aac", rate=44_100)
        stream.layout = "mono"
        samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(44_100 * seconds)) / 44_100)).astype(np.float32)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44_100, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def astronaut_pictures(count: int, *, size: tuple[int, int] = (480, 360), zoom: float = 1.0) -> list[NDArray[np.uint8]]:
    """A public-domain portrait under a slowly moving camera."""
    import cv2
    from skimage.data import astronaut

    portrait = astronaut()
    width, height = size
    pictures = []
    for i in range(count):
        phase = i / max(count - 1, 1)
        scale = zoom * width / 512 * (1.0 + 0.1 * np.sin(2 * np.pi * phase))
        centre = (224 + 25 * np.sin(3 * phase), 140 + 15 * np.cos(4 * phase))
        matrix = np.array([[scale, 0, width / 2 - scale * centre[0]], [0, scale, height / 2 - scale * centre[1]]])
        pictures.append(cv2.warpAffine(portrait, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return pictures


def joined_parts(parts: Sequence[tuple[int, int]]) -> bytes:
    """One H.264 stream (MPEG-TS) of parts that begin with a key picture: (pictures, quantiser) of each."""
    stream, target = io.BytesIO(), io.BytesIO()
    for count, quantiser in parts:
        part = io.BytesIO()
        write_clip(part, moving_pictures(count), container="h264", options={"x264-params": f"qp={quantiser}:ipratio=1:bframes=0"})
        stream.write(part.getvalue())
    stream.seek(0)
    with av.open(stream, format="h264") as source, av.open(target, "w", format="mpegts") as sink:
        video = sink.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream, packet.time_base = video, Fraction(1, 25)
            packet.pts = packet.dts = number
            sink.mux(packet)
    return target.getvalue()
