"""Peak memory of a worker: a process of its own with four 1080p videos at a time, and what a 4K clip adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import BenchError
from .clips import make_clip
from .measure import Bench

_PROGRAM = "import sys; from workers.bench.memory import main; main(sys.argv[1:])"
_SAMPLE_SECONDS = 0.02


def peak_memory(bench: Bench, place: Path) -> None:
    """Two rows."""
    bench.say("peak memory of a process, four videos at a time ...")
    ordinary = make_clip(place, height_px=1080, seconds=10).path
    large = make_clip(place, height_px=2160, seconds=4).path
    four = _peak([ordinary] * 4)
    with_4k = _peak([ordinary] * 3 + [large])
    bench.detail["memory_bytes"] = {"four 1080p": four, "three 1080p and one 4K": with_4k}
    bench.row("peak memory, 4 videos of 1080p at a time (worker and its decoders)", four / 1e9, "GB", at_most=2.5)
    bench.row("a 4K clip in the place of a 1080p one adds", (with_4k - four) / 1e6, "MB", at_most=500)


def _peak(clips: list[Path]) -> int:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *map(str, clips)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"tried to measure memory, the process ended with {done.returncode}: {done.stderr[-300:]}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: list[str]) -> None:
    """Entry of the process: screen the clips at the same time, twice, and print the peak of this process tree in bytes."""
    from workers.allocator import keep_freed_memory

    keep_freed_memory()
    from detect_core.pipeline import Screener

    from .peers import bench_options, screen

    screener = Screener.load(options=bench_options(), precision="auto")
    done = threading.Event()
    peak = 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(_SAMPLE_SECONDS):
            peak = max(peak, tree_bytes(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(len(arguments)) as pool:
        list(pool.map(lambda path: screen(screener, Path(path)), arguments * 2))
    done.set()
    watcher.join()
    screener.close()
    sys.stdout.write(f"{peak}\n")


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and of those it started; of these, pages that they share with others are left out."""
    total = _statm(pid)[0]
    for child in _descendants(pid):
        resident, shared = _statm(child)
        total += resident - shared
    return total


def _statm(pid: int) -> tuple[int, int]:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE"), int(fields[2]) * os.sysconf("SC_PAGE_SIZE")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    queue = [pid]
    while queue:
        for task in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            try:
                children = [int(each) for each in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += children
            queue += children
    return found
