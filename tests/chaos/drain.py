"""SIGTERM under load: finish or hand back, be gone in time, lose nothing, judge nothing twice."""

from __future__ import annotations

import random
import signal
import time

from tests.chaos.history import broken_promises
from tests.chaos.report import Report
from tests.chaos.storm import video_ids
from tests.chaos.world import World


def sigterm_under_load(report: Report, rng: random.Random, *, drain_seconds: float, exit_seconds: float, job_seconds: float) -> None:
    """Three ways to be told: SIGTERM, SIGTERM twice, SIGTERM then SIGQUIT. The jobs are longer than the drain."""
    exits: list[float] = []
    resumed: list[float] = []
    ids = video_ids("drain", 24)
    settings = {"drain_seconds": drain_seconds, "exit_seconds": exit_seconds}
    with World(workers=0, api=False, work_seconds=job_seconds, **settings) as world:
        world.make_media(ids)
        client = world.direct_client()
        world.push_raw(client, ids)
        ways = ([signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGQUIT])
        for number, signals in enumerate(ways):
            member = world.add_worker(f"worker-{number}")
            member.keep = False
            end = time.monotonic() + 30
            while len(held := world.leased_by(member.pid)) < 4 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 0.5))
            told = time.monotonic()
            for one in signals:
                world.fleet.kill(member, number=one, group=False)
                time.sleep(0.5)
            if number == len(ways) - 1:
                world.add_worker("successor", CHAOS_WORK_SECONDS="0.05")
            assert member.process is not None
            member.process.wait(timeout=exit_seconds + 30)
            exits.append(time.monotonic() - told)
        world.wait_finished(len(ids), seconds=60)
        history = world.history()
        lost = len(ids) - world.num_finished()
        for event in history:
            if event["kind"] == "released" and event["ledger_id"] in held:
                later = [
                    e["at"] for e in history if e["kind"] == "claimed" and e["ledger_id"] == event["ledger_id"] and e["seq"] > event["seq"]
                ]
                resumed.append(min(later) - event["at"])
        attempts = world.query("select max(attempts), max(crash_attempts) from jobs")[0]
        world.fleet.stop()
        orphans, temp_files = world.leftovers()
    report.at_most("SIGTERM under load: exit, slowest of three ways", max(exits), "s", min(45.0, exit_seconds + 5.0))
    report.at_most("SIGTERM under load: lost", lost, "videos", 0)
    report.at_most("SIGTERM under load: broken promises in the event log", len(broken_promises(history)), "events", 0)
    report.at_most("SIGTERM under load: handed-back video resumes elsewhere", max(resumed, default=0.0), "s", 10)
    report.at_most("SIGTERM under load: orphans and temp files", orphans + temp_files, "", 0)
    report.at_most("SIGTERM under load: attempts counted for a hand-back", attempts[0] - 1 + attempts[1], "attempts", 0)
    report.detail["drain"] = {"exit_seconds": [round(e, 2) for e in exits], "released": sum(e["kind"] == "released" for e in history)}
