"""Measure an opened video in one pass over its packets, nothing decoded yet.

What containers claim (duration, frame rate, frame count) is only compared, never trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import DurationTooLongError, EncryptedMediaError, ImageOnlyError, UndecodableError
from ..options import DecodeLimits
from .bitstream import Bitstream
from .plan import PacketFact
from .probe import codec_name
from .quantiser import KeyPicture

_HELD_BYTES: Final = 16 * 1024**2
"""Videos up to this size are read once: their packets stay in memory between indexing and decoding."""
_MAX_UNTIMED_SHARE: Final = 0.05
"""Pictures without a usable time are never looked at; where they are more than these, none of the times is believed."""
_MAX_APART: Final = 16
"""In packets: pictures of one time that are decoded further apart than any reordering are not two pictures of one moment."""
_SLOW_RATE: Final = 60.0
"""Pictures without a time are taken to be shown for at least this part of a second, however fast those are that have one."""
_USUAL_RATE: Final = 25.0
_BESIDE: Final = "matroska_block_additional"


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Every packet of the screened stream and what follows from them."""

    packets: tuple[PacketFact, ...]
    """In decode order; empty when timestamps are unusable and decoding must be sequential."""
    num_packets: int
    """Those whose picture is shown."""
    duration_seconds: float
    """Span of what is shown."""
    frame_rate: float | None
    bit_rate: float | None
    num_keyframes: int
    first_pts: int
    """Of what is shown."""
    warnings: tuple[str, ...]
    times: tuple[int, ...] = field(default=(), repr=False)
    """Distinct presentation times of what is shown, in ascending order."""
    shared: frozenset[int] = field(default=frozenset(), repr=False)
    """Times that several pictures have, of which the last to come out of the decoder is meant."""
    lead: frozenset[int] = field(default=frozenset(), repr=False)
    """Times of pictures that refer to some from before the first packet: a recording that was begun between two key pictures has some,
    and no player shows them."""
    longest_unseen_seconds: float = 0.0
    """What the longest row of pictures without a usable time may fill."""
    whole_from: int | None = None
    """From the key before this packet on, only decoding all gives the pictures of a player; see `bitstream.py`."""
    key_packet: Packet[VideoStream] | None = field(default=None, repr=False, compare=False)
    """One key picture, to be asked for its quantiser."""
    held: tuple[Packet[VideoStream], ...] = field(default=(), repr=False, compare=False)
    """The packets themselves, of the container that was indexed; empty for a large video, which is read again."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One packet as the demuxer gives it."""

    pts: int | None
    num_bytes: int
    is_key: bool
    is_called_key: bool
    """By the container or, where that says nothing of it, by FFmpeg's parser."""
    is_reference: bool
    layer: int
    is_trimmed: bool
    """An edit list, or the codec, leaves its picture out: it is decoded for others at most, and never comes out."""


def index_packets(container: InputContainer, stream: VideoStream, *, limits: DecodeLimits) -> PacketIndex:
    """Read every packet of `stream` without decoding: times, key flags, references.

    Raises:
        EncryptedMediaError: packets carry encryption side data.
        DurationTooLongError: the real time span or the packet count is above the limit.
        UndecodableError: there is no packet at all, or an edit list leaves them all out.
    """
    bitstream = Bitstream(stream, codec=codec_name(stream))
    seen: list[_Seen] = []
    num_bytes = num_corrupt = num_with_alpha = 0
    key_picture = KeyPicture()
    held: list[Packet[VideoStream]] = []
    max_ticks = limits.duration_seconds / _time_base(stream)
    first: int | None = None
    for packet in _packets(container, stream):
        if _is_encrypted(packet):
            raise EncryptedMediaError("the video packets are encrypted; upload the file without copy protection")
        said = bitstream.read(packet)
        seen.append(
            _Seen(
                packet.pts,
                packet.size,
                said.is_key,
                bool(packet.is_keyframe),
                said.is_reference,
                said.temporal_layer,
                packet.is_discard or not said.is_shown,
            )
        )
        num_bytes += packet.size
        if num_bytes <= _HELD_BYTES:
            held.append(packet)
        if said.is_key:
            key_picture.add(packet)
        num_corrupt += bool(packet.is_corrupt)
        num_with_alpha += _has_alpha(packet)
        first = packet.pts if first is None else first
        too_long = first is not None and packet.pts is not None and abs(packet.pts - first) > max_ticks
        if too_long or len(seen) > limits.num_packets:
            raise DurationTooLongError(
                f"the video spans more than {limits.duration_seconds:.0f} s or {limits.num_packets} frames; cut it into parts"
            )
    if all(each.is_trimmed for each in seen):
        raise UndecodableError(f"the video stream holds {len(seen)} packets and shows none of them; upload the original file")
    return _summarise(
        stream,
        seen,
        noticed=[*(["DECODE_ERRORS"] if num_corrupt else []), *(["ALPHA_IGNORED"] if num_with_alpha else [])],
        whole_from=bitstream.whole_from,
        key_packet=key_picture.packet,
        held=tuple(held) if len(held) == len(seen) else (),
    )


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Packets with payload, ending quietly where a cut-off file ends."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except (av.error.FFmpegError, MemoryError):
        # out of memory: at this point that is a chunk that lies about its size
        return


