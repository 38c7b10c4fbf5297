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
_MAX_DEPTH: Final = 16
_MAX_STSD_BYTES: Final = 64 * 1024
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
            found.has_encrypted_video |= b"encv" in _sample_entry_kinds(file.read(min(stop - first, _MAX_STSD_BYTES)))
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


def _sample_entry_kinds(stsd: bytes) -> set[bytes]:
    """Four-character codes of the entries in a sample description box's payload."""
    kinds: set[bytes] = set()
    at = 8
    while at + 8 <= len(stsd):
        kinds.add(stsd[at + 4 : at + 8])
        length = int.from_bytes(stsd[at : at + 4], "big")
        if length < 8:
            break
        at += length
    return kinds
