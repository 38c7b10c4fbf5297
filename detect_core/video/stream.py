"""Decode the wanted frames of one indexed stream, in one pass, dropping what need not be decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import HardwareDecodeError, ResolutionTooLargeError, UnsupportedCodecError
from ..options import DecodeLimits
from .foreign_file import ForeignFile
from .hardware import as_in_software
from .index import PacketIndex
from .plan import Run, cheap_neighbours, costs_beside_others, costs_from_key, plan_runs
from .probe import open_container
from .quantiser import EXPORT
from .sample import first_look_of, is_sparse, long_shown, sample_indices, tolerance_seconds, without_gaps


@dataclass(slots=True)
class DecodeTally:
    """What a pass cost and what went wrong in it."""

    num_planned: int = 0
    """Frames that the pass is for; damaged ones never come."""
    num_packets_decoded: int = 0
    num_errors: int = 0
    num_frames_out: int = 0
    num_missed: int = 0
    """Planned frames that did not come in their turn."""
    warnings: set[str] = field(default_factory=set)
    hardware: str = ""
    """One of `HARDWARE_OUTCOMES`; empty with the option off."""


Stretch = tuple[float, float]
"""[start, end] in seconds since the first frame."""
_EVERYTHING: Final[Stretch] = (0.0, float("inf"))
EXACT_IN_THREADS: Final = {"vp9"}
"""Codecs whose decoder, in several threads, gives the same pictures or says that it met damage, as far as mutated files show. Those of HEVC
and VP8 often do not say so, that of H.264 for one damaged file in about a hundred."""
_SOON_DECODED: Final = 3000
"""Packets that may be decoded once more where a picture is missing: two minutes of most videos."""


def wanted_packets(index: PacketIndex, *, num_frames: int, within: Stretch = _EVERYTHING, time_base: float) -> list[int]:
    """Packet numbers of `num_frames` frames spread evenly over a stretch of time; empty for a stream without usable times.

    Each is the cheapest to decode near its time.
    """
    start, end = within
    order = sorted((n for n, packet in enumerate(index.packets) if packet.is_choosable), key=lambda n: index.packets[n].pts)
    if within != _EVERYTHING:
        order = [n for n in order if start <= (index.packets[n].pts - index.first_pts) * time_base <= end]
    packets = index.packets
    if len(order) > num_frames:
        seen = _long_shown(index, num_frames=num_frames, within=within, time_base=time_base)
        if seen is not None and (left := [n for n in order if packets[n].pts in seen]):
            order = left
            packets = tuple(replace(packet, is_choosable=packet.is_choosable and packet.pts in seen) for packet in packets)
    times = without_gaps([float(packets[n].pts) for n in order], second=1 / time_base)
    wanted = [order[i] for i in sample_indices(num_frames, times_seconds=times)] if order else []
    span_seconds = (times[-1] - times[0]) * time_base if times else 0.0
    tolerance = tolerance_seconds(num_frames, span_seconds=span_seconds) / time_base
    if not tolerance:
        return wanted
    costs = costs_from_key if is_sparse(num_frames, span_seconds=span_seconds) else costs_beside_others
    return cheap_neighbours(packets, wanted=wanted, tolerance=tolerance, costs=costs(packets))


def _long_shown(index: PacketIndex, *, num_frames: int, within: Stretch, time_base: float) -> set[int] | None:
    """Times of pictures in a stretch that are shown for long enough to be seen; None: of all."""
    inside = [pts for pts in index.times if within[0] <= (pts - index.first_pts) * time_base <= within[1]]
    times = without_gaps([float(pts) for pts in inside], second=1 / time_base)
    kept = long_shown(times, stratum=(times[-1] - times[0]) / num_frames) if times else []
    return {inside[i] for i in kept} if len(kept) < len(inside) else None


def decode_wanted(
    file: ForeignFile,
    opened: tuple[InputContainer, VideoStream],
    index: PacketIndex,
    *,
    num_frames: int,
    limits: DecodeLimits,
    tally: DecodeTally,
    within_seconds: Stretch | None = None,
    first_look: int | None = None,
    hwaccel: HWAccel | None = None,
    threads: int = 1,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield `(seconds since the first frame, frame)` of the sampled frames, in display order.

    The container that was `opened` and indexed is closed at the end, or before where the video is read again. Only the
    planned packets reach the decoder; with a `first_look` about so many of the sampled frames are decoded. A stream
    without usable timestamps is decoded from start to end and sampled by frame number. For several `threads` see `doubt.py`.

    Raises:
        ResolutionTooLargeError: a decoded picture is larger than the limit.
        UnsupportedCodecError: the decoder cannot be opened.
        HardwareDecodeError: a picture of `hwaccel` cannot be made what software gives; the `opened` container stays open.
    """
    container, stream = opened
    if hwaccel is not None:
        container, stream, _warnings = open_container(file, limits=limits, hwaccel=hwaccel)
    elif not index.held:
        container.close()
        container, stream, _warnings = open_container(file, limits=limits)
    within = within_seconds or _EVERYTHING
    try:
        _set_up(stream, limits=limits, hwaccel=hwaccel, threads=threads)
        time_base = float(stream.time_base or 0) or 1.0
        if not index.packets:
            numbers = _sampled_numbers(index, num_frames=num_frames, within=within)
            chosen = first_look_of(numbers, first_look)
            tally.num_planned = len(chosen)
            yield from _sequential(_packets(container, stream, index), stream, index, wanted=chosen, limits=limits, tally=tally)
            return
        wanted = wanted_packets(index, num_frames=num_frames, within=within, time_base=time_base)
        chosen = first_look_of(wanted, first_look)
        tally.num_planned = len(chosen)
        if not chosen:
            return
        runs = plan_runs(index.packets, wanted=chosen, whole_from=index.whole_from)
        last_seconds, num_given = -1.0, 0
        try:
            planned = _planned(
                _packets(container, stream, index), stream, index, runs=runs, limits=limits, tally=tally, is_last_try=index.whole_from == 0
            )
            for seconds, frame in _forward(planned, tally=tally):
                last_seconds, num_given = seconds, num_given + 1
                yield seconds, frame
        except _PictureMissingError as missing:
            if hwaccel is not None:
                raise HardwareDecodeError(f"decoding on the card lacks a picture ({missing}); software must decode it") from missing
            container.close()
            container, stream, _warnings = open_container(file, limits=limits)
            _set_up(stream, limits=limits, hwaccel=None, threads=1)
            runs = _second_try(index, chosen, after=round(last_seconds / time_base) + index.first_pts, num_given=num_given, tally=tally)
            if not runs:
                return
            planned = _planned(_packets(container, stream, index), stream, index, runs=runs, limits=limits, tally=tally, is_last_try=True)
            yield from _forward(planned, tally=tally)
    except av.error.DecoderNotFoundError as err:
        raise UnsupportedCodecError(f"the video's decoder cannot be opened ({err}); upload H.264, HEVC, VP9 or AV1") from err
    finally:
        container.close()


