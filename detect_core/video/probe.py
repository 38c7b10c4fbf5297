"""Open a video inside the decode child and choose the stream that a player would show."""

from __future__ import annotations

from typing import Final

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.stream import VideoStream

from ..errors import (
    CorruptContainerError,
    EncryptedMediaError,
    NotMediaError,
    NoVideoStreamError,
    ResolutionTooLargeError,
    ResolutionTooSmallError,
    TooManyStreamsError,
    UndecodableError,
    UnsupportedCodecError,
)
from ..options import DecodeLimits
from .foreign_file import ForeignFile
from .look_ahead import look_ahead
from .mp4boxes import survey
from .sniff import HEAD_BYTES, sniff

DEMUXERS: Final = ("mov", "matroska", "avi", "flv", "ogg", "gif", "apng", "mpeg", "mpegvideo", "mpegts")
"""Containers that are opened at all, by FFmpeg demuxer name."""
CODECS: Final = (
    "h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "msmpeg4v3", "mpeg2video", "mpeg1video", "mjpeg", "h263", "flv1",
    "prores", "gif", "apng", "theora", "vp6", "vp6f",
)  # fmt: skip
"""Codecs that are decoded at all."""
_DECODERS: Final = (*CODECS, "libdav1d", "libaom-av1", "libvpx", "libvpx-vp9", "flv", "vp6a")
_STILL_DEMUXERS: Final = {"gif", "apng"}
_READ_BYTES: Final = 256 * 1024


def open_container(
    file: ForeignFile, *, limits: DecodeLimits, hwaccel: HWAccel | None = None
) -> tuple[InputContainer, VideoStream, tuple[str, ...]]:
    """Open the container with its demuxer named and choose the video stream that a player would show.

    Its decoder is made on the graphics card of `hwaccel` where that offers the codec.

    Returns:
        The container, the stream and warnings.

    Raises:
        MediaError: a subclass that names why this file is refused.
    """
    file.seek(0)
    demuxer = sniff(file.read(HEAD_BYTES))
    if demuxer == "webp":
        raise UnsupportedCodecError("the file is a WebP picture or animation, which is not decoded here; upload a video file")
    noticed = look_ahead(file, demuxer=demuxer, limits=limits)
    options = {
        "format_whitelist": ",".join((*DEMUXERS, "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")),
        "codec_whitelist": ",".join(_DECODERS),
        "protocol_whitelist": "none",
        # one more than allowed: a demuxer that stops early would hide the excess
        "max_streams": str(limits.num_streams + 1),
        "probesize": "10000000",
        "analyzeduration": "10000000",
    }
    try:
        container = av.open(file, "r", format=demuxer, options=options, buffer_size=_READ_BYTES, metadata_errors="replace", hwaccel=hwaccel)
    except (av.error.FFmpegError, MemoryError) as err:  # a header that lies about a size asks for all memory
        raise _open_refusal(demuxer, err, file) from err
    try:
        stream, warnings = _choose_stream(container, limits=limits)
    except Exception:
        container.close()
        raise
    return container, stream, (*noticed, *warnings)


def _open_refusal(demuxer: str, err: Exception, file: ForeignFile) -> Exception:
    if demuxer == "mov" and b"moov" not in survey(file, size=file.size).top_level:  # type: ignore[arg-type]
        return CorruptContainerError("the file is TRUNCATED: its index (moov box) is missing; upload the whole file again")
    if demuxer in ("avi", "mpegvideo", "flv"):
        return NotMediaError(f"the file starts like {demuxer} but holds no readable header ({err}); upload the original file")
    if demuxer in _STILL_DEMUXERS:
        return UndecodableError(f"the {demuxer} animation is broken ({err}); upload the original file")
    return CorruptContainerError(f"the {demuxer} container's header cannot be read, the file may be cut off ({err}); upload it again")


def _choose_stream(container: InputContainer, *, limits: DecodeLimits) -> tuple[VideoStream, tuple[str, ...]]:
    if len(container.streams) > limits.num_streams:
        raise TooManyStreamsError(
            f"the container declares {len(container.streams)} streams, the limit is {limits.num_streams}; remux one video stream"
        )
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        raise NoVideoStreamError("the container holds no video stream (audio, data or cover art only); upload a file with a picture")
    playable = [s for s in pictures if codec_name(s) in CODECS and _size(s) != (0, 0)]
    candidates = playable or pictures
    best = container.streams.best("video")
    stream = best if best in candidates else candidates[0]
    width, height = _size(stream)
    if width * height > limits.frame_pixels:
        raise ResolutionTooLargeError(
            f"the picture is {width}x{height}, the limit is {limits.frame_pixels} pixels; upload a smaller rendition"
        )
    codec = codec_name(stream)
    if codec not in CODECS:
        raise UnsupportedCodecError(f"the video codec is {codec or 'unknown'}, which is not decoded here; upload H.264, HEVC, VP9 or AV1")
    if (width, height) != (0, 0) and min(width, height) < limits.short_side_px:
        raise ResolutionTooSmallError(
            f"the picture is {width}x{height}, the short side must be at least {limits.short_side_px}; upload the original size"
        )
    if "enc_key_id" in stream.metadata:  # Matroska's ContentEncryption
        raise EncryptedMediaError("the video track is encrypted; upload the file without copy protection")
    return stream, _unseen(container, num_pictures=len(pictures))


def _unseen(container: InputContainer, *, num_pictures: int) -> tuple[str, ...]:
    """Say what the file shows beside the stream that is screened: a fake may hide there."""
    seen_not = [
        ("MULTIPLE_VIDEO_STREAMS", num_pictures > 1),
        ("ATTACHED_PICTURE", len(container.streams.video) > num_pictures),
    ]
    return tuple(warning for warning, is_there in seen_not if is_there)


def codec_name(stream: VideoStream) -> str:
    """Of the stream's decoder, as FFmpeg spells it; empty without one."""
    context = stream.codec_context
    return str(context.codec.canonical_name) if context is not None else ""


def _size(stream: VideoStream) -> tuple[int, int]:
    context = stream.codec_context
    return (int(context.width), int(context.height)) if context is not None else (0, 0)
