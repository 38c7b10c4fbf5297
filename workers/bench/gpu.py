"""The table of a GPU: the engine's crops per second against the bare net's, videos per hour, how long the device idles."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch

from detect_core.batching import BatchReport
from detect_core.nets import build_net
from detect_core.pipeline import Screener

from .measure import Bench
from .peers import XCEPTION_PX, bench_options, screen, timing_set

_BATCH: Final = 64
_NUM_BATCHES: Final = 20
_NUM_VIDEOS: Final = 64


def gpu_table(bench: Bench, clip: Path, place: Path, *, device: str) -> None:
    """Rows of one CUDA device."""
    torch.manual_seed(0)
    net = build_net("xception")
    reports: list[BatchReport] = []
    screener = Screener(timing_set(net, place), options=bench_options(), device=device, precision="auto", on_batch=reports.append)
    bench.say(f"{torch.cuda.get_device_name(device)}: crops per second ...")
    crops = list(np.random.default_rng(0).integers(0, 255, (_BATCH * _NUM_BATCHES, XCEPTION_PX, XCEPTION_PX, 3), np.uint8))
    bare_net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x_BCHW = torch.rand(_BATCH, 3, XCEPTION_PX, XCEPTION_PX, device=device).to(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            for _ in range(_NUM_BATCHES):
                bare_net(x_BCHW)
        torch.cuda.synchronize(device)

    def engine() -> None:
        screener.engine.logits("xception", crops, deadline=float("inf"), cancel=None)

    spent = bench.interleaved({"bare": bare, "engine": engine})
    for name, each in spent.items():
        bench.row(f"crops per second, {name}, batch {_BATCH}", len(crops) / each.wall_seconds, "1/s")
    bench.row("engine / bare net", spent["bare"].wall_seconds / spent["engine"].wall_seconds, "", at_least=0.85)
    bench.say("videos per hour ...")
    reports.clear()
    started = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: screen(screener, path), [clip] * _NUM_VIDEOS))
    seconds = time.perf_counter() - started
    bench.row("videos per hour", 3600 * _NUM_VIDEOS / seconds, "1/h")
    bench.row("share of the time in which the device had no batch", 1 - sum(report.run_seconds for report in reports) / seconds, "of 1")
    screener.close()
