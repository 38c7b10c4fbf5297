"""Runs the bench and writes `reports/bench.json`: ratios within one run, stages, and floors measured beside them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from detect_core.batching import BatchReport
from detect_core.pipeline import Screener

from ..screener import idle_cores
from ..terminal import make_console, using_path
from .budgets import budgets
from .clips import make_clip
from .curves import by_concurrency, by_faces, by_length, by_size
from .gpu import gpu_table
from .measure import Bench
from .memory import peak_memory
from .peers import bench_options, compare, ran
from .recall import face_recall
from .service import service_overhead


def run_bench(
    clips: Sequence[Path],
    *,
    out: Path,
    repeats: int,
    quick: bool,
    device: str = "cpu",
    threads: int | None = None,
    recall_folder: Path | None = None,
) -> int:
    """Measure and report; 0 when no goal was missed, else 3.

    Args:
        clips: the user's clips; none makes the bench encode its own.
        out: the report; written after every part, so that a run that is stopped leaves what it has.
        repeats: runs per figure, after a warm-up; the shortest counts.
        quick: fewer lengths and videos, no hour of 4K.
        device: of the curves, the service and the budgets; `cuda` adds the table of the GPU. The comparison with the usual loop and the
            peak of memory are those of the processor everywhere.
        threads: of every net, ours and the peers'; on a machine with other load 1 is fair: waiting threads burn time.
        recall_folder: videos on which the face search is compared with MTCNN at native size.
    """
    console = make_console()
    if threads is not None:
        torch.set_num_threads(threads)
    bench = Bench(repeats=repeats, console=console)
    bench.detail |= {
        "device": device,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "decode_threads": idle_cores(),
        "load_at_start": os.getloadavg(),
    }
    reports: list[BatchReport] = []
    with tempfile.TemporaryDirectory(prefix="veriframe-bench-") as folder, ExitStack() as stack:
        place = Path(folder)
        bench.say("encoding clips ...")
        made = make_clip(place, height_px=1080, seconds=10).path  # the curves need it whatever is given: what is missing shows at once
        main = clips[0] if clips else made

        def load(on: str, **more: Any) -> Screener:
            return stack.enter_context(closing(Screener.load(options=bench_options(), device=on, precision="auto", **more)))

        default = load(device, decode_threads=idle_cores())
        beside = default if device == "cpu" else load("cpu", decode_threads=idle_cores())
        worker = load(device, on_batch=reports.append)  # several videos at a time
        parts: list[Callable[[], None]] = [
            lambda: compare(bench, main, beside, place),
            lambda: by_concurrency(bench, worker, reports, main),
            lambda: by_length(bench, default, place, quick=quick),
            lambda: by_faces(bench, default, place, quick=quick),
            lambda: by_size(bench, default, place),
            lambda: peak_memory(bench, place),
            lambda: service_overhead(bench, place, num_videos=16 if quick else 64, device=device),
            lambda: budgets(bench, worker, place, quick=quick),
        ]
        if recall_folder is not None:
            parts.append(lambda: face_recall(bench, recall_folder, num_videos=6 if quick else 24))
        if device.startswith("cuda"):
            parts.append(lambda: gpu_table(bench, main, place, device=device))
        for part in parts:
            part()
            _write(bench, out)
        for clip in clips[1:]:
            bench.detail[clip.name] = bench.interleaved({clip.name: partial(ran, default, clip)})[clip.name].as_json()
    bench.detail["load_at_end"] = os.getloadavg()
    _write(bench, out)
    console.print(bench.table())
    console.print(f"Report: {out}")
    return 3 if any(row["pass"] is False for row in bench.rows) else 0


def _write(bench: Bench, out: Path) -> None:
    with using_path(out, doing="write the report"):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"rows": bench.rows, "detail": bench.detail}, indent=2) + "\n")
