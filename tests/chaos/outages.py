"""The broker dies, is full, or cannot be reached."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import redis

from tests.chaos.history import broken_promises
from tests.chaos.proxy import Proxy
from tests.chaos.report import Report
from tests.chaos.storm import video_ids
from tests.chaos.world import World, raw_message
from tests.integration.servers import RedisServer
from workers.broker import connect, require_no_eviction
from workers.errors import BrokerPolicyError


class Producers:
    """Two platforms that submit all the time, one by HTTP and one by LPUSH, and remember what was promised to them."""

    def __init__(self, world: World, prefix: str, *, pause: float) -> None:
        self.world, self.pause = world, pause
        self.accepted: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.slowest = {"http": 0.0, "lpush": 0.0}
        self.silent = 0
        self._ids = iter(video_ids(prefix, 1_000_000))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._http, daemon=True), threading.Thread(target=self._lpush, daemon=True)]

    def __enter__(self) -> Producers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=15)

    def _next(self) -> str:
        with self._lock:
            video_id = next(self._ids)
        self.world.make_media([video_id])
        return video_id

    def _http(self) -> None:
        with httpx.Client(base_url=self.world.api_url, timeout=15.0) as client:
            while not self._stop.wait(self.pause):
                video_id, started = self._next(), time.monotonic()
                try:
                    status = client.post("/v1/videos", json={"video_id": video_id}).status_code
                except httpx.HTTPError:
                    status = 0
                self._note("http", status, video_id if status == 202 else None, time.monotonic() - started)
                if status not in (202, 503):
                    self.silent += 1

    def _lpush(self) -> None:
        client = self.world.direct_client()
        while not self._stop.wait(self.pause):
            video_id, started = self._next(), time.monotonic()
            try:
                client.lpush("default", raw_message(video_id))
                self._note("lpush", "ok", video_id, time.monotonic() - started)
            except redis.RedisError as err:
                self._note("lpush", type(err).__name__, None, time.monotonic() - started)

    def _note(self, door: str, answer: int | str, accepted: str | None, seconds: float) -> None:
        with self._lock:
            self.answers[f"{door}:{answer}"] += 1
            self.slowest[door] = max(self.slowest[door], seconds)
            if accepted is not None:
                self.accepted.add(accepted)


def _lost(world: World, accepted: set[str], *, seconds: float) -> int:
    end = time.monotonic() + seconds
    while True:
        ended = {row[0] for row in world.query("select video_id from jobs where finished_at is not null")}
        if accepted <= ended or time.monotonic() > end:
            return len(accepted - ended)
        time.sleep(0.2)


def _seconds_to_progress(world: World, *, limit: float) -> float:
    """Seconds until a video that was claimed after this moment ends."""
    moment, started = time.time(), time.monotonic()
    while time.monotonic() - started < limit:
        if world.query("select 1 from jobs where started_at > ? and finished_at is not null limit 1", moment):
            return time.monotonic() - started
        time.sleep(0.05)
    return limit


def broker_kills(report: Report, rng: random.Random, *, kills: int) -> None:
    """kill -9 of the broker under load."""
    with World(workers=2, work_seconds=0.02) as world:
        back: list[float] = []
        with Producers(world, "brokerkill", pause=0.02) as producers:
            time.sleep(2.0)
            for _ in range(kills):
                time.sleep(rng.uniform(0.5, 2.0))
                world.broker.kill()
                time.sleep(rng.uniform(0.2, 1.5))
                world.broker.start()
                back.append(_seconds_to_progress(world, limit=60))
        lost = _lost(world, producers.accepted, seconds=60)
        history = world.history()
        report.at_most(f"broker kill -9 x {kills} under load: accepted videos lost", lost, "videos", 0)
        report.at_most("broker kill: service back after restart, worst", max(back), "s", 15)
        report.at_most("broker kill: submits without 202 or 503", producers.silent, "requests", 0)
        report.at_most("broker kill: slowest HTTP answer", producers.slowest["http"], "s", 6)
        report.at_most("broker kill: broken promises in the event log", len(broken_promises(history)), "events", 0)
        report.detail["broker_kill"] = {
            "accepted": len(producers.accepted),
            "answers": dict(producers.answers),
            "back_seconds": [round(b, 2) for b in back],
        }


def client_kills(report: Report, rng: random.Random, *, kills: int) -> None:
    """The broker drops every connection, again and again, under load."""
    with World(workers=2, work_seconds=0.02) as world:
        client = world.direct_client()
        with Producers(world, "clientkill", pause=0.02) as producers:
            time.sleep(2.0)
            for _ in range(kills):
                client.client_kill_filter(_type="normal", skipme=True)
                time.sleep(rng.uniform(0.1, 0.7))
            back = _seconds_to_progress(world, limit=60)
        lost = _lost(world, producers.accepted, seconds=60)
        history = world.history()
        report.at_most(f"all connections dropped x {kills} under load: accepted videos lost", lost, "videos", 0)
        report.at_most("connections dropped: service back", back, "s", 15)
        report.at_most("connections dropped: submits without 202 or 503", producers.silent, "requests", 0)
        report.at_most("connections dropped: broken promises in the event log", len(broken_promises(history)), "events", 0)
        report.detail["client_kills"] = {"accepted": len(producers.accepted), "answers": dict(producers.answers)}


class _Filler:
    """Keeps the broker at its memory limit, whatever is removed meanwhile, until it is told to let go."""

    def __init__(self, world: World) -> None:
        self._client = world.direct_client()
        self._stop = threading.Event()
        self._keys = 0
        self.full = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        size = 128 * 1024
        while not self._stop.is_set():
            try:
                self._client.set(f"filler-{self._keys}", b"x" * size)
                self._keys += 1
            except redis.exceptions.OutOfMemoryError:
                if size == 128:
                    self.full.set()
                    time.sleep(0.002)
                size = max(128, size // 2)

    def relieve(self) -> None:
        """Free all of it."""
        self._stop.set()
        self._thread.join()
        for start in range(0, self._keys, 1000):
            self._client.delete(*[f"filler-{i}" for i in range(start, min(self._keys, start + 1000))])


def broker_full(report: Report) -> None:
    """The broker is at its memory limit: it refuses, nothing is lost, and it drains after relief."""
    memory = 12 * 1024 * 1024
    with World(workers=1, work_seconds=0.02, broker_options={"maxmemory": str(memory)}) as world:
        ids = video_ids("full", 600)
        world.make_media(ids)
        client = world.direct_client()
        world.push_raw(client, ids[:300])
        accepted = set(ids[:300])
        filler = _Filler(world)
        assert filler.full.wait(30), "the broker never became full"
        time.sleep(1.0)
        slowest, refused, statuses = 0.0, 0, Counter[int]()
        for video_id in ids[300:400]:
            started = time.monotonic()
            try:
                client.lpush("default", raw_message(video_id))
                accepted.add(video_id)
            except redis.exceptions.OutOfMemoryError:
                refused += 1
            slowest = max(slowest, time.monotonic() - started)

        def note(video_id: str, status: int, seconds: float) -> None:
            nonlocal slowest
            statuses[status] += 1
            slowest = max(slowest, seconds)
            if status == 202:
                accepted.add(video_id)

        world.post(ids[400:500], on_answer=note)
        time.sleep(3.0)
        filler.relieve()
        relieved = time.monotonic()
        lost = _lost(world, accepted, seconds=60)
        drained = time.monotonic() - relieved
        report.at_most("broker full: slowest refusal", slowest, "s", 1)
        report.add(
            "broker full: refused by LPUSH / HTTP",
            f"{refused} / {statuses[503]}",
            "submits",
            goal="> 0 / > 0",
            passed=refused > 0 and statuses[503] > 0,
        )
        report.at_most("broker full: answers other than 202 or 503", sum(statuses.values()) - statuses[202] - statuses[503], "requests", 0)
        report.at_most("broker full: accepted videos lost", lost, "videos", 0)
        report.at_most("broker full: drained after relief", drained, "s", 30)
        report.detail["broker_full"] = {"http": {str(k): v for k, v in statuses.items()}, "accepted": len(accepted)}
        report.add(
            "broker with allkeys-lru: start refused", str(_refuses_eviction(world)), "", goal="True", passed=_refuses_eviction(world)
        )


def _refuses_eviction(world: World) -> bool:
    folder = world.folder / "evicting"
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder, **{"maxmemory-policy": "allkeys-lru"}).start()
    client = connect(server.url)
    try:
        require_no_eviction(client)
    except BrokerPolicyError:
        return True
    finally:
        client.close()
        server.stop()
    return False


@contextmanager
def _behind_proxy() -> Iterator[tuple[World, Proxy]]:
    """A whole system that reaches its broker through a proxy."""
    from tests.chaos.world import PYTHON

    proxy = Proxy(0)
    with World(workers=2, work_seconds=0.02, broker_port=proxy.port, api=False, ingests=0, janitors=0) as world:
        proxy._target_port = world.broker.port
        for name in ("ingest", "janitor", "api"):
            world.fleet.add(f"{name}-0" if name != "api" else name, [PYTHON, "-m", "workers", name], world.env)
        world.wait_for_api()
        yield world, proxy
    proxy.close()


def slow_network(report: Report, *, seconds: float) -> None:
    """Half a second of latency, then one byte a second, then connections cut in the middle of publishing."""
    with _behind_proxy() as (world, proxy):
        resumed: list[float] = []
        with Producers(world, "slow", pause=0.1) as producers:
            assert _seconds_to_progress(world, limit=60) < 60, "nothing moves before the first fault"
            for delay_seconds, chunk_bytes in ((0.5, 65536), (1.0, 1)):
                proxy.slow(delay_seconds=delay_seconds, chunk_bytes=chunk_bytes)
                time.sleep(seconds)
                proxy.heal()
                resumed.append(_seconds_to_progress(world, limit=90))
            for _ in range(10):
                proxy.cut()
                time.sleep(seconds / 10)
            resumed.append(_seconds_to_progress(world, limit=90))
        lost = _lost(world, producers.accepted, seconds=90)
        report.at_most("slow network (500 ms, 1 B/s, 10 cuts while publishing): accepted videos lost", lost, "videos", 0)
        report.at_most("slow network: resumed after healing, worst", max(resumed), "s", 30)
        report.at_most("slow network: submits without 202 or 503", producers.silent, "requests", 0)
        report.at_most("slow network: broken promises in the event log", len(broken_promises(world.history())), "events", 0)
        report.detail["slow_network"] = {
            "accepted": len(producers.accepted),
            "answers": dict(producers.answers),
            "slowest_seconds": {k: round(v, 2) for k, v in producers.slowest.items()},
            "resumed_seconds": [round(r, 2) for r in resumed],
        }


def network_cuts(report: Report, rng: random.Random, *, cuts: int, shortest: float, longest: float) -> None:
    """The network between the system and its broker freezes; every third time the connections are reset afterwards."""
    with _behind_proxy() as (world, proxy):
        resumed: list[float] = []
        with Producers(world, "cut", pause=0.1) as producers:
            assert _seconds_to_progress(world, limit=60) < 60, "nothing moves before the first cut"
            for number in range(cuts):
                proxy.freeze()
                time.sleep(rng.uniform(shortest, longest))
                if number % 3 == 2:
                    proxy.cut()
                proxy.heal()
                resumed.append(_seconds_to_progress(world, limit=90))
                time.sleep(rng.uniform(0.5, 1.5))
        lost = _lost(world, producers.accepted, seconds=90)
        history = world.history()
        report.at_most(f"{cuts} network cuts of {shortest:g}-{longest:g} s: accepted videos lost", lost, "videos", 0)
        report.at_most("network cuts: resumed after healing, worst", max(resumed), "s", 30)
        report.at_most("network cuts: submits without 202 or 503", producers.silent, "requests", 0)
        report.at_most("network cuts: broken promises in the event log", len(broken_promises(history)), "events", 0)
        reconnects = sum(member.log.read_text(errors="replace").count('"consumer_reconnects"') for member in world.fleet.of("worker"))
        # two workers; each may lose an acknowledgement at a cut
        report.at_most("network cuts: forced consumer reconnects", reconnects, "reconnects", 2.0 * cuts)
        report.detail["network_cuts"] = {
            "forced_reconnects": reconnects,
            "accepted": len(producers.accepted),
            "answers": dict(producers.answers),
            "slowest_seconds": {k: round(v, 2) for k, v in producers.slowest.items()},
            "resumed_seconds": [round(r, 2) for r in resumed],
        }
