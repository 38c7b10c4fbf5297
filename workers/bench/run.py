"""Runs the bench and writes `reports/bench.json`: ratios within one run, stages, and floors measured beside them."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import av
import torch
from rich.console import Console
from rich.table import Table

from detect_core.bundle import CropSpec, save_bundle
from detect_core.calibration import BundleSet, load_bundle_set
from detect_core.nets import build_net
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener

from .clips import BenchClip, make_clip
from .stock_loop import StockLoop

_NUM_FRAMES: Final = 32
_XCEPTION_PX: Final = 224


class Bench:
    """Collects rows while it runs."""

    def __init__(self, *, repeats: int, console: Console) -> None:
        self.rows: list[dict[str, Any]] = []
        self.detail: dict[str, Any] = {"cpus": os.cpu_count(), "threads": torch.get_num_threads()}
        self._repeats = repeats
        self._console = console

    def row(self, what: str, value: float, unit: str, *, goal: str, passed: bool | None) -> None:
        """Add one figure; `passed` is None for a figure without a goal."""
        self.rows.append({"what": what, "value": round(value, 3), "unit": unit, "goal": goal, "pass": passed})

    def median(self, run: Callable[[], Any]) -> float:
        """Median wall seconds of `run`, after one warm-up."""
        run()
        seconds = []
        for _ in range(self._repeats):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def say(self, text: str) -> None:
        """Tell what is being measured."""
        self._console.print(f"[dim]{text}[/]", highlight=False)


def run_bench(clips: Sequence[Path], *, out: Path, repeats: int, quick: bool) -> int:
    """Measure and report; 0 when no goal was missed, else 3.

    Args:
        clips: the user's clips; none makes the bench encode its own.
        out: the report.
        repeats: runs per figure, after a warm-up; the median counts.
        quick: leave out the curves.
    """
    console = Console()
    bench = Bench(repeats=repeats, console=console)
    with tempfile.TemporaryDirectory(prefix="veriframe-bench-") as folder:
        place = Path(folder)
        bench.say("encoding clips ...")
        main = BenchClip(clips[0], 0, 0, 0, 0) if clips else make_clip(place, height_px=1080, seconds=10)
        default = Screener.load(options=_options())
        _against_stock_loop(bench, main, default, place)
        if not clips and not quick:
            _curves(bench, default, place)
        for clip in clips[1:]:
            bench.detail[clip.name] = _stages(bench, default, clip)
        default.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": bench.rows, "detail": bench.detail}, indent=2) + "\n")
    console.print(_table(bench.rows))
    console.print(f"Report: {out}")
    return 3 if any(row["pass"] is False for row in bench.rows) else 0


def _options() -> ScreeningOptions:
    return ScreeningOptions(num_frames=_NUM_FRAMES, thumbnails=False)


def _screen(screener: Screener, path: Path) -> Any:
    with path.open("rb") as file:
        return screener.screen(file)


def _stages(bench: Bench, screener: Screener, path: Path) -> dict[str, float]:
    seconds = bench.median(lambda: _screen(screener, path))
    return {"total": round(seconds, 4), **_screen(screener, path).stage_seconds}


def _against_stock_loop(bench: Bench, clip: BenchClip, default: Screener, place: Path) -> None:
    torch.manual_seed(0)
    net = build_net("xception")
    bench.say("the stock loop: sequential decode, MTCNN frame by frame at half size, Xception in fp32 ...")
    stock = StockLoop(net, size_px=_XCEPTION_PX)
    stock_seconds = bench.median(lambda: stock.run(clip.path, num_frames=_NUM_FRAMES))
    bench.detail["stock_loop"] = {"total": stock_seconds, **stock.run(clip.path, num_frames=_NUM_FRAMES)[1]}
    bench.say("ours with the same net (its weights are random: only its time is looked at) ...")
    same = Screener(_timing_set(net, place), options=_options())
    bench.detail["ours_xception"] = _stages(bench, same, clip.path)
    same.close()
    bench.say("ours with the default bundles ...")
    bench.detail["ours_default"] = _stages(bench, default, clip.path)
    bench.say("floors: one pass of plain decoding, the matrix-multiplication roof ...")
    decode_seconds = bench.median(lambda: _decode_all(clip.path))
    flops = _flops(net)
    roof = _matmul_roof(bench)
    floor = bench.detail["ours_xception"]["decode"] + _NUM_FRAMES * flops / roof
    bench.detail["floor"] = {"decode_all_seconds": decode_seconds, "xception_flop": flops, "matmul_flop_per_second": roof, "seconds": floor}
    same_ratio = stock_seconds / bench.detail["ours_xception"]["total"]
    default_ratio = stock_seconds / bench.detail["ours_default"]["total"]
    bench.row("stock loop / ours, same Xception@224, 32 frames", same_ratio, "x", goal=">= 6", passed=same_ratio >= 6)
    bench.row("stock loop / ours, default bundles", default_ratio, "x", goal=">= 15", passed=default_ratio >= 15)
    over = bench.detail["ours_xception"]["total"] / floor
    bench.row("ours with Xception / floor (decode by plan + fp32 matmul roof)", over, "x", goal="<= 1.25", passed=over <= 1.25)
    detect = bench.detail["ours_default"]["detect"] / _NUM_FRAMES
    stock_detect = bench.detail["stock_loop"]["detect"] / _NUM_FRAMES
    bench.row("face detection per frame, stock loop / ours", stock_detect / detect, "x", goal=">= 5", passed=stock_detect >= 5 * detect)
    saved = decode_seconds / bench.detail["ours_default"]["decode"]
    bench.row("decoding everything / decoding by plan", saved, "x", goal="", passed=None)


def _curves(bench: Bench, default: Screener, place: Path) -> None:
    bench.say("cost against length and number of faces ...")
    lengths = {}
    for seconds in (10, 30, 120):
        clip = make_clip(place, height_px=480, seconds=seconds)
        lengths[seconds] = _stages(bench, default, clip.path)
    bench.detail["by_seconds"] = lengths
    growth = lengths[120]["total"] / lengths[30]["total"]
    bench.row("480p: 120 s clip / 30 s clip", growth, "x", goal="<= 1.5", passed=growth <= 1.5)
    faces = {}
    for count in (1, 5, 20):
        clip = make_clip(place, height_px=1080, seconds=4, num_faces=count)
        faces[count] = {**_stages(bench, default, clip.path), "found": _screen(default, clip.path).sampling.num_faces / _NUM_FRAMES}
    bench.detail["by_faces"] = faces
    flat = faces[20]["detect"] / faces[1]["detect"]
    bench.row("face detection, 20 faces / 1 face", flat, "x", goal="", passed=None)


def _timing_set(net: torch.nn.Module, place: Path) -> BundleSet:
    """A set around a net with random weights, for its time only; nothing it says is kept."""
    bundle = save_bundle(
        place / "xception",
        net,
        name="xception",
        version="timing-only",
        detector="xception",
        net="xception",
        net_options={},
        crop=CropSpec(size_px=_XCEPTION_PX, margin=1.3),
        temperature=1.0,
        card={},
    )
    document = {
        "schema": "bundle_set/1",
        "name": "timing-only",
        "bundles": [{"name": "xception", "path": "xception", "sha256": bundle.sha256}],
        "fusion": {"kind": "max"},
        "strategy": "best_window/1",
        "beta": 0.0,
        "platt": {"a": 1.0, "c": 0.0},
        "thresholds": {"t_review": 0.5, "t_fake": 0.9},
        "protocol": {"date": "none"},
    }
    path = place / "timing.json"
    path.write_text(json.dumps(document))
    return load_bundle_set(path)


def _decode_all(path: Path) -> int:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def _flops(net: torch.nn.Module) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.eval()(torch.zeros(1, 3, _XCEPTION_PX, _XCEPTION_PX))
    return float(counter.get_total_flops())


def _matmul_roof(bench: Bench) -> float:
    size = 1536
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / bench.median(lambda: torch.mm(a, b))


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table()
    for name in ("what", "value", "unit", "goal", "pass"):
        table.add_column(name)
    for row in rows:
        passed = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}[row["pass"]]
        table.add_row(row["what"], str(row["value"]), row["unit"], row["goal"], passed)
    return table
