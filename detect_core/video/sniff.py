"""Name the container of a file by its first bytes, before any demuxer sees it.

FFmpeg's own probing would try playlists, scripts and image readers too; here only containers on the list are ever
opened, with their demuxer named. Pure function over bytes.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import EmptyInputError, FormatNotAllowedError, NotMediaError

HEAD_BYTES: Final = 64 * 1024
"""How much of the file `sniff` wants to see."""

_MOV_BOXES: Final = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"sidx", b"uuid", b"udta"}
_HEIF_BRANDS: Final = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"}

_RIFF_KINDS: Final = {b"AVI ": "avi", b"AVIX": "avi", b"WEBP": "webp"}
_MAGIC: Final = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"FLV", "flv"),
    (b"OggS", "ogg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\x89PNG\r\n\x1a\n", "apng"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
)

_LIKE_A_BOX_SIZE: Final = {"mpeg", "mpegvideo"}
"""Their magic numbers are small: a first box of 435 or 442 bytes starts so."""

_TEXT_SCRIPTS: Final = (
    (re.compile(rb"\A\s*#EXTM3U"), "an HLS playlist"),
    (re.compile(rb"\A\s*ffconcat version"), "an ffconcat script"),
    (re.compile(rb"\A\s*v=0\s*\r?\n"), "a session description (SDP)"),
    (re.compile(rb"<MPD[\s>]"), "a DASH manifest"),
    (re.compile(rb"<SmoothStreamingMedia[\s>]"), "a streaming manifest"),
    (re.compile(rb"\A\s*WEBVTT"), "subtitles"),
    (re.compile(rb"\A\s*\[Script Info\]"), "subtitles"),
    (re.compile(rb"\A\s*\d+\s*\r?\n\d\d:\d\d:\d\d[,.]\d"), "subtitles"),
    (re.compile(rb"\A\s*\[playlist\]", re.IGNORECASE), "a playlist"),
    (re.compile(rb"\A\s*<asx", re.IGNORECASE), "a playlist"),
)

_BINARY_REFUSED: Final = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"8BPS", "a Photoshop picture"),
    (b"BM", "a bitmap picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"ID3", "bare audio"),
    (b"fLaC", "bare audio"),
    (b"#!AMR", "bare audio"),
    (b"MThd", "bare audio"),
    (b"%PDF", "a document"),
)


def sniff(head: bytes) -> str:
    """Name FFmpeg's demuxer for a file that starts with `head` (up to `HEAD_BYTES` bytes).

    Raises:
        EmptyInputError: no bytes.
        FormatNotAllowedError: a playlist, script, subtitle, still picture or bare audio file.
        NotMediaError: nothing that is known.
    """
    if not head:
        raise EmptyInputError("the file is empty (0 bytes); upload it again")
    demuxer = _container(head)
    if demuxer is not None:
        return demuxer
    for pattern, what in _TEXT_SCRIPTS:
        if pattern.search(head[:4096]):
            raise FormatNotAllowedError(f"the file is {what}, not a video; upload the video file itself")
    for magic, what in _BINARY_REFUSED:
        if head.startswith(magic):
            raise FormatNotAllowedError(f"the file is {what}, not a video; upload a video file")
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        raise FormatNotAllowedError("the file is bare audio, not a video; upload a video file")
    if len(head) > 6 and head[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        raise FormatNotAllowedError("the file is a FLIC animation, which is not accepted; upload a video file")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and _mpeg_audio(head):
        raise FormatNotAllowedError("the file is bare audio, not a video; upload a video file")
    raise NotMediaError("the bytes are no known media format; upload a video file (mp4, mov, webm, mkv, avi, flv, ts)")


def _container(head: bytes) -> str | None:
    """The demuxer of an accepted container, or None."""
    # boxes come after these: other formats keep a size or nothing in particular where a box has its four letters
    if head[:4] == b"RIFF" and head[8:12] in _RIFF_KINDS:
        return _RIFF_KINDS[head[8:12]]
    is_box = head[4:8] in _MOV_BOXES
    for magic, demuxer in _MAGIC:
        if head.startswith(magic) and not (is_box and demuxer in _LIKE_A_BOX_SIZE):
            return demuxer
    if is_box:
        return _mov(head)
    return "mpegts" if _transport_stream(head) else None


def _mov(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)), 4))}
        if head[8:12] in _HEIF_BRANDS and not brands & {b"isom", b"mp41", b"mp42", b"iso5", b"iso6"}:
            raise NotMediaError("the file is a HEIF/AVIF photo, not a video; upload a video file")
    return "mov"


def _transport_stream(head: bytes) -> bool:
    """Sync bytes 188 (or 192, 204) apart, starting anywhere in the first packet."""
    for packet in (188, 192, 204):
        for start in range(min(packet, len(head))):
            probes = range(start, min(len(head), start + 8 * packet), packet)
            if len(probes) >= 4 and all(head[i] == 0x47 for i in probes):
                return True
    return False


def _mpeg_audio(head: bytes) -> bool:
    """Whether an MPEG audio (or ADTS) header starts the file: layer, bit rate and sample rate are legal."""
    layer, rate, sample = head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return (layer == 0 and head[1] & 0xF0 == 0xF0) or (layer != 0 and 0 < rate < 15 and sample != 3)
