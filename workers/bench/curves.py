"""How the price grows: with the clip's length, with the faces in it, with videos at the same time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from detect_core.batching import BatchReport
from detect_core.pipeline import Screener

from .clips import loop_clip, make_clip
from .measure import Bench
from .peers import NUM_FRAMES, ran, screen, whole_look

_LENGTHS: Final = {"10 s": 1, "30 s": 3, "2 min": 12, "10 min": 60, "2 h": 720}
"""Copies of a ten-second clip."""


def by_length(bench: Bench, default: Screener, place: Path, *, quick: bool) -> None:
    """32 frames out of 10 seconds to two hours of 1080p; longer clips repeat the packets of the ten-second one."""
    bench.say("cost against length ...")
    base = make_clip(place, height_px=1080, seconds=10).path
    lengths = {name: copies for name, copies in _LENGTHS.items() if not quick or copies <= 60}
    clips = {name: base if copies == 1 else loop_clip(base, copies=copies) for name, copies in lengths.items()}
    with whole_look(default):
        spent = bench.interleaved({name: partial(ran, default, clip) for name, clip in clips.items()}, warm=False)
    bench.detail["by_length"] = {name: each.as_json() for name, each in spent.items()}
    for name, each in spent.items():
        bench.row(f"1080p, {name}: {NUM_FRAMES} frames", each.wall_seconds, "s")
    bench.row("1080p upload of 10 min / of 30 s", spent["10 min"].wall_seconds / spent["30 s"].wall_seconds, "x", at_most=1.5)
    for clip in clips.values():
        if clip != base:
            clip.unlink()


def by_faces(bench: Bench, default: Screener, place: Path, *, quick: bool) -> None:
    """One face to twenty in the same picture."""
    bench.say("cost against faces ...")
    clips = {count: make_clip(place, height_px=1080, seconds=4, num_faces=count).path for count in ((1, 20) if quick else (1, 5, 20))}
    with whole_look(default):
        spent = bench.interleaved({str(count): partial(ran, default, clip) for count, clip in clips.items()})
        looked = {str(count): screen(default, clip).sampling for count, clip in clips.items()}
    found = {count: sampling.num_faces / sampling.num_decoded for count, sampling in looked.items()}
    bench.detail["by_faces"] = {count: {**each.as_json(), "found_per_frame": found[count]} for count, each in spent.items()}
    for stage, goal in (("detect", 1.5), ("decode", 1.5)):
        times = spent["20"].stages[stage] / max(spent["1"].stages[stage], 1e-3)
        bench.row(f"{stage}, 20 faces / 1 face (waiting time)", times, "x", at_most=goal, judged=False)
    bench.row("whole screening, 20 faces / 1 face, CPU", spent["20"].cpu_seconds / spent["1"].cpu_seconds, "x")
    bench.row("faces found per frame in the picture of 20", found["20"], "")


def by_size(bench: Bench, default: Screener, place: Path) -> None:
    """480p to 1080p."""
    bench.say("cost against size ...")
    clips = {f"{height}p": make_clip(place, height_px=height, seconds=10).path for height in (480, 720, 1080)}
    with whole_look(default):
        spent = bench.interleaved({name: partial(ran, default, clip) for name, clip in clips.items()})
    bench.detail["by_size"] = {name: each.as_json() for name, each in spent.items()}
    for name, each in spent.items():
        bench.row(f"{name}, 10 s: {NUM_FRAMES} frames", each.wall_seconds, "s")


def by_concurrency(bench: Bench, default: Screener, reports: list[BatchReport], clip: Path) -> None:
    """One, two and four videos at a time in one process; the fill of the batches they share."""
    bench.say("videos at the same time ...")
    rates: dict[int, float] = {}
    for at_once in (1, 2, 4):
        reports.clear()
        best = float("inf")
        for _ in range(bench.repeats):
            started = time.perf_counter()
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(lambda path: screen(default, path), [clip] * 4))
            best = min(best, time.perf_counter() - started)
        rates[at_once] = 4 / best
        bench.detail[f"batches, {at_once} at once"] = _batches(reports)
        bench.row(f"videos per second, {at_once} at a time", rates[at_once], "1/s")
    bench.row("throughput, 4 at a time / 1", rates[4] / rates[1], "x")
    batches = bench.detail["batches, 4 at once"]
    for lane, each in batches.items():
        bench.row(f"batch fill of {lane}, 4 at a time", each["fill"], "of 1")
        bench.row(f"wait for {lane}, 4 at a time", 1e3 * each["median_wait_seconds"], "ms")


def _batches(reports: Sequence[BatchReport]) -> dict[str, dict[str, float]]:
    lanes = {report.lane for report in reports}
    return {
        lane: {
            "batches": float(len(members)),
            "fill": statistics.mean(report.num_items / report.max_batch for report in members),
            "median_wait_seconds": statistics.median(report.oldest_wait_seconds for report in members),
        }
        for lane in sorted(lanes)
        for members in [[report for report in reports if report.lane == lane]]
    }
