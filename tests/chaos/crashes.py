"""SIGKILL exactly before and after each of claim, decode, score, commit, outbox and ack."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections import Counter

from tests.chaos.crashing import WORKER_POINTS
from tests.chaos.history import broken_promises, terminal_counts
from tests.chaos.report import Report
from tests.chaos.world import PYTHON, World

JOBS_PER_CRASH = 5


class _Ids:
    def __init__(self) -> None:
        self.all: list[str] = []
        self._lock = threading.Lock()

    def more(self, count: int) -> list[str]:
        with self._lock:
            fresh = [f"crash_{len(self.all) + i:05d}" for i in range(count)]
            self.all += fresh
        return fresh


def crash_points(report: Report, rng: random.Random, *, per_point: int) -> None:
    """`per_point` crashes of each of the six points, half before and half after it."""
    crashed: Counter[str] = Counter()
    ids = _Ids()
    specs = [f"{when}-{point}" for point in WORKER_POINTS for when in ("before", "after") for _ in range(per_point // 2)]
    rng.shuffle(specs)
    with World(workers=0, api=False, webhooks=True, lease_seconds=3.0, resend_seconds=3.0, leader_seconds=1.5) as world:
        runners = [
            threading.Thread(target=_crash_workers, args=(world, specs[i::2], ids, crashed, i, random.Random(rng.random())))
            for i in range(2)
        ]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        world.add_worker("worker")
        _crash_janitors(world, ids, crashed, rng, times=per_point)
        world.fleet.add("janitor-last", [PYTHON, "-m", "workers", "janitor"], world.env)
        world.wait_finished(len(ids.all), seconds=60)
        _wait_events(world)
        history = world.history()
        accepted = [row[0] for row in world.query("select ledger_id from jobs")]
        broken = broken_promises(history, accepted=accepted)
        twice = sum(count > 1 for count in terminal_counts(history).values())
        ended = world.num_finished()
        states = dict(world.query("select state, count(*) from jobs group by state"))
        undelivered = world.query("select count(*) from outbox where delivered_at is null")[0][0]
        duplicates = world.receiver.duplicates()  # type: ignore[union-attr]
    points = [*WORKER_POINTS, "outbox"]
    did = {point: crashed[f"before-{point}"] + crashed[f"after-{point}"] for point in points}
    report.add(
        f"crash injected, {len(points)} points x {per_point}: crashes done",
        sum(did.values()),
        "crashes",
        goal=str(per_point * len(points)),
        passed=all(count == per_point // 2 * 2 for count in did.values()),
    )
    report.at_most("crash injected: broken promises in the event log", len(broken), "events", 0)
    report.at_most("crash injected: accepted videos lost", len(ids.all) - ended, "videos", 0)
    report.at_most("crash injected: ended twice or published twice", twice + duplicates, "videos", 0)
    report.at_most("crash injected: events never delivered", undelivered, "events", 0)
    report.detail["crash_points"] = {"done": dict(crashed), "states": states, "broken": broken[:5]}


def _crash_workers(world: World, specs: list[str], ids: _Ids, crashed: Counter[str], lane: int, rng: random.Random) -> None:
    client = world.direct_client()
    for number, spec in enumerate(specs):
        fresh = ids.more(JOBS_PER_CRASH)
        world.make_media(fresh)
        member = world.fleet.add(
            f"crash-{lane}-{number}",
            [PYTHON, "-m", "tests.chaos.crashing", "worker"],
            {**world.env, "CHAOS_CRASH": f"{spec}:{rng.randint(1, 4)}"},
            keep=False,
        )
        world.push_raw(client, fresh)
        _count_death(member.process, spec, crashed)
    client.close()


def _crash_janitors(world: World, ids: _Ids, crashed: Counter[str], rng: random.Random, *, times: int) -> None:
    client = world.direct_client()
    regular = world.fleet.members["janitor-0"]
    regular.keep = False
    world.fleet.kill(regular)
    for number in range(times // 2 * 2):
        spec = ("before-outbox", "after-outbox")[number % 2]
        fresh = ids.more(2)
        world.make_media(fresh)
        world.push_raw(client, fresh)
        member = world.fleet.add(
            f"crash-janitor-{number}",
            [PYTHON, "-m", "tests.chaos.crashing", "janitor"],
            {**world.env, "CHAOS_CRASH": f"{spec}:1"},
            keep=False,
        )
        _count_death(member.process, spec, crashed)
    client.close()


def _count_death(process: subprocess.Popen[bytes] | None, spec: str, crashed: Counter[str]) -> None:
    assert process is not None
    try:
        if process.wait(timeout=60) == -signal.SIGKILL:
            crashed[spec] += 1
    except subprocess.TimeoutExpired:
        process.kill()


def _wait_events(world: World) -> None:
    import time

    end = time.monotonic() + 60
    while world.query("select count(*) from outbox where delivered_at is null")[0][0] and time.monotonic() < end:
        time.sleep(0.2)
