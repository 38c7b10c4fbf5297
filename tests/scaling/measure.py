"""What one video and one idle worker cost the shared parts, in CPU seconds of the part itself: a busy machine changes those little."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.world import World
from tests.integration.servers import PostgresServer, free_port
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import EnqueueRequest
from workers.metrics import STAGES, Metrics

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Prices:
    """Measured prices; CPU seconds unless a name says otherwise."""

    ledger_per_video: float
    """Of Postgres: submit, take due, claim, commit with one webhook, deliver."""
    ledger_per_renewal: float
    ledger_connection_bytes: float
    """Private memory of one backend."""
    ledger_latency_seconds: float
    """Wall clock of one claim, alone."""
    broker_per_video: float
    broker_per_idle_second: float
    """Of one idle worker: polling of its lanes and looks of its heartbeat."""
    broker_connections_per_worker: float
    broker_commands_per_idle_second: float
    janitor_per_video: float
    """Of the leading janitor: dispatch and webhook."""
    ingest_per_video: float
    series_per_worker: float


def cpu_of(pids: list[int]) -> float:
    """CPU seconds of processes, their dead children included."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(value) for value in fields[11:15]) / _TICKS
    return total


def backends(parent: int) -> list[int]:
    """The postmaster and its living children; dead ones are in the postmaster's own count."""
    children = [int(child) for path in Path(f"/proc/{parent}/task").glob("*/children") for child in path.read_text().split()]
    return [parent, *children]


def private_bytes(pid: int) -> int:
    """Memory that only this process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def spent(pids: Callable[[], list[int]], work: Callable[[], Any]) -> float:
    before = cpu_of(pids())
    work()
    return cpu_of(pids()) - before


def ledger_prices(postmaster: int, url: str, *, videos: int) -> dict[str, float]:
    """Through the real ledger on a real Postgres, one connection: its price does not depend on who asks."""
    ledger = Ledger.open(url)
    ledger.warm(2)
    body = {"schema": "verdict/1", "video_id": "v", "filler": "x" * 4000}  # a verdict of one track with 32 moments is about this long
    record = VerdictRecord(content_sha256="0" * 64, bundle_set="b", policy="p", verdict="authentic", p_fake=0.1, body=body)
    latencies: list[float] = []

    def lives() -> None:
        for start in range(0, videos, 50):
            requests = [EnqueueRequest(video_id=f"v{start + i}") for i in range(50)]
            ledger.submit_many([Submission(request=request, door="queue") for request in requests])
            for job in ledger.take_due(route="default", page=50, resend_seconds=30):
                began = time.perf_counter()
                claim = ledger.claim(job.ledger_id, owner="w", lease_seconds=60)
                latencies.append(time.perf_counter() - began)
                assert isinstance(claim, Claim)
                ledger.commit_verdict(claim, verdict=record, urls=["https://platform.example/hook"])
            while events := ledger.due_events(page=32, hold_seconds=30):
                ledger.delivered(events)

    def renewals() -> None:
        for _ in range(videos):
            ledger.renew("w", ledger_ids=[job], lease_seconds=60)

    lives()  # warm
    latencies.clear()
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("truncate jobs, verdicts, outbox, events, dead_letters, submission_keys")
    per_video = spent(lambda: backends(postmaster), lives) / videos
    job = ledger.submit(Submission(request=EnqueueRequest(video_id="running"), door="queue")).ledger_id
    ledger.claim(job, owner="w", lease_seconds=60)
    per_renewal = spent(lambda: backends(postmaster), renewals) / videos
    with ledger.engine.connect() as connection:
        own = connection.exec_driver_sql("select pg_backend_pid()").scalar()
        held = private_bytes(int(own or 0))
    ledger.close()
    return {
        "ledger_per_video": per_video,
        "ledger_per_renewal": per_renewal,
        "ledger_connection_bytes": float(held),
        "ledger_latency_seconds": statistics.median(latencies),
    }


def broker_prices(*, videos: int, idle_seconds: float) -> dict[str, float]:
    """Through the real system with a detector that costs nothing."""
    port = free_port()
    with World(workers=0, api=False, webhooks=True, work_seconds=0.0, child_every=0, concurrency=4, lease_seconds=60.0) as world:
        client = world.direct_client()

        def used() -> float:
            facts = client.info("cpu")
            return float(facts["used_cpu_sys"] + facts["used_cpu_user"])

        def commands() -> int:
            return int(client.info("stats")["total_commands_processed"])

        def commands_per_second() -> float:
            before = commands()
            time.sleep(idle_seconds)
            return (commands() - before - 1) / idle_seconds

        time.sleep(3.0)
        clients, quiet = client.info("clients")["connected_clients"], commands_per_second()
        worker = world.add_worker("worker-0", VERIFRAME_METRICS_PORT=str(port))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        time.sleep(3.0)
        opened = client.info("clients")["connected_clients"] - clients
        polling = max(0.0, commands_per_second() - quiet)
        names = [f"v{i}" for i in range(videos)]
        world.make_media(names)
        janitor, ingest = world.fleet.members["janitor-0"].pid, world.fleet.members["ingest-0"].pid
        before, sent, janitor_before, ingest_before, started = used(), commands(), cpu_of([janitor]), cpu_of([ingest]), time.monotonic()
        world.push_raw(client, names)
        if not world.wait_finished(videos, seconds=300):
            raise TimeoutError("the videos of the measurement did not end")
        took = time.monotonic() - started
        sent = commands() - sent
        per_command = (used() - before) / sent
        result = {
            "broker_per_video": per_command * max(0.0, sent - (quiet + polling) * took) / videos,
            "broker_per_idle_second": per_command * polling,
            "broker_connections_per_worker": float(opened),
            "broker_commands_per_idle_second": polling,
            "janitor_per_video": (cpu_of([janitor]) - janitor_before) / videos,
            "ingest_per_video": (cpu_of([ingest]) - ingest_before) / videos,
        }
        assert worker.is_alive
        client.close()
        return result


def series_of_a_worker() -> float:
    """Series of a worker with three detectors that has seen every stage and lane."""
    metrics, detectors = Metrics(), ["blend", "synthesis", "xception"]
    metrics.prepare_worker(model="set@1", detectors=detectors, device="cuda:0")
    for stage in STAGES:
        metrics.stage_seconds.labels(stage=stage, device="cuda:0")
        metrics.last_progress.labels(stage=stage)
    for lane in (*detectors, "face_detector", "face_refiner"):
        for histogram in (metrics.batch_size, metrics.batch_wait_seconds, metrics.batch_fill_ratio):
            histogram.labels(model=lane)
        metrics.inference_seconds.labels(model=lane, device="cuda:0")
    page, _content_type = metrics.expose(None)
    return float(sum(not line.startswith("#") for line in page.decode().splitlines()))


def measure(*, videos: int, idle_seconds: float) -> Prices:
    """All prices; takes about a minute."""
    server = PostgresServer().start()
    try:
        postmaster = int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        ledger = ledger_prices(postmaster, server.url, videos=videos)
    finally:
        server.stop()
    return Prices(**ledger, **broker_prices(videos=videos, idle_seconds=idle_seconds), series_per_worker=series_of_a_worker())


def as_dict(prices: Prices) -> dict[str, float]:
    return asdict(prices)
