"""Read from H.264 and HEVC packets whether other pictures refer to a picture, and their parameter sets. Pure functions over bytes.

Sources: ITU-T H.264 7.4.1 (`nal_ref_idc`), ITU-T H.265 7.4.2.2 (sub-layer non-reference pictures, IRAP pictures, TemporalId).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_PARAMETER_SETS: Final = {"h264": (7, 8, 13, 15), "hevc": (32, 33, 34)}
"""NAL unit types of parameter sets; a decoder keeps them until others of the same number come."""
_START: Final = b"\x00\x00\x01"


@dataclass(frozen=True, slots=True)
class PictureKind:
    """What the slices of one packet say."""

    is_reference: bool
    """Some picture may refer to this one (always true when in doubt)."""
    is_start: bool
    """All slices are IDR (H.264) or IRAP (HEVC): decoding can start here, but for pictures shown before this one."""
    temporal_layer: int
    """HEVC TemporalId; 0 for H.264."""
    parameter_sets: tuple[bytes, ...] = ()
    """NAL units without start code or length, in their order."""
    is_whole: bool = True
    """It has slices, and every byte belongs to a NAL unit."""


def nal_length_bytes(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length field before each NAL unit, or 0 when the stream uses start codes (Annex B)."""
    if not extradata or extradata[0] != 1:
        return 0
    if codec == "h264" and len(extradata) > 4:
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) > 21:
        return (extradata[21] & 3) + 1
    return 0


def picture_kind(codec: str, packet: memoryview, *, length_bytes: int) -> PictureKind:
    """Classify one packet of an `h264` or `hevc` stream.

    A packet counts as unreferenced only when *every* slice in it says so: in field-coded video the second field may
    differ from the first. What cannot be read is kept: it counts as referenced.
    """
    slices: list[tuple[bool, bool, int]] = []
    sets: list[bytes] = []
    read = 0
    for start, end in _units(packet, length_bytes):
        read = end
        if unit_type(codec, packet[start]) in _PARAMETER_SETS[codec]:
            sets.append(bytes(packet[start:end]).rstrip(b"\x00"))
        elif (found := _slice(codec, packet, start)) is not None:
            slices.append(found)
    return PictureKind(
        is_reference=not slices or any(is_reference for is_reference, _, _ in slices),
        is_start=bool(slices) and all(is_start for _, is_start, _ in slices),
        temporal_layer=max((layer for _, _, layer in slices), default=0),
        parameter_sets=tuple(sets),
        is_whole=bool(slices) and read == len(packet),
    )


def sets_of_header(codec: str, extradata: bytes | None) -> tuple[bytes, ...]:
    """Parameter sets of a stream's header (avcC, hvcC or Annex B), in their order; those before the first broken one."""
    if not extradata:
        return ()
    if not nal_length_bytes(codec, extradata):
        kind = picture_kind(codec, memoryview(extradata), length_bytes=0)
        return kind.parameter_sets
    sets: list[bytes] = []
    at, arrays = (5, 2) if codec == "h264" else (23, extradata[22] if len(extradata) > 22 else 0)
    for i in range(arrays):
        head = 1 if codec == "h264" else 3
        count = int.from_bytes(extradata[at : at + head], "big") & (0xFFFF if codec == "hevc" else 0x1F if i == 0 else 0xFF)
        at += head
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            unit = extradata[at + 2 : at + 2 + length].rstrip(b"\x00")
            at += 2 + length
            if not unit or at > len(extradata):
                return tuple(sets)
            if unit_type(codec, unit[0]) in _PARAMETER_SETS[codec]:
                sets.append(unit)
    return tuple(sets)


def unit_type(codec: str, first: int) -> int:
    """Type of a NAL unit by its first byte."""
    return first & 0x1F if codec == "h264" else (first >> 1) & 0x3F


def _slice(codec: str, packet: memoryview, unit: int) -> tuple[bool, bool, int] | None:
    """(referenced, start, layer) of the NAL unit at offset `unit`, or None when it carries no slice."""
    nal_type = unit_type(codec, packet[unit])
    if codec == "h264":
        return ((packet[unit] >> 5) & 3 != 0, nal_type == 5, 0) if 1 <= nal_type <= 5 else None
    if nal_type > 31 or unit + 1 >= len(packet):
        return None
    sub_layer_non_reference = nal_type <= 14 and nal_type % 2 == 0
    is_second_view = packet[unit] & 1 or packet[unit + 1] >> 3  # not decoded, so nothing starts there or fails to
    return (not sub_layer_non_reference, 16 <= nal_type <= 21 or bool(is_second_view), max((packet[unit + 1] & 7) - 1, 0))


def _units(packet: memoryview, length_bytes: int) -> Iterator[tuple[int, int]]:
    """Offsets of the NAL units, [start, end)."""
    size = len(packet)
    if length_bytes:
        at = 0
        while at + length_bytes < size:
            length = int.from_bytes(packet[at : at + length_bytes], "big")
            at += length_bytes
            if length == 0 or at + length > size:
                return
            yield at, at + length
            at += length
        return
    data = bytes(packet)
    at = data.find(_START)
    while 0 <= at < size - 3:
        following = data.find(_START, at + 3)
        yield at + 3, following if following >= 0 else size
        at = following
