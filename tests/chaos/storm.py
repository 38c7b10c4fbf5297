"""kill -9 of everything at random under load, the same load without the ledger, and a quiet run to compare with."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from celery import Celery

from tests.chaos.fleet import Fleet, children_of, cpu_seconds, open_files
from tests.chaos.history import broken_promises, terminal_counts
from tests.chaos.report import Report
from tests.chaos.screener import hash_verdict, media_bytes
from tests.chaos.world import PYTHON, World, percentile
from tests.integration.servers import RedisServer
from workers.messages import JobFacts, verdict_body
from workers.settings import base_environment


def video_ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}_{i:06d}" for i in range(count)]


def expected_verdict(video_id: str) -> dict[str, Any]:
    """What the detector says about a video, computed here and now: the oracle of every run."""
    from tests.chaos.world import stable_part

    digest = hashlib.sha256(media_bytes(video_id))
    body = verdict_body(hash_verdict(digest.digest()), job=JobFacts(video_id=video_id, content_sha256=digest.hexdigest()))
    return stable_part(body.to_json())


class Killer:
    """Spreads kills over the progress of a run."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.killed_at: dict[str, float] = {}
        self.done: Counter[str] = Counter()

    def plan(self, *, total: int, workers: int, ingests: int, janitors: int, children: int) -> list[tuple[float, str]]:
        """When to kill what: at a share of the finished videos (0 to 0.97), evenly spread, in random order."""
        kinds = ["worker"] * workers + ["ingest"] * ingests + ["janitor"] * janitors + ["child"] * children
        self.rng.shuffle(kinds)
        return [(0.97 * (i + 1) / (len(kinds) + 1) * total, kind) for i, kind in enumerate(kinds)]

    def strike(self, kind: str) -> bool:
        time.sleep(self.rng.uniform(0, 0.25))
        if kind == "child":
            return self._kill_child()
        members = self.world.fleet.of(kind)
        member = self.rng.choice(members)
        end = time.monotonic() + 10
        while not (member.is_alive and (kind != "worker" or self._has_worked(member.pid))):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        pid = self.world.fleet.kill(member, group=True)
        if pid is None:
            return False
        if kind == "worker":
            now = time.time()
            self.killed_at.update(dict.fromkeys(self.world.leased_by(pid), now))
        self.done[kind] += 1
        return True

    def _has_worked(self, pid: int) -> bool:
        """Only a worker that has begun is worth killing: otherwise the run measures start-ups."""
        return bool(self.world.leased_by(pid))

    def _kill_child(self) -> bool:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            children = [child for member in self.world.fleet.of("worker") if member.is_alive for child in children_of(member.pid)]
            if children:
                try:
                    os.kill(self.rng.choice(children), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.done["child"] += 1
                return True
            time.sleep(0.02)
        return False


def resume_seconds(world: World, killed_at: dict[str, float]) -> list[float]:
    """For every video whose worker was killed: seconds until another worker had it."""
    found = []
    for ledger_id, moment in killed_at.items():
        rows = world.query("select min(at) from events where ledger_id = ? and kind = 'claimed' and at > ?", ledger_id, moment)
        if rows[0][0] is not None:
            found.append(float(rows[0][0]) - moment)
    return found


def kill_storm(
    report: Report, rng: random.Random, *, jobs: int, workers: int, ingests: int, janitors: int, children: int
) -> dict[str, Any]:
    """The big one. Gives the verdicts for the comparison with the quiet run."""
    ids = video_ids("storm", jobs)
    with World(workers=2, ingests=2, janitors=2, webhooks=True, work_seconds=0.05, child_every=10) as world:
        world.make_media(ids)
        killer = Killer(world, rng)
        producer = threading.Thread(target=_submit_mixed, args=(world, ids), daemon=True)
        started = time.monotonic()
        producer.start()
        for due, kind in killer.plan(total=jobs, workers=workers, ingests=ingests, janitors=janitors, children=children):
            if not world.wait_finished(int(due), seconds=120):
                report.detail["stalled_at"] = world.num_finished()
                break
            killer.strike(kind)
        producer.join()
        finished = world.wait_finished(jobs, seconds=120)
        seconds = time.monotonic() - started
        _wait_webhooks(world, jobs)
        history = world.history()
        counts = terminal_counts(history)
        states = dict(world.query("select state, count(*) from jobs group by state"))
        lost = jobs - states.get("VERDICT", 0) - states.get("FAILED", 0) - states.get("POISONED", 0)
        resumed = resume_seconds(world, killer.killed_at)
        verdicts = world.verdict_of()
        starts = sum(member.starts for member in world.fleet.members.values())
        world.fleet.stop()
        orphans, temp_files = world.leftovers()
        name = f"kill storm, {jobs} videos"
        report.add(
            f"{name}: kills done",
            f"{killer.done['worker']}+{killer.done['ingest']}+{killer.done['janitor']}+{killer.done['child']}",
            "worker+ingest+janitor+child",
            goal=f"{workers}+{ingests}+{janitors}+{children}",
            passed=(killer.done["worker"], killer.done["ingest"], killer.done["janitor"], killer.done["child"])
            == (workers, ingests, janitors, children),
        )
        report.at_most(f"{name}: lost", lost, "videos", 0)
        report.at_most(
            f"{name}: duplicate published verdicts", world.receiver.duplicates() + sum(c > 1 for c in counts.values()), "videos", 0
        )  # type: ignore[union-attr]
        report.equals(f"{name}: ended in a verdict", states.get("VERDICT", 0), "videos", jobs)
        report.at_most(f"{name}: broken promises in the event log", len(broken_promises(history)), "events", 0)
        report.at_most(f"{name}: killed video resumes, p95", percentile(resumed, 0.95), "s", 10)
        report.at_most(f"{name}: killed video resumes, p99", percentile(resumed, 0.99), "s", 30)
        report.at_most(f"{name}: orphan processes", orphans, "processes", 0)
        report.at_most(f"{name}: temp files left", temp_files, "files", 0)
        wrong = sum(verdicts.get(video_id) != expected_verdict(video_id) for video_id in ids)
        report.at_most(f"{name}: verdicts that differ from the detector's own", wrong, "videos", 0)
        report.detail["kill_storm"] = {
            "seconds": round(seconds, 1),
            "finished": finished,
            "killed_in_flight": len(killer.killed_at),
            "resumed": len(resumed),
            "resume_max_seconds": round(max(resumed, default=0.0), 2),
            "executions": sum(e["kind"] == "claimed" for e in history),
            "webhooks_received": len(world.receiver.events),  # type: ignore[union-attr]
            "process_starts": starts,
            "states": states,
            "broken": broken_promises(history)[:5],
        }
        return verdicts


def _wait_webhooks(world: World, jobs: int) -> None:
    assert world.receiver is not None
    end = time.monotonic() + 60
    while len({video_id for _event, video_id in world.receiver.events}) < jobs and time.monotonic() < end:
        time.sleep(0.2)


def _submit_mixed(world: World, ids: list[str]) -> None:
    """Half by HTTP, a quarter by raw LPUSH, a quarter by send_task."""
    half, quarter = len(ids) // 2, len(ids) * 3 // 4
    client = world.direct_client()
    threads = [
        threading.Thread(target=world.post, args=(ids[:half],)),
        threading.Thread(target=world.push_raw, args=(client, ids[half:quarter])),
        threading.Thread(target=world.push_by_name, args=(ids[quarter:],)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()


def without_ledger(report: Report, rng: random.Random, *, jobs: int, kills: int) -> None:
    """The same load and kills on Celery alone, with every safety setting it has; printed for comparison."""
    folder = Path(tempfile.mkdtemp(prefix="veriframe-chaos-"))
    (folder / "redis").mkdir()
    broker = RedisServer(folder / "redis").start()
    done = folder / "done"
    done.touch()
    fleet = Fleet(folder)
    env = {**base_environment(), "CHAOS_BROKER": broker.url, "CHAOS_DONE": str(done), "PYTHONPATH": str(Path(__file__).parents[2])}
    ids = video_ids("bare", jobs)
    with (
        Celery(broker=broker.url, set_as_current=False) as app,
        app.connection_for_write() as connection,
        app.amqp.Producer(connection) as producer,
    ):
        for video_id in ids:
            app.send_task("bare.screen", kwargs={"video_id": video_id}, queue="bare", producer=producer)
    for i in range(2):
        fleet.add(f"bare-{i}", [PYTHON, "-m", "tests.chaos.bare_celery"], env)
    size, seen, still = 0, 0, time.monotonic()
    struck = 0
    while time.monotonic() - still < 25:
        time.sleep(0.05)
        grown = done.stat().st_size
        if grown > size:
            size, still = grown, time.monotonic()
            seen = done.read_bytes().count(b"\n")
            if struck < kills and seen >= 0.97 * jobs * (struck + 1) / (kills + 1):
                time.sleep(rng.uniform(0, 0.25))
                fleet.kill(rng.choice(fleet.of("bare")))
                struck += 1
        if seen >= jobs and len(set(done.read_text().split())) == jobs:
            break
    runs = Counter(done.read_text().split())
    fleet.stop()
    broker.stop()
    lost = jobs - len(runs)
    report.add(f"Celery alone, {jobs} videos, {struck} worker kills: lost", lost, "videos", goal="(comparison)", passed=None)
    twice = sum(c > 1 for c in runs.values())
    report.add("Celery alone: judged twice", twice, "videos", goal="(comparison)", passed=None)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def quiet_run(report: Report, storm: dict[str, Any], *, jobs: int, warm: int) -> None:
    """No kills: overhead, growth, and the verdicts that the storm must equal."""
    ids, warm_ids = video_ids("storm", jobs), video_ids("warm", warm)
    with World(workers=1, work_seconds=0.0, child_every=0) as world:
        world.make_media([*ids, *warm_ids])
        client = world.direct_client()
        world.push_raw(client, warm_ids)
        assert world.wait_finished(warm, seconds=120), "the warm-up did not finish"
        time.sleep(1.0)
        parts = {name: member.pid for name, member in world.fleet.members.items()}
        assert world.broker.process is not None
        parts["broker"] = world.broker.process.pid
        idle_started, idle_cpu = time.monotonic(), {name: cpu_seconds(pid) for name, pid in parts.items()}
        time.sleep(2.0)
        idle_rate = {name: (cpu_seconds(pid) - idle_cpu[name]) / (time.monotonic() - idle_started) for name, pid in parts.items()}
        files_before, memory_before = open_files(parts["worker-0"]), resident_kib(parts["worker-0"])
        before, started = {name: cpu_seconds(pid) for name, pid in parts.items()}, time.monotonic()
        world.push_raw(client, ids)
        assert world.wait_finished(jobs + warm, seconds=300), "the quiet run did not finish"
        seconds = time.monotonic() - started
        spent = {name: cpu_seconds(pid) - before[name] - idle_rate[name] * seconds for name, pid in parts.items()}
        files_after, memory_after = open_files(parts["worker-0"]), resident_kib(parts["worker-0"])
        verdicts = world.verdict_of()
        world.fleet.stop()
        orphans, temp_files = world.leftovers()
        reconnects = world.fleet.members["worker-0"].log.read_text(errors="replace").count('"consumer_reconnects"')
    differing = sum(verdicts.get(video_id) != storm.get(video_id) for video_id in ids)
    report.at_most(f"chaos run against quiet run, {jobs} videos: differing verdicts", differing, "videos", 0)
    growth = max(0.0, (files_after - files_before) / files_before * 100)
    if jobs >= 2000:  # over fewer videos the ledger's lazily opened connections are all one sees
        report.at_most(f"open files of a worker over {jobs} videos: growth", growth, "%", 2)
    report.at_most(f"orphans after {jobs} quiet videos", orphans, "processes", 0)
    report.at_most(f"temp files after {jobs} quiet videos", temp_files, "files", 0)
    report.at_most(f"forced reconnects in {jobs} quiet videos", reconnects, "reconnects", 0)
    report.at_most("overhead of ledger and queue per video", sum(spent.values()) / jobs * 1000, "ms cpu", 15)
    report.detail["quiet_run"] = {
        "videos_per_second": round(jobs / seconds, 1),
        "ms_cpu_per_video": {name: round(value / jobs * 1000, 2) for name, value in spent.items()},
        "worker_files": [files_before, files_after],
        "worker_resident_kib": [memory_before, memory_after],
    }


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0
