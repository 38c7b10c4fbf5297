"""Open a video inside the decode child and measure it: one pass over the packets, nothing decoded yet.

What containers claim (duration, frame rate, frame count) is only compared, never trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import (
    CorruptContainerError,
    DurationTooLongError,
    EncryptedMediaError,
    ImageOnlyError,
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
from .nal import nal_length_bytes, picture_kind
from .plan import PacketFact
from .quantiser import KeyPicture
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
_HELD_BYTES: Final = 16 * 1024**2
"""Videos up to this size are read once: their packets stay in memory between indexing and decoding."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Every packet of the screened stream and what follows from them."""

    packets: tuple[PacketFact, ...]
    """In decode order; empty when timestamps are unusable and decoding must be sequential."""
    num_packets: int
    duration_seconds: float
    frame_rate: float | None
    bit_rate: float | None
    num_keyframes: int
    first_pts: int
    warnings: tuple[str, ...]
    key_packet: Packet[VideoStream] | None = field(default=None, repr=False, compare=False)
    """One key picture, to be asked for its quantiser."""
    held: tuple[Packet[VideoStream], ...] = field(default=(), repr=False, compare=False)
    """The packets themselves, of the container that was indexed; empty for a large video, which is read again."""


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
    look_ahead(file, demuxer=demuxer, limits=limits)
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
    return container, stream, warnings


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
    playable = [s for s in pictures if _codec_name(s) in CODECS and _size(s) != (0, 0)]
    candidates = playable or pictures
    best = container.streams.best("video")
    stream = best if best in candidates else candidates[0]
    width, height = _size(stream)
    if width * height > limits.frame_pixels:
        raise ResolutionTooLargeError(
            f"the picture is {width}x{height}, the limit is {limits.frame_pixels} pixels; upload a smaller rendition"
        )
    codec = _codec_name(stream)
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
    seen_not = [("MULTIPLE_VIDEO_STREAMS", num_pictures > 1), ("ATTACHED_PICTURE", len(container.streams.video) > num_pictures)]
    return tuple(warning for warning, is_there in seen_not if is_there)


def _codec_name(stream: VideoStream) -> str:
    context = stream.codec_context
    return str(context.codec.canonical_name) if context is not None else ""


def _size(stream: VideoStream) -> tuple[int, int]:
    context = stream.codec_context
    return (int(context.width), int(context.height)) if context is not None else (0, 0)


def index_packets(container: InputContainer, stream: VideoStream, *, limits: DecodeLimits) -> PacketIndex:
    """Read every packet of `stream` without decoding: times, key flags, references.

    Raises:
        EncryptedMediaError: packets carry encryption side data.
        DurationTooLongError: the real time span or the packet count is above the limit.
        UndecodableError: there is no packet at all.
    """
    codec = _codec_name(stream)
    length_bytes = nal_length_bytes(codec, stream.codec_context.extradata)
    pts: list[int | None] = []
    keys: list[bool] = []
    discardable: list[bool] = []
    layers: list[int] = []
    num_bytes = num_corrupt = 0
    key_picture = KeyPicture()
    held: list[Packet[VideoStream]] = []
    time_base = float(stream.time_base or 0) or 1.0
    max_ticks = limits.duration_seconds / time_base
    first: int | None = None
    for packet in _packets(container, stream):
        if _is_encrypted(packet):
            raise EncryptedMediaError("the video packets are encrypted; upload the file without copy protection")
        kind = picture_kind(codec, memoryview(packet), length_bytes=length_bytes) if codec in ("h264", "hevc") else None
        pts.append(packet.pts)
        # an H.264 "key" packet that is no IDR may be a gradual refresh: decoding from there is not exact
        keys.append(bool(packet.is_keyframe) and (kind is None or codec != "h264" or kind.is_idr))
        discardable.append(kind is not None and not kind.is_reference)
        layers.append(kind.temporal_layer if kind else 0)
        num_bytes += packet.size
        if num_bytes <= _HELD_BYTES:
            held.append(packet)
        if keys[-1]:
            key_picture.add(packet)
        num_corrupt += bool(packet.is_corrupt)
        first = packet.pts if first is None else first
        too_long = first is not None and packet.pts is not None and abs(packet.pts - first) > max_ticks
        if too_long or len(pts) > limits.num_packets:
            raise DurationTooLongError(
                f"the video spans more than {limits.duration_seconds:.0f} s or {limits.num_packets} frames; cut it into parts"
            )
    if not pts:
        raise UndecodableError("the video stream holds not a single packet; upload the original file")
    index = _summarise(stream, pts, keys, discardable, layers, num_bytes=num_bytes, num_corrupt=num_corrupt, time_base=time_base)
    return replace(index, key_packet=key_picture.packet, held=tuple(held) if len(held) == len(pts) else ())


def _packets(container: InputContainer, stream: VideoStream) -> Any:
    """Packets with payload, ending quietly where a cut-off file ends."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except (av.error.FFmpegError, MemoryError):
        # out of memory: at this point that is a chunk that lies about its size
        return


def _is_encrypted(packet: av.Packet[VideoStream]) -> bool:
    return bool(packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"))


def _summarise(
    stream: VideoStream,
    pts: list[int | None],
    keys: list[bool],
    discardable: list[bool],
    layers: list[int],
    *,
    num_bytes: int,
    num_corrupt: int,
    time_base: float,
) -> PacketIndex:
    warnings: list[str] = []
    known = sorted({p for p in pts if p is not None})
    usable = len(known) == len(pts)
    top_layer = max(layers)
    gaps = np.diff(np.asarray(known, np.float64)) * time_base
    median_gap = float(np.median(gaps)) if len(gaps) else 0.0
    span = (known[-1] - known[0]) * time_base + median_gap if known else 0.0
    if len(gaps) > 2 and float(np.quantile(gaps, 0.95)) > 1.5 * float(np.quantile(gaps, 0.05)) + 2 * time_base:
        warnings.append("VFR")
    claimed = float((stream.duration or 0) * time_base)
    if claimed > 0 and span > 0 and not 0.5 < (claimed + 0.5) / (span + 0.5) < 2.0:
        warnings.append("DURATION_MISMATCH")
    if stream.frames and len(pts) < 0.98 * stream.frames - 1:
        warnings.append("PARTIAL_DECODE")
    if num_corrupt:
        warnings.append("DECODE_ERRORS")
    facts = tuple(
        PacketFact(pts=int(p or 0), is_key=key, is_discardable=drop and layer == top_layer)
        for p, key, drop, layer in zip(pts, keys, discardable, layers, strict=True)
    )
    return PacketIndex(
        packets=facts if usable else (),
        num_packets=len(pts),
        duration_seconds=span,
        frame_rate=1.0 / median_gap if median_gap > 0 else None,
        bit_rate=8.0 * num_bytes / span if span > 0 and len(pts) > 1 else None,
        num_keyframes=sum(keys),
        first_pts=known[0] if known else 0,
        warnings=tuple(warnings),
    )


def refuse_still(container_name: str, index: PacketIndex) -> None:
    """Refuse a PNG that holds a single picture (a GIF of one picture is judged, and found to be too little).

    Raises:
        ImageOnlyError: the only packet is the whole file.
    """
    if container_name == "apng" and index.num_packets == 1:
        raise ImageOnlyError("the file is a single still picture, not a video; upload a video file")
