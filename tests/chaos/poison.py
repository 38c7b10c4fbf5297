"""Poison among good videos: segfaults, out-of-memory kills, hangs and MemoryErrors, in the child and in the process itself."""

from __future__ import annotations

import random
import time
from collections import Counter

from tests.chaos.history import broken_promises
from tests.chaos.report import Report
from tests.chaos.storm import expected_verdict, video_ids
from tests.chaos.world import World

# the process ones take a worker with them each time and then wait for a lease, so there are fewer of them
SHARES = {
    "child-segfault": 0.22,
    "child-oom": 0.22,
    "child-hang": 0.2,
    "memory-error": 0.2,
    "process-segfault": 0.07,
    "process-oom": 0.07,
    "process-hang": 0.02,
}


def poison_among_good(report: Report, rng: random.Random, *, good: int, poisons: int) -> None:
    kinds = {kind: round(share * poisons) for kind, share in SHARES.items()}
    poison_ids = {f"{kind}_{i}": kind for kind, count in kinds.items() for i in range(count)}
    good_ids = video_ids("good", good)
    with World(workers=2, work_seconds=0.05, webhooks=True, video_soft_seconds=4.0, video_hard_seconds=6.0) as world:
        world.make_media(good_ids)
        for video_id, kind in poison_ids.items():
            world.make_media([video_id], poison=kind)
        everything = [*good_ids, *poison_ids]
        rng.shuffle(everything)
        client = world.direct_client()
        started = time.monotonic()
        world.push_raw(client, everything)
        world.wait_finished(len(everything), seconds=600)
        seconds = time.monotonic() - started
        rows = world.query("select video_id, state, attempts, crash_attempts, error_code from jobs")
        verdicts = world.verdict_of()
        good_ended = sum(verdicts.get(video_id) == expected_verdict(video_id) for video_id in good_ids)
        ended = {row[0]: row for row in rows if row[1] in ("FAILED", "POISONED")}
        attempts = max((row[2] for row in rows if row[0] in poison_ids), default=0)
        codes = Counter(f"{poison_ids[row[0]]} -> {row[4]}" for row in rows if row[0] in poison_ids)
        history = world.history()
        again = f"after_{rng.randrange(10**6)}"
        world.make_media([again])
        world.push_raw(client, [again])
        alive = world.wait_finished(len(everything) + 1, seconds=30)
        name = f"{len(poison_ids)} poison among {good} good"
        report.equals(f"{name}: good verdicts", good_ended, "videos", good)
        report.equals(f"{name}: poison ended with a code", sum(v in ended for v in poison_ids), "videos", len(poison_ids))
        report.at_most(f"{name}: attempts of one poison, most", attempts, "attempts", 3)
        report.add(f"{name}: workers take the next video", str(alive), "", goal="True", passed=alive)
        report.at_most(f"{name}: broken promises in the event log", len(broken_promises(history)), "events", 0)
        report.detail["poison"] = {"seconds": round(seconds, 1), "codes": dict(codes)}
