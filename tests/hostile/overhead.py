"""What isolation costs one video: the same clip decoded in a sandboxed child and in this very process, in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builders import moving_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.video import picture
from detect_core.video.decode import DecodeSession
from detect_core.video.foreign_file import ForeignFile
from detect_core.video.index import index_packets
from detect_core.video.keeper import NurseryKeeper, keeper
from detect_core.video.probe import open_container
from detect_core.video.quantiser import key_quantiser
from detect_core.video.stream import DecodeTally, decode_wanted
from detect_core.video.upright import orientation_of

_BARE = Path(__file__).with_name("bare_nursery.py")


@dataclass(frozen=True)
class Overhead:
    """Medians of one run; each turn decodes the same clip three ways."""

    overhead_ms: float
    """CPU time of a child with sandbox minus one without, turn by turn: system call filter, Landlock, limits. Wall time would
    measure who else uses the machine."""
    overhead_wall_ms: float
    """The same by the clock."""
    sandboxed_ms: float
    bare_child_ms: float
    inline_ms: float
    """The same decoding in this process: what is left is the fork and the way of the pictures, at lower priority."""
    num_frames: int
    repeats: int


def sandbox_overhead(*, repeats: int = 40, num_frames: int = 32) -> Overhead:
    """Decode a short 720p clip three ways, in turns, after a warm-up."""
    options = ScreeningOptions(num_frames=num_frames)
    bare = NurseryKeeper([str(_BARE)])
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, moving_pictures(50, size=(1280, 720)), options={"g": "25"})
        ways: dict[str, Callable[[], tuple[int, float]]] = {
            "sandboxed": lambda: _in_child(clip, options, keeper()),
            "bare": lambda: _in_child(clip, options, bare),
            "inline": lambda: _inline(clip, options),
        }
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(repeats + 2):
            # each of the pair goes first in every other turn; after `inline`, whose threads still spin, somebody else takes the blow
            for name in ("warm", *(("sandboxed", "bare") if turn % 2 else ("bare", "sandboxed")), "inline"):
                if name == "warm":
                    _in_child(clip, options, bare)
                    continue
                started = time.perf_counter()
                count, cpu_seconds = ways[name]()
                if count != num_frames:
                    raise AssertionError(f"{name} gave {count} frames, expected {num_frames}")
                if turn >= 2:
                    wall[name].append(1000 * (time.perf_counter() - started))
                    cpu[name].append(1000 * cpu_seconds)
    bare.close()
    medians = {name: round(statistics.median(values), 2) for name, values in wall.items()}
    return Overhead(
        overhead_ms=_median_difference(cpu["sandboxed"], cpu["bare"]),
        overhead_wall_ms=_median_difference(wall["sandboxed"], wall["bare"]),
        sandboxed_ms=medians["sandboxed"],
        bare_child_ms=medians["bare"],
        inline_ms=medians["inline"],
        num_frames=num_frames,
        repeats=repeats,
    )


def _median_difference(those: list[float], these: list[float]) -> float:
    return round(statistics.median(one - other for one, other in zip(those, these, strict=True)), 2)


def _in_child(clip: Path, options: ScreeningOptions, nursery: NurseryKeeper) -> tuple[int, float]:
    count = 0
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as session:
        session.open()
        more = True
        while more:
            frames, more = session.next_frames(options.num_frames)
            count += len(frames)
            session.release()
        child = session._child
    if not child.dead.wait(60):
        raise AssertionError("the child did not end")
    return count, child.cpu_seconds


def _inline(clip: Path, options: ScreeningOptions) -> tuple[int, float]:
    started = time.thread_time()
    with clip.open("rb") as raw:
        file, limits = ForeignFile(raw.fileno()), options.decode
        container, stream, _warnings = open_container(file, limits=limits)
        index = index_packets(container, stream, limits=limits)
        key_quantiser(stream.codec_context, index.key_packet, pixels=limits.frame_pixels)()
        shown = 0
        for _seconds, frame in decode_wanted(
            file, (container, stream), index, num_frames=options.num_frames, limits=limits, tally=DecodeTally()
        ):
            small = picture.small_rgb(frame, long_side_px=options.small_long_side_px, orientation=orientation_of(frame))
            shown += small.copy().ndim == 3
        return shown, time.thread_time() - started
