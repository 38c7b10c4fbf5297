"""Look into the track headers of a Matroska or WebM file for pixels that players cut off. Source: RFC 8794 (EBML), RFC 9559 (Matroska)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from .mp4boxes import MOST_HIDDEN

_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0
_WIDTH, _HEIGHT = 0xB0, 0xBA
_CROPS: Final = {0x54AA: _HEIGHT, 0x54BB: _HEIGHT, 0x54CC: _WIDTH, 0x54DD: _WIDTH}
"""Bottom, top, left, right: which side each makes shorter."""
_ENTERED: Final = {_SEGMENT, _TRACKS, _TRACK, _VIDEO}
_MOST_ELEMENTS: Final = 100_000
"""Clusters are skipped whole, unless a live recording does not say where they end."""


def hides_pixels(file: BinaryIO, *, size: int) -> bool:
    """Whether players show clearly less of some track's picture than is stored, or may: a demuxer finds tracks that are not found here."""
    hidden, has_tracks = False, False
    stored: dict[int, int] = {}
    cut: dict[int, int] = {}
    for ident, value in _elements(file, size=size):
        has_tracks |= ident == _TRACKS
        if ident == _TRACK:
            stored, cut = {}, {}
        elif ident in _CROPS:
            cut[ident] = value
        elif ident in (_WIDTH, _HEIGHT):
            stored[ident] = value
        shown = 1.0
        for side, length in stored.items():
            shown *= max(0, length - sum(pixels for name, pixels in cut.items() if _CROPS[name] == side)) / max(length, 1)
        hidden |= len(stored) == 2 and shown < 1 - MOST_HIDDEN
    return hidden or not has_tracks


def _elements(file: BinaryIO, *, size: int) -> Iterator[tuple[int, int]]:
    """(ID, number in it) of the elements on the way to the tracks' video settings, and of those beside it."""
    at = 0
    for _ in range(_MOST_ELEMENTS):
        file.seek(at)
        head = file.read(20)
        id_bytes = _length_of_number(head)
        size_bytes = _length_of_number(head[id_bytes:])
        if not id_bytes or not size_bytes or len(head) < id_bytes + size_bytes:
            return
        ident = int.from_bytes(head[:id_bytes], "big")
        length = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") - (1 << 7 * size_bytes)
        is_open_ended = length == (1 << 7 * size_bytes) - 1
        at += id_bytes + size_bytes
        is_entered = ident in _ENTERED or (ident == _CLUSTER and is_open_ended)
        yield ident, int.from_bytes(head[id_bytes + size_bytes :][:length], "big") if length <= 8 else 0
        if is_open_ended and not is_entered:
            return
        at += 0 if is_entered else length
        if at >= size:
            return


def _length_of_number(data: bytes) -> int:
    """Bytes of the variable-length number that begins here; 0 where none can."""
    return 9 - data[0].bit_length() if data and data[0] else 0