def _is_encrypted(packet: Packet[VideoStream]) -> bool:
    return bool(packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"))


def _has_alpha(packet: Packet[VideoStream]) -> bool:
    """Whether a second picture of transparency lies beside this one (Matroska's BlockAdditional with the number 1).

    What the track says of it counts for nothing: browsers announce it in every recording, and a file that has it need not.
    """
    return packet.has_sidedata(_BESIDE) and int.from_bytes(bytes(packet.get_sidedata(_BESIDE))[:8], "big") == 1


def _time_base(stream: VideoStream) -> float:
    return float(stream.time_base or 0) or 1.0


def _summarise(
    stream: VideoStream,
    seen: Sequence[_Seen],
    *,
    noticed: Sequence[str],
    whole_from: int | None,
    key_packet: Packet[VideoStream] | None,
    held: tuple[Packet[VideoStream], ...],
) -> PacketIndex:
    time_base = _time_base(stream)
    shown = [each for each in seen if not each.is_trimmed]
    facts, shared = _facts(seen)
    if not _runs_forward(facts):
        facts = _without_misplaced(facts)
    num_choosable = sum(fact.is_choosable for fact in facts)
    num_doubles = sum(each.pts in shared for each in shown) - len(shared)
    times = sorted({each.pts for each in shown if each.pts is not None})
    is_timed = (
        num_choosable >= (1 - _MAX_UNTIMED_SHARE) * (len(shown) - num_doubles) and num_choosable >= num_doubles and _runs_forward(facts)
    )
    parts = [times] if is_timed else _parts(shown)
    gaps = np.asarray([after - before for part in parts for before, after in pairwise(part)], np.float64) * time_base
    if is_timed:
        median_gap = float(np.median(gaps)) if len(gaps) else 0.0
        span = (times[-1] - times[0]) * time_base + median_gap
    else:
        median_gap = 1.0 / float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
        span = len(shown) * median_gap
    warnings: list[str] = []
    if len(gaps) > 2 and float(np.quantile(gaps, 0.95)) > 1.5 * float(np.quantile(gaps, 0.05)) + 2 * time_base:
        warnings.append("VFR")
    claimed = float((stream.duration or 0) * time_base)
    if claimed > 0 and span > 0 and not 0.5 < (claimed + 0.5) / (span + 0.5) < 2.0:
        warnings.append("DURATION_MISMATCH")
    # an edit list takes pictures away as well, but then the claimed duration is that of what it leaves
    is_short = claimed <= 0 or span < 0.98 * claimed - median_gap
    if stream.frames and len(seen) < 0.98 * stream.frames - 1 and is_short:
        warnings.append("PARTIAL_DECODE")
    is_moving = len(shown) > 1 and span > 0
    return PacketIndex(
        packets=facts if is_timed else (),
        num_packets=len(shown),
        duration_seconds=span,
        frame_rate=1.0 / median_gap if median_gap > 0 else None,
        bit_rate=8.0 * sum(each.num_bytes for each in shown) / span if is_moving else None,
        num_keyframes=sum(each.is_key for each in seen),
        first_pts=times[0] if times else 0,
        warnings=(*warnings, *noticed),
        times=tuple(times) if is_timed else (),
        shared=shared,
        lead=_lead(shown),
        longest_unseen_seconds=_longest_unseen(seen, facts, shared, gap_seconds=span / max(num_choosable, 1), time_base=time_base)
        if is_timed
        else 0.0,
        whole_from=whole_from,
        key_packet=key_packet,
        held=held,
    )


def _facts(seen: Sequence[_Seen]) -> tuple[tuple[PacketFact, ...], frozenset[int]]:
    """What the plan needs to know of each packet, and which times several pictures share: the last of them is choosable."""
    top_layer = max(each.layer for each in seen)
    numbers: dict[int, list[int]] = {}
    for number, each in enumerate(seen):
        if each.pts is not None and not each.is_trimmed:
            numbers.setdefault(each.pts, []).append(number)
    meant = {of_time[-1] for of_time in numbers.values() if of_time[-1] - of_time[0] <= _MAX_APART}
    shared = frozenset(pts for pts, of_time in numbers.items() if len(of_time) > 1 and of_time[-1] in meant)
    facts = tuple(
        PacketFact(
            pts=each.pts or 0,
            # whether a picture without a time leads its group cannot be told: decoding begins at the key before
            is_key=each.is_key and each.pts is not None,
            is_discardable=not each.is_reference and each.layer == top_layer and each.pts not in shared,
            is_choosable=number in meant,
        )
        for number, each in enumerate(seen)
    )
    return facts, shared


def _lead(shown: Sequence[_Seen]) -> frozenset[int]:
    """Times of what stands before the first picture that is called a key, and of what follows that one but is shown before it."""
    keys = [number for number, each in enumerate(shown) if each.is_called_key]
    if not keys:
        return frozenset()
    first, second = keys[0], keys[1] if len(keys) > 1 else len(shown)
    begin = shown[first].pts
    leading = {each.pts for each in shown[first:second] if each.pts is not None and begin is not None and each.pts < begin}
    return frozenset({each.pts for each in shown[:first] if each.pts is not None} | leading)


def _longest_unseen(
    seen: Sequence[_Seen], facts: Sequence[PacketFact], shared: frozenset[int], *, gap_seconds: float, time_base: float
) -> float:
    """How long the longest row of shown pictures may last that cannot be chosen, beyond one usual gap at either end."""
    longest, row, latest = 0.0, 0, None
    for each, fact in zip(seen, facts, strict=True):
        if fact.is_choosable:
            apart = (fact.pts - latest) * time_base if latest is not None else 0.0
            if row:
                longest = max(longest, apart - 2 * gap_seconds, row * gap_seconds)
            row, latest = 0, fact.pts if latest is None else max(latest, fact.pts)
        elif not each.is_trimmed and each.pts not in shared:
            row += 1
    return max(longest, row * max(gap_seconds, 1 / _SLOW_RATE))


def _without_misplaced(facts: Sequence[PacketFact]) -> tuple[PacketFact, ...]:
    """The facts with those pictures not choosable whose time lies outside the groups before and after their own."""
    keys = [fact.pts for fact in facts if fact.is_key]
    group = -1
    placed = []
    for fact in facts:
        group += fact.is_key
        is_late = group + 1 < len(keys) and fact.pts >= keys[group + 1]
        is_early = group > 0 and fact.pts < keys[group - 1]
        placed.append(replace(fact, is_choosable=fact.is_choosable and not is_late and not is_early))
    return tuple(placed)


def _runs_forward(facts: Sequence[PacketFact]) -> bool:
    """Whether each group of pictures is shown after the one before: parts put one behind the other may each begin at 0."""
    latest: list[int] = []
    is_new = True
    for fact in facts:
        is_new = is_new or fact.is_key
        if fact.is_choosable and is_new:
            latest.append(fact.pts)
            is_new = False
        elif fact.is_choosable:
            latest[-1] = max(latest[-1], fact.pts)
    return all(before < after for before, after in pairwise(latest))


def _parts(shown: Sequence[_Seen]) -> list[list[int]]:
    """The distinct times of groups of pictures, ascending; those of a group that is shown after the one before stand in one list with it."""
    groups: list[set[int]] = [set()]
    for each in shown:
        if each.is_key:
            groups.append(set())
        if each.pts is not None:
            groups[-1].add(each.pts)
    parts: list[list[int]] = []
    for group in filter(None, groups):
        if parts and min(group) > parts[-1][-1]:
            parts[-1] += sorted(group)
        else:
            parts.append(sorted(group))
    return parts


def refuse_still(container_name: str, index: PacketIndex) -> None:
    """Refuse a PNG that holds a single picture (a GIF of one picture is judged, and found to be too little).

    Raises:
        ImageOnlyError: the only packet is the whole file.
    """
    if container_name == "apng" and index.num_packets == 1:
        raise ImageOnlyError("the file is a single still picture, not a video; upload a video file")