def _second_try(index: PacketIndex, chosen: Sequence[int], *, after: float, num_given: int, tally: DecodeTally) -> tuple[Run, ...]:
    """Runs for what is still due: those before the missing one came, and a long video is not decoded from its beginning for one picture.

    Args:
        index: of the stream.
        chosen: all that was planned.
        after: time of the last picture that was given, in the stream's time base; an earlier one comes too late.
        num_given: how many were.
        tally: told what comes too late.
    """
    left = [n for n in chosen if index.packets[n].pts > after]
    if num_given == 0:
        tally.num_planned = len(chosen)  # what was taken off is due again
    if tally.num_planned > num_given + len(left):
        tally.num_missed += tally.num_planned - num_given - len(left)
        tally.warnings.add("PARTIAL_DECODE")
    whole_from = 0 if left and max(left) < _SOON_DECODED else index.whole_from
    return plan_runs(index.packets, wanted=left, whole_from=whole_from, is_generous=True)


class _PictureMissingError(Exception):
    """Raised when a planned picture did not come: what was left out may have been needed, whatever the packets said."""


def leaves_a_stretch_unseen(index: PacketIndex, *, num_frames: int) -> bool:
    """Whether more time than a look stands for cannot be looked at, or looks that are spread by number are not spread over time."""
    if not index.packets:
        return "VFR" in index.warnings
    return index.longest_unseen_seconds > index.duration_seconds / num_frames


