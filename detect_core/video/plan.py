"""Which packets must be decoded to get the wanted frames, and no others. Pure: packet facts in, packet numbers out.

A group of pictures without a wanted frame is never decoded. Inside a group, pictures that no other picture refers to
are dropped unless they are wanted. Both leave the wanted frames bit-exact: a decoder that restarts at a key picture
is flushed there, and a picture that starts before its key in display order (a leading picture of an open group)
belongs to the previous group.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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
    is_choosable: bool = True
    """Its picture is shown, and its time tells which one it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """Packets that are decoded in one go after the decoder was flushed."""

    numbers: tuple[int, ...]
    """Packet numbers in decode order; the first is a key packet."""
    wanted_pts: frozenset[int]
    """Presentation times of the frames that this run is decoded for."""


def plan_runs(
    packets: Sequence[PacketFact], *, wanted: Collection[int], whole_from: int | None = None, is_generous: bool = False
) -> tuple[Run, ...]:
    """Plan the decoding of `wanted`.

    Args:
        packets: every packet of the stream, in decode order.
        wanted: packet numbers whose frames are wanted.
        whole_from: from the key before this packet on, nothing is left out, as a player decodes; 0: from the first packet on.
        is_generous: leave nothing out of a group, and begin each run a group earlier than it should need.

    Returns:
        Runs in decode order. A packet outside all runs is not decoded.
    """
    spans: list[_Span] = []
    for number in sorted(wanted):
        is_whole = whole_from is not None and number >= whole_from
        start = _start(packets, number)
        if is_generous and start > 0:
            start = _key_before(packets, start)
        if whole_from is not None and is_whole:
            start = min(start, _key_before(packets, whole_from))
        span = _Span(start, number, {number}, is_whole or is_generous)
        while spans and span.start <= spans[-1].end:
            before = spans.pop()
            span = _Span(
                min(span.start, before.start), max(span.end, before.end), span.targets | before.targets, span.is_whole or before.is_whole
            )
        spans.append(span)
    return tuple(
        Run(
            numbers=tuple(
                n for n in range(span.start, span.end + 1) if span.is_whole or n in span.targets or not packets[n].is_discardable
            ),
            wanted_pts=frozenset(packets[n].pts for n in span.targets),
        )
        for span in spans
    )


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    targets: set[int]
    is_whole: bool
    """Nothing may be left out."""


def cheap_neighbours(packets: Sequence[PacketFact], *, wanted: Sequence[int], tolerance: float, costs: Sequence[int]) -> list[int]:
    """Move each wanted packet to the one that costs least to decode within `tolerance` of its time.

    On a tie the nearest one is taken. No packet is given twice.

    Args:
        packets: every packet of the stream, in decode order.
        wanted: packet numbers, in order of their times.
        tolerance: in units of the packets' times.
        costs: what a packet costs, one number per packet: `costs_from_key` or `costs_beside_others`.
    """
    order = sorted((n for n, packet in enumerate(packets) if packet.is_choosable), key=lambda n: packets[n].pts)
    times = [packets[n].pts for n in order]
    moved: list[int] = []
    taken = set(wanted)
    for number in wanted:
        time = packets[number].pts
        near = order[bisect_left(times, time - tolerance) : bisect_right(times, time + tolerance)]
        free = [n for n in near if n == number or n not in taken]
        best = min(free, key=lambda n: (costs[n], abs(packets[n].pts - time)))
        taken.discard(number)
        taken.add(best)
        moved.append(best)
    return moved


def costs_from_key(packets: Sequence[PacketFact]) -> list[int]:
    """Per packet, how many must be decoded to get it alone, itself included."""
    costs: list[int] = []
    key_pts, since_key, since_previous = packets[0].pts, 0, 0
    for packet in packets:
        if packet.is_key:
            key_pts, since_previous, since_key = packet.pts, since_key, 0
        is_leading = packet.pts < key_pts
        needed = since_key + (since_previous if is_leading else 0)
        costs.append(needed + 1)
        since_key += not packet.is_discardable
    return costs


def costs_beside_others(packets: Sequence[PacketFact]) -> list[int]:
    """Per packet, 1 if it is decoded for its own sake only, 0 if others of its group need it anyway."""
    return [int(packet.is_discardable) for packet in packets]


def _key_before(packets: Sequence[PacketFact], number: int) -> int:
    """The last key packet before `number`; 0 when there is none."""
    return next((n for n in range(number - 1, -1, -1) if packets[n].is_key), 0)


def _start(packets: Sequence[PacketFact], number: int) -> int:
    """The last key packet from which `number` decodes exactly; 0 when there is none."""
    pts = packets[number].pts
    for candidate in range(number, -1, -1):
        if packets[candidate].is_key and packets[candidate].pts <= pts:
            return candidate
    return 0
