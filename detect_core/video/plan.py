"""Which packets must be decoded to get the wanted frames, and no others. Pure: packet facts in, packet numbers out.

A group of pictures without a wanted frame is never decoded. Inside a group, pictures that no other picture refers to
are dropped unless they are wanted. Both leave the wanted frames bit-exact: a decoder that restarts at a key picture
is flushed there, and a picture that starts before its key in display order (a leading picture of an open group)
belongs to the previous group.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PacketFact:
    """What the demuxer says about one video packet, in decode order."""

    pts: int
    """Presentation time in the stream's time base."""
    is_key: bool
    """Decoding can start here."""
    is_discardable: bool
    """No other picture refers to this one."""


@dataclass(frozen=True, slots=True)
class Run:
    """Packets that are decoded in one go after the decoder was flushed."""

    numbers: tuple[int, ...]
    """Packet numbers in decode order; the first is a key packet."""
    wanted_pts: frozenset[int]
    """Presentation times of the frames that this run is decoded for."""


def plan_runs(packets: Sequence[PacketFact], *, wanted: Collection[int]) -> tuple[Run, ...]:
    """Plan the decoding of `wanted`.

    Args:
        packets: every packet of the stream, in decode order.
        wanted: packet numbers whose frames are wanted.

    Returns:
        Runs in decode order. A packet outside all runs is not decoded.
    """
    spans: list[tuple[int, int, set[int]]] = []
    for number in sorted(wanted):
        start = _start(packets, number)
        if spans and start <= spans[-1][1]:
            previous_start, previous_end, targets = spans[-1]
            spans[-1] = (previous_start, max(previous_end, number), targets | {number})
        else:
            spans.append((start, number, {number}))
    return tuple(
        Run(
            numbers=tuple(n for n in range(start, end + 1) if n in targets or not packets[n].is_discardable),
            wanted_pts=frozenset(packets[n].pts for n in targets),
        )
        for start, end, targets in spans
    )


def _start(packets: Sequence[PacketFact], number: int) -> int:
    """The last key packet from which `number` decodes exactly; 0 when there is none."""
    pts = packets[number].pts
    for candidate in range(number, -1, -1):
        if packets[candidate].is_key and packets[candidate].pts <= pts:
            return candidate
    return 0
