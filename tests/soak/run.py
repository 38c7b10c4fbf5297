"""The soak: measure the capacity, run at a share of it, take a worker away under load, count everything at the end."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass

from tests.chaos.report import Report
from tests.chaos.world import PYTHON, World, percentile
from tests.integration.servers import free_port
from tests.soak.material import MIX, SMALL_MIX, Kind, Material
from tests.soak.watch import Watch, growth, slope_per_hour
from workers.forecast import MediaSums, fit
from workers.messages import enqueue_message, parse_enqueue

SLO_SECONDS = 300.0
_WORKERS = 2


@dataclass(frozen=True)
class Plan:
    """Sizes of one soak."""

    steady_seconds: float
    warm_videos: int
    warm_rounds: int
    calibration_videos: int
    every_seconds: float
    load: float = 0.7
    smoke: bool = False


class Soak:
    """One run; `play` goes through the phases."""

    def __init__(self, plan: Plan, report: Report, rng: random.Random) -> None:
        self.plan, self.report, self.rng = plan, report, rng
        self.ports: dict[str, int] = {}
        self.accepted: list[str] = []
        self.world = World(workers=0, ingests=1, janitors=1, api=True, webhooks=True, concurrency=2, lease_seconds=20.0, exit_seconds=30.0)
        self.material = Material(self.world.media, SMALL_MIX if plan.smoke else MIX, rng)
        self.client = self.world.direct_client()
        self.watch = Watch(
            lambda: list(self.world.fleet.members.values()), every_seconds=plan.every_seconds, metrics_ports=lambda: self.ports
        )

    def close(self) -> None:
        self.watch.stop()
        self.client.close()
        self.world.close()

    def play(self) -> None:
        for number in range(_WORKERS):
            self.add_worker(f"worker-{number}")
        self.warm_up()
        self.say("measuring the capacity ...")
        rate = self.calibrate()
        self.watch.start()
        self.say(f"{rate * 3600:.0f} videos an hour at full load; {self.plan.steady_seconds:.0f} s at {self.plan.load:.0%} of it ...")
        begun = time.monotonic()
        first = len(self.accepted)
        self.load(self.plan.load * rate, seconds=self.plan.steady_seconds)
        steady = self.accepted[first:]
        ended = time.monotonic()
        self.say("taking a worker away under load ...")
        scaled = self.scale_down(self.plan.load * rate)
        drained = self.wait_idle(seconds=600)
        self.watch.stop()
        self.judge(rate, steady=steady, begun=begun, ended=ended, drained=drained, scaled=scaled)

    # --- phases

    def add_worker(self, name: str) -> None:
        self.ports[name] = free_port()
        env = {**self.world.env, "VERIFRAME_METRICS_PORT": str(self.ports[name])}
        self.world.fleet.add(name, [PYTHON, "-m", "workers", "worker"], env)

    def warm_up(self) -> None:
        """Some of everything, then the heaviest in every slot at once, several times.

        The allocator keeps what it once had: memory climbs until the worst moment has come, and that is no leak.
        """
        self.submit(self.plan.warm_videos)
        heaviest = self.material.heaviest
        for _ in range(self.plan.warm_rounds):
            self.submit(2 * _WORKERS * self.world.settings.concurrency, kind=heaviest)
            self.wait_idle(seconds=600)

    def submit(self, count: int, *, kind: Kind | None = None) -> None:
        for _ in range(count):
            video_id, kind_of = self.material.upload(kind)
            if self.rng.random() < 0.5:
                request = parse_enqueue({"video_id": video_id, "media": kind_of.hint})
                self.client.lpush("default", enqueue_message(request))
            else:
                self.world.post([video_id])
            self.accepted.append(video_id)

    def calibrate(self) -> float:
        """Videos per second with work always waiting."""
        self.submit(self.plan.calibration_videos)
        target = self.world.num_finished() + self.plan.calibration_videos
        started = time.monotonic()
        if not self.wait_idle(seconds=900):
            raise TimeoutError(f"{target - self.world.num_finished()} of {self.plan.calibration_videos} videos did not end within 900 s")
        return self.plan.calibration_videos / (time.monotonic() - started)

    def load(self, rate: float, *, seconds: float, stop: threading.Event | None = None) -> None:
        """Poisson arrivals; files of videos that ended are deleted on the way."""
        end = time.monotonic() + seconds
        due = time.monotonic() + self.rng.expovariate(rate)
        tidied = 0
        while time.monotonic() < end and not (stop and stop.is_set()):
            time.sleep(max(0.0, min(due, end) - time.monotonic()))
            if time.monotonic() >= due:
                self.submit(1)
                due += self.rng.expovariate(rate)
            if len(self.accepted) - tidied > 200:
                tidied = self.tidy(tidied)

    def tidy(self, start: int) -> int:
        ended = {row[0] for row in self.world.query("select video_id from jobs where finished_at is not null")}
        while start < len(self.accepted) and self.accepted[start] in ended:
            self.material.forget(self.accepted[start])
            start += 1
        return start

    def scale_down(self, rate: float) -> dict[str, float]:
        """SIGTERM for one of the workers while it holds videos and more arrive."""
        member = self.world.fleet.members["worker-0"]
        member.keep = False
        self.submit(6)
        end = time.monotonic() + 60
        while not (held := len(self.world.leased_by(member.pid))) and time.monotonic() < end:
            time.sleep(0.05)
        assert member.process is not None
        process, told, gone = member.process, time.monotonic(), [0.0]

        def wait() -> None:
            process.wait()
            gone[0] = time.monotonic() - told

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        self.world.fleet.kill(member, number=signal.SIGTERM, group=False)
        self.load(rate, seconds=2.0 if self.plan.smoke else 30.0)
        waiting.join(timeout=self.world.settings.exit_seconds + 60)
        self.ports.pop("worker-0", None)
        return {"held": held, "exit_seconds": gone[0] if not waiting.is_alive() else float("inf"), "returncode": process.returncode or 0}

    def wait_idle(self, *, seconds: float) -> bool:
        return self.world.wait_finished(len(self.accepted), seconds=seconds)

    # --- figures

    def judge(self, rate: float, *, steady: list[str], begun: float, ended: float, drained: bool, scaled: dict[str, float]) -> None:
        report, world = self.report, self.world
        rows = world.query("select video_id, finished_at - created_at, state, error_code from jobs")
        seconds_of = {row[0]: row[1] for row in rows}
        times = [seconds_of[video_id] for video_id in steady if seconds_of.get(video_id) is not None]
        report.add("capacity with work always waiting", rate * 3600, "videos/h", goal="", passed=None)
        report.add("videos of the steady phase", len(times), "videos", goal="", passed=None)
        report.add("end to end at 70 % load, p50", percentile(times, 0.5), "s", goal="", passed=None)
        self.in_time("end to end at 70 % load, p95", percentile(times, 0.95), SLO_SECONDS)
        report.add("end to end at 70 % load, p99", percentile(times, 0.99), "s", goal="", passed=None)
        self.judge_processes(begun, ended)
        lost = sum(1 for video_id in self.accepted if seconds_of.get(video_id) is None)
        report.at_most("videos lost, scale-down under load included", lost, "videos", 0)
        report.at_most("scale-down: work left after ten minutes", 0 if drained else 1, "", 0)
        report.add("scale-down: videos held when told", scaled["held"], "videos", goal=">= 1", passed=scaled["held"] >= 1)
        self.in_time("scale-down: gone after", scaled["exit_seconds"], self.world.settings.exit_seconds + 10.0)
        report.at_most("scale-down: exit status", scaled["returncode"], "", 0)
        expired = world.query("select count(*) from events where kind in ('expired', 'poisoned')")
        report.at_most("missed heartbeats (leases that ran out)", expired[0][0], "leases", 0)
        late = self.world.settings.heartbeat_seconds + 5.0
        ages = self.watch.heartbeat_ages
        self.in_time("oldest heartbeat seen by a scrape", max(ages, default=0.0), late)
        unexpected = [row[0] for row in rows if row[2] != "VERDICT" and not row[0].startswith("broken")]
        report.at_most("good videos without a verdict", len(unexpected), "videos", 0)
        self.judge_webhooks()
        report.add("scrape of /metrics under load, p95", percentile(self.watch.scrape_seconds, 0.95) * 1000, "ms", goal="", passed=None)
        self.judge_forecast()
        report.detail["soak"] = {"scale_down": scaled, "load_average": os.getloadavg(), "looks": len(ages), "mix": [k.name for k in MIX]}

    def in_time(self, what: str, seconds: float, limit: float) -> None:
        """A time with a limit; the smoke runs wherever tests run and promises no times."""
        self.report.add(what, seconds, "s", goal=f"<= {limit:g}", passed=None if self.plan.smoke else seconds <= limit)

    def judge_processes(self, begun: float, ended: float) -> None:
        """Memory and descriptors over the steady phase, without its first fifth."""
        since = begun + 0.2 * (ended - begun)
        for name in ("worker-0", "worker-1", "janitor", "ingest", "api"):
            seen = [each for each in self.watch.of(name, since=since) if len(each.looks) >= 8]
            if not seen:
                self.report.add(f"{name}: watched", 0, "looks", goal=">= 8", passed=None if self.plan.smoke else False)
                continue
            looks = [look for look in max(seen, key=lambda each: len(each.looks)).looks if look.at <= ended]
            slope = slope_per_hour(looks)
            size = looks[-1].rss_bytes
            grown = slope / 3600 * (looks[-1].at - looks[0].at) / size
            goal = None if self.plan.smoke else grown <= 0.03
            self.report.add(f"{name}: memory slope", slope / 1e6, "MB/h", goal="", passed=None)
            half = slope_per_hour(looks[len(looks) // 2 :])
            self.report.add(f"{name}: memory slope, second half", half / 1e6, "MB/h", goal="", passed=None)
            self.report.add(f"{name}: growth in the steady phase", grown * 100, "% of its size", goal="<= 3", passed=goal)
            gained = growth([look.num_files for look in looks])
            self.report.add(f"{name}: descriptors gained", gained, "files", goal="<= 4", passed=None if self.plan.smoke else gained <= 4)
            self.report.detail.setdefault("rss_mb", {})[name] = [
                round(look.rss_bytes / 1e6, 1) for look in looks[:: max(1, len(looks) // 60)]
            ]

    def judge_webhooks(self) -> None:
        receiver = self.world.receiver
        assert receiver is not None
        end = time.monotonic() + 60
        while len({video_id for _event, video_id in receiver.events}) < len(self.accepted) and time.monotonic() < end:
            time.sleep(0.2)
        self.report.at_most("webhooks: videos without an event", len(self.accepted) - len({v for _e, v in receiver.events}), "videos", 0)
        self.report.at_most("webhooks: videos with two different events", receiver.duplicates(), "videos", 0)

    def judge_forecast(self) -> None:
        """Prices learned from the first half of the verdicts, applied to the second half."""
        costs = self.world.ledger.recent_costs(limit=4000)[::-1]
        past, coming = costs[: len(costs) // 2], costs[len(costs) // 2 :]
        n = len(coming)
        sums = MediaSums(
            num_videos=n,
            duration_seconds=sum(c.duration_seconds for c in coming),
            num_with_duration=n,
            megapixels=sum(c.megapixels for c in coming),
            num_with_megapixels=n,
            num_faces=sum(c.num_faces for c in coming),
            num_with_faces=n,
        )
        took = sum(c.work_seconds for c in coming)
        if took:
            self.report.add("predicted / actual seconds in work, second half", fit(past).predict(sums) / took, "x", goal="", passed=None)

    def say(self, text: str) -> None:
        print(f"soak: {text}", file=sys.stderr, flush=True)