def _set_up(stream: VideoStream, *, limits: DecodeLimits, hwaccel: HWAccel | None, threads: int) -> None:
    context = stream.codec_context
    context.thread_count = threads
    context.options = {"max_pixels": str(limits.frame_pixels), **(EXPORT if hwaccel is None and context.name == "h264" else {})}
    if threads > 1:
        context.thread_type = "FRAME"
        context.options = {**context.options, "err_detect": "crccheck+bitstream+buffer+explode"}  # a damaged picture does not come out


def _packets(container: InputContainer, stream: VideoStream, index: PacketIndex) -> Iterator[Packet[VideoStream]]:
    return iter(index.held) if index.held else (packet for packet in container.demux(stream) if packet.size)


def _planned(
    packets: Iterator[Packet[VideoStream]],
    stream: VideoStream,
    index: PacketIndex,
    *,
    runs: Sequence[Run],
    limits: DecodeLimits,
    tally: DecodeTally,
    is_last_try: bool,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decode runs; each picture comes in its turn.

    Raises:
        _PictureMissingError: one does not, and this is neither the last try nor in threads, where a miss is a doubt.
    """
    run_of = {number: i for i, run in enumerate(runs) for number in run.numbers}
    last = runs[-1].numbers[-1]
    is_strict = not is_last_try and stream.codec_context.thread_count == 1
    current = -1
    due = _Due(index, set(), time_base=float(stream.time_base or 0) or 1.0, is_strict=is_strict)
    for number, packet in enumerate(packets):
        if number > last:
            break
        run = run_of.get(number)
        if run is None:
            continue
        if run != current:
            if current >= 0:
                yield from due.among(_decode(stream, None, tally), limits=limits, tally=tally)
                yield from due.close(tally)
                stream.codec_context.flush_buffers()
            current = run
            due.missing = set(runs[run].wanted_pts)
        tally.num_packets_decoded += 1
        yield from due.among(_decode(stream, packet, tally), limits=limits, tally=tally)
        if due.is_done and run == len(runs) - 1:
            if stream.codec_context.thread_count == 1:
                return
            break  # packets are under way in other threads, and their errors
    yield from due.among(_decode(stream, None, tally), limits=limits, tally=tally)
    yield from due.close(tally)


@dataclass(slots=True)
class _Due:
    """Picks the planned pictures of a run out of what the decoder gives."""

    index: PacketIndex
    missing: set[int]
    time_base: float
    is_strict: bool
    waiting: av.VideoFrame | None = None
    """The planned picture of a shared time that came last."""

    def among(self, frames: Sequence[av.VideoFrame], *, limits: DecodeLimits, tally: DecodeTally) -> Iterator[tuple[float, av.VideoFrame]]:
        """The planned ones, each with its time."""
        for frame in frames:
            _check(frame, limits=limits, tally=tally)
            if self.missing & self.index.lead:
                self._forget({pts for pts in self.missing & self.index.lead if frame.pts is not None and pts < frame.pts}, tally)
            if self.waiting is not None and frame.pts != self.waiting.pts:
                yield self._timed(self.waiting)
                self.waiting = None
            if frame.pts is None or (frame.pts not in self.missing and self.waiting is None):
                continue
            if frame.pts in self.missing:
                self.missing.discard(frame.pts)
                if any(pts < frame.pts for pts in self.missing):
                    self._miss(1, tally)
            if frame.pts in self.index.shared:
                self.waiting = frame  # the next picture may take its place at once
            else:
                yield self._timed(frame)

    def close(self, tally: DecodeTally) -> Iterator[tuple[float, av.VideoFrame]]:
        """The decoder is empty: what is still missing does not come any more."""
        if self.waiting is not None:
            yield self._timed(self.waiting)
            self.waiting = None
        self._forget(self.missing & self.index.lead, tally)
        if self.missing:
            self._miss(len(self.missing), tally)

    @property
    def is_done(self) -> bool:
        """Whether all that was due came."""
        return not self.missing and self.waiting is None

    def _forget(self, never_shown: set[int], tally: DecodeTally) -> None:
        """Take pictures off the plan that no decoder gives."""
        self.missing -= never_shown
        tally.num_planned -= len(never_shown)

    def _timed(self, frame: av.VideoFrame) -> tuple[float, av.VideoFrame]:
        return ((frame.pts or 0) - self.index.first_pts) * self.time_base, frame

    def _miss(self, count: int, tally: DecodeTally) -> None:
        if self.is_strict:
            raise _PictureMissingError(f"{count} of {tally.num_planned} did not come in their turn")
        tally.num_missed += count
        tally.warnings.add("PARTIAL_DECODE")


def _forward(frames: Iterator[tuple[float, av.VideoFrame]], *, tally: DecodeTally) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames without those that come after one of a later time: damaged times, which a track of a face cannot follow."""
    last_seconds = -1.0
    for seconds, frame in frames:
        if seconds > last_seconds:
            last_seconds = seconds
            yield seconds, frame
        else:
            tally.num_missed += 1
            tally.warnings.add("DECODE_ERRORS")


def _sampled_numbers(index: PacketIndex, *, num_frames: int, within: Stretch) -> list[int]:
    """Numbers of the sampled frames of a stream without usable times."""
    rate = index.frame_rate or 1.0
    numbers = [n for n in range(index.num_packets) if within[0] <= n / rate <= within[1]]
    return [numbers[i] for i in sample_indices(num_frames, times_seconds=[float(n) for n in numbers])]


def _sequential(
    packets: Iterator[Packet[VideoStream]],
    stream: VideoStream,
    index: PacketIndex,
    *,
    wanted: Sequence[int],
    limits: DecodeLimits,
    tally: DecodeTally,
) -> Iterator[tuple[float, av.VideoFrame]]:
    rate = index.frame_rate or 1.0
    left = set(wanted)
    number = 0
    for packet in chain(packets, [None]):
        if packet is not None:
            tally.num_packets_decoded += 1
        for frame in _decode(stream, packet, tally):
            _check(frame, limits=limits, tally=tally)
            if number in left:
                left.discard(number)
                yield number / rate, frame
            number += 1
        if not left:
            return


def _decode(stream: VideoStream, packet: Packet[VideoStream] | None, tally: DecodeTally) -> list[av.VideoFrame]:
    """Feed one packet (None drains); a damaged packet costs its own frames and is counted."""
    context = stream.codec_context
    try:
        frames = list(context.decode(packet))
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        tally.num_errors += 1
        tally.warnings.add("DECODE_ERRORS")
        return []
    if not frames or not context.is_hwaccel:
        return frames
    pictures = [as_in_software(frame) for frame in frames]
    if pictures[0] is not frames[0]:
        tally.hardware = "device"
    return pictures


def _check(frame: av.VideoFrame, *, limits: DecodeLimits, tally: DecodeTally) -> None:
    tally.num_frames_out += 1
    if frame.is_corrupt:
        tally.warnings.add("DECODE_ERRORS")
    if frame.width * frame.height > limits.frame_pixels:
        raise ResolutionTooLargeError(
            f"a decoded picture is {frame.width}x{frame.height}, the limit is {limits.frame_pixels} pixels; upload a smaller rendition"
        )
