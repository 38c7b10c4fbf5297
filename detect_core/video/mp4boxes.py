"""Look into the box tree of an MP4 before any demuxer does: encryption that a decoder would not mind, and headers made to cost time.

Encrypted AV1 and VP9 can decode "successfully" into noise; such frames must never be scored. What this module cannot see through
is refused, because a demuxer might. Source: ISO/IEC 14496-12 (box structure), ISO/IEC 23001-7 (common encryption: `encv`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

MAX_BOXES: Final = 200_000
"""Four hours in fragments of one second are about 100,000 boxes."""
MAX_EDITS: Final = 64
"""Entries of all edit lists. A cutting program writes a few; a demuxer multiplies them with the samples."""
MOST_HIDDEN: Final = 0.1
"""Share of the stored picture that a file may tell players to cut off: cameras trim their borders by a few hundredths."""
_MAX_DEPTH: Final = 16
_MAX_STSD_BYTES: Final = 1024**2
"""A colour profile may lie in it. What stands behind this much is not seen, and taken for the worst."""
_VIDEO_ENTRY_BYTES: Final = 86
"""Of a video sample entry before the boxes in it."""
_CONTAINERS: Final = {
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"mvex", b"dinf", b"tref", b"wave", b"moof", b"traf",
}  # fmt: skip
"""Every box that FFmpeg's demuxer looks into, at any place."""


@dataclass(slots=True)
class BoxSurvey:
    """What the box tree says."""

    top_level: set[bytes] = field(default_factory=set)
    """Four-character codes at the top of the file."""
    num_tracks: int = 0
    num_edits: int = 0
    num_boxes: int = 0
    has_encrypted_video: bool = False
    hides_pixels: bool = False
    """Players show clearly less of some picture than is stored (`clap`)."""
    is_header_cut: bool = False
    """The file ends within its own index (moov)."""
    is_opaque: bool = False
    """More boxes, or deeper ones, than are looked into, or a compressed index."""


def survey(file: BinaryIO, *, size: int) -> BoxSurvey:
    """Walk the boxes of the MP4 in `file`, wherever its `moov` stands."""
    found = BoxSurvey()
    _walk(file, start=0, end=size, depth=0, found=found)
    return found


def _walk(file: BinaryIO, *, start: int, end: int, depth: int, found: BoxSurvey) -> None:
    for kind, first, stop, is_cut in _boxes(file, start=start, end=end):
        found.num_boxes += 1
        if found.num_boxes > MAX_BOXES or depth > _MAX_DEPTH or kind == b"cmov":
            found.is_opaque = True
        if found.is_opaque:
            return
        if depth == 0:
            found.top_level.add(kind)
            found.is_header_cut |= kind == b"moov" and is_cut
        if kind == b"stsd":
            file.seek(first)
            entries = list(_sample_entries(file.read(min(stop - first, _MAX_STSD_BYTES))))
            found.has_encrypted_video |= any(entry[4:8] == b"encv" for entry in entries)
            found.hides_pixels |= stop - first > _MAX_STSD_BYTES or any(_shown_share(entry) < 1 - MOST_HIDDEN for entry in entries)
        elif kind == b"elst":
            file.seek(first + 4)
            found.num_edits += int.from_bytes(file.read(4), "big")
        elif kind in _CONTAINERS:
            found.num_tracks += kind == b"trak"
            _walk(file, start=first, end=stop, depth=depth + 1, found=found)


def _boxes(file: BinaryIO, *, start: int, end: int) -> Iterator[tuple[bytes, int, int, bool]]:
    """(kind, start of payload, end of payload, whether it ends too early) of the boxes between two offsets."""
    at = start
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        length, header = int.from_bytes(head[:4], "big"), 8
        if length == 1 and len(head) == 16:
            length, header = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = end - at
        if length < header:
            return
        yield head[4:8], at + header, min(at + length, end), at + length > end
        at += length


def _sample_entries(stsd: bytes) -> Iterator[bytes]:
    """The entries in a sample description box's payload, with their headers."""
    at = 8
    while at + 8 <= len(stsd):
        length = int.from_bytes(stsd[at : at + 4], "big")
        yield stsd[at : at + max(length, 8)]
        if length < 8:
            return
        at += length


def _shown_share(entry: bytes) -> float:
    """How much of its picture a video sample entry shows by its clean aperture; 1 without one (ISO/IEC 14496-12, 12.1.4)."""
    stored = int.from_bytes(entry[32:34], "big") * int.from_bytes(entry[34:36], "big")
    at = _VIDEO_ENTRY_BYTES
    while at + 8 <= len(entry) and stored:
        length = int.from_bytes(entry[at : at + 4], "big")
        if entry[at + 4 : at + 8] == b"clap" and at + 24 <= len(entry):
            width, width_by, height, height_by = (int.from_bytes(entry[n : n + 4], "big") for n in range(at + 8, at + 24, 4))
            return width * height / (stored * width_by * height_by) if width_by and height_by else 1.0
        if length < 8:
            break
        at += length
    return 1.0
