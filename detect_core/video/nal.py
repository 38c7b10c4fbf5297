"""Read from H.264 and HEVC packets whether other pictures refer to a picture. Pure functions over bytes.

Sources: ITU-T H.264 7.4.1 (`nal_ref_idc`), ITU-T H.265 7.4.2.2 (sub-layer non-reference pictures, TemporalId).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PictureKind:
    """What the slices of one packet say."""

    is_reference: bool
    """Some picture may refer to this one (always true when in doubt)."""
    is_idr: bool
    """All slices are IDR: nothing before is needed."""
    temporal_layer: int
    """HEVC TemporalId; 0 for H.264."""


UNKNOWN = PictureKind(is_reference=True, is_idr=False, temporal_layer=0)
"""The safe answer: keep the packet."""


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
    differ from the first.
    """
    kinds = [kind for unit in _units(packet, length_bytes) if (kind := _slice_kind(codec, packet, unit)) is not None]
    if not kinds:
        return UNKNOWN
    return PictureKind(
        is_reference=any(kind.is_reference for kind in kinds),
        is_idr=all(kind.is_idr for kind in kinds),
        temporal_layer=max(kind.temporal_layer for kind in kinds),
    )


def _slice_kind(codec: str, packet: memoryview, unit: int) -> PictureKind | None:
    """Kind of the NAL unit at offset `unit`, or None when it carries no slice."""
    first = packet[unit]
    if codec == "h264":
        nal_type = first & 0x1F
        if not 1 <= nal_type <= 5:
            return None
        return PictureKind(is_reference=(first >> 5) & 3 != 0, is_idr=nal_type == 5, temporal_layer=0)
    nal_type = (first >> 1) & 0x3F
    if nal_type > 31 or unit + 1 >= len(packet):
        return None
    sub_layer_non_reference = nal_type <= 14 and nal_type % 2 == 0
    return PictureKind(
        is_reference=not sub_layer_non_reference,
        is_idr=nal_type in (19, 20),
        temporal_layer=max((packet[unit + 1] & 7) - 1, 0),
    )


def _units(packet: memoryview, length_bytes: int) -> Iterator[int]:
    """Offsets of the NAL unit headers."""
    size = len(packet)
    if length_bytes:
        at = 0
        while at + length_bytes < size:
            length = int.from_bytes(packet[at : at + length_bytes], "big")
            at += length_bytes
            if length == 0 or at + length > size:
                return
            yield at
            at += length
        return
    data = bytes(packet)
    at = data.find(b"\x00\x00\x01")
    while 0 <= at < size - 3:
        yield at + 3
        at = data.find(b"\x00\x00\x01", at + 3)
