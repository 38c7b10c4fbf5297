"""Videos that ask for too much: each must end in a verdict or a named reason within its budget, and leave its neighbours alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from detect_core.errors import DetectCoreError
from detect_core.options import DecodeLimits
from detect_core.pipeline import Screener

from .clips import loop_clip, make_clip
from .measure import Bench
from .peers import bench_options, screen, whole_look

_NUM_NEIGHBOURS: Final = 4
_CROWD: Final = 100


def budgets(bench: Bench, default: Screener, place: Path, *, quick: bool) -> None:
    """A crowd in every frame, a decode that never ends in time, an hour of 4K at 60 frames a second."""
    bench.say("videos that ask for too much ...")
    neighbour = make_clip(place, height_px=720, seconds=10).path
    # as many as the face detector can tell apart in its small pictures
    crowd = make_clip(place, height_px=1080, seconds=10, num_faces=_CROWD).path
    alone = make_clip(place, height_px=1080, seconds=10).path
    started = time.perf_counter()
    with whole_look(default):
        verdict = screen(default, crowd)
    bench.detail["crowd"] = {"verdict": verdict.verdict, "warnings": verdict.warnings, "faces_kept": verdict.sampling.num_faces}
    bench.row(f"{_CROWD} faces in each of 32 frames: seconds", time.perf_counter() - started, "s", at_most=60)
    bench.row("the crowd's verdict says that faces were left out", float("FACES_LEFT_OUT" in verdict.warnings), "", at_least=1)
    _neighbours(bench, default, neighbour, (default, crowd), (default, alone), f"a crowd of {_CROWD} / of one face in the same picture")
    # a decoder of one frame a second is one that cannot finish 32 frames in its budget: here the budget is made as small
    slow = replace(bench_options(), decode=DecodeLimits(wall_seconds=0.2))
    impatient = Screener(default.bundle_set, options=slow, device=default.device, precision="auto")
    large = make_clip(place, height_px=2160, seconds=4, rate=60).path
    bench.detail["slow_decode"] = _reason(impatient, large)
    bench.row(
        "a decode beyond its budget ends in a named reason",
        float(bench.detail["slow_decode"]["reason"] == "DecodeTimeoutError"),
        "",
        at_least=1,
    )
    _neighbours(bench, default, neighbour, (impatient, large), (default, neighbour), "a decode that is stopped / of an ordinary video")
    impatient.close()
    if not quick:
        hour = loop_clip(large, copies=900)
        bench.detail["hour_of_4k"] = {**_reason(default, hour), "bytes": hour.stat().st_size}
        bench.row(
            "an hour of 4K at 60 frames a second: seconds to a verdict or a named reason",
            bench.detail["hour_of_4k"]["seconds"],
            "s",
            at_most=60,
        )
        hour.unlink()


def _reason(screener: Screener, clip: Path) -> dict[str, object]:
    started = time.perf_counter()
    try:
        reason = screen(screener, clip).verdict
    except DetectCoreError as err:
        reason = type(err).__name__
    return {"reason": reason, "seconds": time.perf_counter() - started}


def _neighbours(
    bench: Bench, screener: Screener, neighbour: Path, odd: tuple[Screener, Path], ordinary: tuple[Screener, Path], what: str
) -> None:
    """CPU-bound machines give a busy neighbour's share away: an ordinary video beside it is the measure, not an idle machine."""

    def seconds(beside: tuple[Screener, Path]) -> float:
        best = float("inf")
        for _ in range(bench.repeats):
            with ThreadPoolExecutor(2) as pool:
                busy = pool.submit(lambda: [_reason(*beside) for _ in range(_NUM_NEIGHBOURS)])
                started = time.perf_counter()
                list(pool.map(lambda path: screen(screener, path), [neighbour] * _NUM_NEIGHBOURS))
                best = min(best, time.perf_counter() - started)
                busy.result()
        return best

    bench.row(f"neighbours of {what}", seconds(odd) / seconds(ordinary), "x", at_most=1.1)
