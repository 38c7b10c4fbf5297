"""How much finer than its quantiser says an H.264 stream quantises: scaling matrices multiply the step of each coefficient.

An entry of 16 changes nothing, one of 4 keeps as much detail as a quantiser twelve lower. Sources: ITU-T H.264 7.3.2.1.1 and 7.3.2.2 (parameter
sets), 7.3.2.1.1.1 (scaling lists), 7.4.1.1 (emulation prevention), ISO/IEC 14496-15 5.3.3.1 (`avcC`). Pure functions over bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from .nal import nal_length_bytes

_SPS, _PPS = 7, 8
_MOST_SETS: Final = 64
"""Parameter sets that are read; an encoder writes one or two of each kind."""
_MOST_BYTES: Final = 4096
_FLAT: Final = 16
_HIGH_PROFILES: Final = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_LIST_SIZES: Final = (16,) * 6 + (64,) * 2
"""Coefficients of each list; those of 4:4:4 chroma, which come after, are not read."""


def matrix_steps(extradata: bytes | None, packet: bytes) -> float | None:
    """Quantiser steps, at most 0, by which the finest scaling list of an H.264 stream changes its quantiser; None if they cannot be read.

    The geometric mean of a list counts: one huge entry, of a coefficient that no picture has, hides no small ones. The standard's own
    lists are coarser than flat ones and are left out.

    Args:
        extradata: of the stream, as `avcC` or with start codes.
        packet: a key packet, which may hold parameter sets too.
    """
    steps = 0.0
    length_bytes = nal_length_bytes("h264", extradata)
    header = _of_avcc(extradata) if extradata and length_bytes else _after_start_codes(extradata or b"")
    inside = _by_length(packet, length_bytes) if length_bytes else _after_start_codes(packet)
    num_sets = 0
    try:
        for unit in (*header, *inside):
            kind = unit[0] & 0x1F if unit else 0
            if kind not in (_SPS, _PPS):
                continue
            num_sets += 1
            if num_sets > _MOST_SETS or len(unit) > _MOST_BYTES:
                return None
            bits = _Bits(unit[1:])
            for entries in _sps_lists(bits) if kind == _SPS else _pps_lists(bits):
                steps = min(steps, 6 * sum(math.log2(entry / _FLAT) for entry in entries) / len(entries))
    except IndexError:
        return None
    return steps


class _Bits:
    """Reads the bits of a NAL unit; IndexError beyond its end."""

    def __init__(self, unit: bytes) -> None:
        payload = unit.rstrip(b"\x00").replace(b"\x00\x00\x03", b"\x00\x00")
        self._bits = "".join(f"{byte:08b}" for byte in payload)
        self._at = 0

    @property
    def has_more(self) -> bool:
        """Whether more than the stop bit is left."""
        return self._at < self._bits.rfind("1")

    def take(self, count: int = 1) -> int:
        if self._at + count > len(self._bits):
            raise IndexError("the parameter set ends too early")
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def ue(self) -> int:
        zeros = 0
        while not self.take():
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        value = self.ue()
        return (value + 1) // 2 if value % 2 else -(value // 2)


def _sps_lists(bits: _Bits) -> Iterator[list[int]]:
    profile = bits.take(8)
    bits.take(16)
    bits.ue()
    if profile not in _HIGH_PROFILES:
        return
    if bits.ue() == 3:  # 4:4:4
        bits.take()
    bits.ue()
    bits.ue()
    bits.take()
    if bits.take():
        yield from _lists(bits, count=8)


def _pps_lists(bits: _Bits) -> Iterator[list[int]]:
    bits.ue()
    bits.ue()
    bits.take(2)
    if bits.ue() > 0:  # slice groups, which no profile has beside scaling lists
        return
    bits.ue()
    bits.ue()
    bits.take(3)
    bits.se()
    bits.se()
    bits.se()
    bits.take(3)
    if not bits.has_more:
        return
    has_8x8 = bits.take()
    if bits.take():
        yield from _lists(bits, count=6 + 2 * has_8x8)


def _lists(bits: _Bits, *, count: int) -> Iterator[list[int]]:
    """Those of the lists that are written out; the others are repetitions or the standard's own."""
    for size in _LIST_SIZES[:count]:
        entries: list[int] = []
        last, following = 8, 8
        is_written = bool(bits.take())
        while is_written and len(entries) < size:
            if following:
                following = (last + bits.se()) % 256
                if not following and not entries:
                    break  # the standard's own
            last = following or last
            entries.append(last)
        if entries:
            yield entries


def _of_avcc(extradata: bytes) -> Iterator[bytes]:
    at = 5
    for mask in (0x1F, 0xFF):
        if at >= len(extradata):
            return
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            yield extradata[at + 2 : at + 2 + length]
            at += 2 + length


def _by_length(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    at = 0
    while at + length_bytes < len(packet):
        length = int.from_bytes(packet[at : at + length_bytes], "big")
        at += length_bytes
        yield packet[at : at + length]
        at += length


def _after_start_codes(data: bytes) -> Iterator[bytes]:
    at = data.find(b"\x00\x00\x01")
    while at >= 0:
        end = data.find(b"\x00\x00\x01", at + 3)
        yield data[at + 3 : end if end >= 0 else len(data)]
        at = end
