"""The real detectors on real clips: a run with killed workers gives the same verdicts, bit for bit, as a quiet scan.

One video at a time and one torch thread on both sides: the same crops in another batch or on other threads differ in the
ninth digit, which is arithmetic and not chaos.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.report import Report
from tests.chaos.world import PYTHON, World, stable_part
from workers.settings import base_environment


def find_clips(count: int) -> list[Path]:
    """Some clips of the shared material, the same every time; empty when it is not here."""
    shared = Path(os.environ.get("VERIFRAME_SHARED", Path(__file__).parents[3] / "shared"))
    found = sorted(path for path in (shared / "videos").rglob("*") if path.suffix in (".mp4", ".webm", ".mkv", ".mov"))
    step = max(1, len(found) // count)
    return found[::step][:count]


def quiet_scan(paths: Iterable[Path]) -> tuple[int, list[dict[str, Any]]]:
    """`veriframe scan --json` in a process of its own; gives its exit status and the objects."""
    env = {**base_environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [PYTHON, "-m", "workers", "scan", "--json", *map(str, paths)], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def outcome(body: dict[str, Any]) -> object:
    """What must be equal: the verdict without times and costs, or the code of the failure."""
    return {**stable_part(body), "video_id": ""} if body["state"] == "complete" else body["error"]["code"]


def effect_parity(report: Report, rng: random.Random, *, clips: int) -> None:
    paths = find_clips(clips)
    name = f"real detectors on {len(paths)} clips, worker killed"
    if not paths:
        report.add(name, "not run", "", goal="(needs ../shared/videos)", passed=None)
        return
    status, bodies = quiet_scan(paths)
    if status not in (0, 3) or len(bodies) != len(paths):
        report.add(name, "not run", "", goal=f"(scan ended with {status})", passed=None)
        return
    named = {f"clip_{i:02d}": path for i, path in enumerate(paths)}
    quiet = {video_id: outcome(body) for video_id, body in zip(named, bodies, strict=True)}
    with World(workers=0, api=False, concurrency=1, lease_seconds=5.0) as world:
        for video_id, path in named.items():
            shutil.copy(path, world.media / f"{video_id}.mp4")
        world.push_raw(world.direct_client(), list(named))
        worker = world.fleet.add("worker-real", [PYTHON, "-m", "workers", "worker"], world.env)
        kills = 0
        while kills < 4:
            before = world.num_finished()
            if not world.wait_finished(min(len(named), before + 3), seconds=180):
                break
            time.sleep(rng.uniform(0.2, 1.5))
            world.fleet.kill(worker)
            kills += 1
        world.wait_finished(len(named), seconds=300)
        rows = world.query("select video_id, body from verdicts")
        chaos: dict[str, object] = {video_id: outcome(json.loads(body)) for video_id, body in rows}
        chaos |= dict(world.query("select video_id, error_code from jobs where state != 'VERDICT'"))
        world.fleet.stop()
        orphans, temp_files = world.leftovers()
    differing = [video_id for video_id, expected in quiet.items() if chaos.get(video_id) != expected]
    report.at_most(f"{name} {kills} times: verdicts that differ from a quiet scan", len(differing), "videos", 0)
    report.at_most("real detectors: orphans and temp files after the kills", orphans + temp_files, "", 0)
    report.detail["real"] = {"clips": len(paths), "kills": kills, "differing": differing}
