"""Look into the box tree of an MP4 for signs of encryption that a decoder would not mind. Pure over a readable file.

Encrypted AV1 and VP9 can decode "successfully" into noise; such frames must never be scored.
Source: ISO/IEC 14496-12 (box structure), ISO/IEC 23001-7 (common encryption: `encv`, `sinf`, `pssh`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

_MAX_BOXES: Final = 4096
_MAX_DEPTH: Final = 8
_MAX_STSD_BYTES: Final = 64 * 1024
_CONTAINERS: Final = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}


def has_encrypted_video(file: BinaryIO, *, size: int) -> bool:
    """Whether a video sample entry of the MP4 in `file` is encrypted (`encv`), wherever the `moov` box stands."""
    budget = [_MAX_BOXES]
    return any(b"encv" in _sample_entry_kinds(payload) for payload in _stsd_payloads(file, start=0, end=size, depth=0, budget=budget))


def top_level_boxes(file: BinaryIO, *, size: int) -> set[bytes]:
    """Four-character codes of the boxes at the top of the file, as far as their lengths lead."""
    return {kind for kind, _, _ in _boxes(file, start=0, end=size, budget=[_MAX_BOXES])}


def _boxes(file: BinaryIO, *, start: int, end: int, budget: list[int]) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of payload, end of payload) of the boxes between two offsets."""
    at = start
    while at + 8 <= end and budget[0] > 0:
        budget[0] -= 1
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
        yield head[4:8], at + header, min(at + length, end)
        at += length


def _stsd_payloads(file: BinaryIO, *, start: int, end: int, depth: int, budget: list[int]) -> Iterator[bytes]:
    if depth >= _MAX_DEPTH:
        return
    for kind, first, stop in _boxes(file, start=start, end=end, budget=budget):
        if kind == b"stsd":
            file.seek(first)
            yield file.read(min(stop - first, _MAX_STSD_BYTES))
        elif kind in _CONTAINERS:
            yield from _stsd_payloads(file, start=first, end=stop, depth=depth + 1, budget=budget)


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
