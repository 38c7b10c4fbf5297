"""The stock loop in a process of its own, so that it runs with the allocator settings it would have, and with ours."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..errors import BenchError

_PROGRAM = "import sys; from workers.bench.stock_process import main; main(sys.argv[1:])"


def run_stock(clip: Path, *, num_frames: int, size_px: int, threads: int, keep_memory: bool) -> dict[str, Any]:
    """One warmed-up run: wall and CPU seconds and the stages.

    Raises:
        BenchError: the process failed.
    """
    arguments = [str(clip), str(num_frames), str(size_px), str(threads), str(int(keep_memory))]
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"tried to run the stock loop on {clip.name}, it ended with {done.returncode}: {done.stderr[-300:]}")
    spent: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return spent


def main(arguments: list[str]) -> None:
    """Entry of the process."""
    from workers.allocator import keep_freed_memory

    clip, num_frames, size_px, threads, keep_memory = Path(arguments[0]), *(int(each) for each in arguments[1:])
    if keep_memory:
        keep_freed_memory()
    import torch

    from detect_core.nets import build_net

    from .stock_loop import StockLoop

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    loop = StockLoop(build_net("xception"), size_px=size_px)
    loop.run(clip, num_frames=2)
    wall, cpu = time.perf_counter(), time.process_time()
    _score, stages = loop.run(clip, num_frames=num_frames)
    spent = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "stages": stages}
    sys.stdout.write(json.dumps(spent) + "\n")
