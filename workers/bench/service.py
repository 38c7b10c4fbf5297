"""What the service adds: the same videos through broker, ledger and a worker process, and through the bare pipeline."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import torch

from ..broker import connect
from ..errors import BenchError
from ..ledger.schema import TERMINAL, VERDICT
from ..messages import DEFAULT_LANE, enqueue_message, parse_enqueue
from ..settings import load_settings
from ..up import System, apart, start_system
from .clips import make_clip
from .measure import Bench
from .peers import screen

_CONCURRENCY: Final = 2
_WAIT_SECONDS: Final = 900.0


def service_overhead(bench: Bench, place: Path, *, num_videos: int, device: str) -> None:
    """Throughput of the whole service over that of the pipeline in this process, both warm, `_CONCURRENCY` videos at a time."""
    from detect_core.pipeline import Screener

    bench.say(f"{num_videos} videos through broker, ledger and worker, and through the bare pipeline ...")
    clip = make_clip(place, height_px=720, seconds=10).path
    media = place / "media"
    media.mkdir()
    ids = [f"bench-{number}" for number in range(num_videos)]
    for name in ("warm-0", "warm-1", *ids):
        shutil.copyfile(clip, media / f"{name}.mp4")
    settings = apart(
        load_settings(
            state_dir=place / "state",
            media_template=f"{media}/{{video_id}}.mp4",
            media_roots=(media,),
            device=device,
            bundle_set="default",  # as the bare half, whatever the environment names
            concurrency=_CONCURRENCY,
            log_level="error",
        )
    )
    with start_system(settings, worker_log=place / "worker.log") as system:
        _through(system, ["warm-0", "warm-1"])
        halves = [ids[: num_videos // 2], ids[num_videos // 2 :]]
        service = [_through(system, half) for half in halves]
    from .peers import bench_options

    # the worker is another process with torch's own number of threads: the same here, whatever the bench runs with
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    screener = Screener.load(options=bench_options(), device=device, precision="auto")
    screen(screener, media / "warm-0.mp4")
    bare = []
    for half in halves:
        started = time.perf_counter()
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            list(pool.map(lambda name: screen(screener, media / f"{name}.mp4"), half))
        bare.append(time.perf_counter() - started)
    screener.close()
    torch.set_num_threads(before)
    bench.detail["service"] = {"videos": num_videos, "service_seconds": service, "bare_seconds": bare}
    bench.row(f"service throughput / bare pipeline, {num_videos} videos", sum(bare) / sum(service), "", at_least=0.92)
    bench.row("service adds per video", 1e3 * (sum(service) - sum(bare)) / num_videos, "ms")


def _through(system: System, ids: list[str]) -> float:
    """Seconds from the first ID on the inbox to the last verdict in the ledger.

    Raises:
        WorkerDiedError: the worker cannot start.
        BenchError: it did not finish in time, or a video has no verdict; with the tail of the worker's log, which goes with the bench.
    """
    client = connect(system.broker_url)
    started = time.perf_counter()
    client.lpush(DEFAULT_LANE, *(enqueue_message(parse_enqueue({"video_id": video_id})) for video_id in ids))
    waiting = list(ids)
    while waiting:
        job = system.control.ledger.latest_job(waiting[-1])
        if job is not None and job.state in TERMINAL:
            if job.state != VERDICT:
                raise BenchError(f"video {waiting[-1]} failed in the service; the worker's log ends with\n{system.worker.log_tail()}")
            waiting.pop()
            continue
        if time.perf_counter() - started > _WAIT_SECONDS:
            raise BenchError(
                f"{len(waiting)} of {len(ids)} videos had no verdict after {_WAIT_SECONDS:.0f} s; the worker's log ends with\n"
                f"{system.worker.log_tail()}"
            )
        if len(waiting) == len(ids):
            system.require_worker()
        time.sleep(0.02)
    client.close()
    return time.perf_counter() - started
