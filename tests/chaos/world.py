"""One complete system for a chaos scenario: broker, ledger, ingest, janitors, API and workers, each a process of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import redis
from celery import Celery

from tests.chaos.fleet import Fleet, Member
from tests.chaos.screener import media_bytes
from tests.integration.servers import RedisServer, free_port
from workers.ledger import Ledger
from workers.settings import Settings, base_environment

PYTHON = sys.executable
MARK = "VERIFRAME_CHAOS_RUN"


class Receiver:
    """Takes webhooks and counts them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        lock, events = threading.Lock(), self.events

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError, ValueError):  # a janitor was killed in mid-sentence
                    super().handle()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    events.append((self.headers["webhook-id"], body["subject"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def duplicates(self) -> int:
        """Videos for which two different events were published."""
        by_video: dict[str, set[str]] = {}
        for event_id, video_id in self.events:
            by_video.setdefault(video_id, set()).add(event_id)
        return sum(len(ids) > 1 for ids in by_video.values())


class World:
    """A running system in its own folder."""

    def __init__(
        self,
        *,
        workers: int = 2,
        ingests: int = 1,
        janitors: int = 1,
        api: bool = True,
        webhooks: bool = False,
        work_seconds: float = 0.005,
        child_every: int = 0,
        broker_port: int | None = None,
        broker_options: dict[str, str] | None = None,
        worker_module: str = "tests.chaos.worker_process",
        **settings: Any,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="veriframe-chaos-"))
        self.temp = self.folder / "tmp"
        self.media = self.folder / "media"
        broker_folder = self.folder / "redis"
        for folder in (self.temp, self.media, broker_folder):
            folder.mkdir()
        self.broker = RedisServer(broker_folder, **(broker_options or {})).start()
        self.receiver = Receiver() if webhooks else None
        self.run_id = uuid.uuid4().hex
        proxied = f"redis://127.0.0.1:{broker_port or self.broker.port}/0"
        defaults: dict[str, Any] = {
            "state_dir": self.folder,
            "broker_url": proxied,
            "media_template": f"{self.media}/{{video_id}}.mp4",
            "media_roots": (self.media,),
            "concurrency": 4,
            "lease_seconds": 5.0,
            "resend_seconds": 5.0,
            "leader_seconds": 3.0,
            "drain_seconds": 2.0,
            "exit_seconds": 15.0,
            "visibility_timeout_seconds": 30,
            "stream_idle_seconds": 5.0,
            "api_port": free_port(),
            "log_level": "warning",
        }
        if self.receiver is not None:
            defaults["webhook_url"] = f"http://127.0.0.1:{self.receiver.port}/hook"
            defaults["webhook_private_hosts"] = (f"127.0.0.1:{self.receiver.port}",)
        self.settings = Settings(**{**defaults, **settings})
        self.env = {
            **base_environment(),
            **self.settings.as_environment(),
            MARK: self.run_id,
            "TMPDIR": str(self.temp),
            "CHAOS_WORK_SECONDS": str(work_seconds),
            "CHAOS_CHILD_EVERY": str(child_every),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
        }
        self.ledger = Ledger.open(self.settings.resolved_ledger_url)
        self.fleet = Fleet(self.folder)
        self.worker_module = worker_module
        for i in range(ingests):
            self.fleet.add(f"ingest-{i}", [PYTHON, "-m", "workers", "ingest"], self.env)
        for i in range(janitors):
            self.fleet.add(f"janitor-{i}", [PYTHON, "-m", "workers", "janitor"], self.env)
        for i in range(workers):
            self.add_worker(f"worker-{i}")
        if api:
            self.fleet.add("api", [PYTHON, "-m", "workers", "api"], self.env)
            self.wait_for_api()

    def add_worker(self, name: str, **env: str) -> Member:
        return self.fleet.add(name, [PYTHON, "-m", self.worker_module], {**self.env, **env})

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.fleet.stop()
        self.broker.stop()
        self.ledger.close()
        if self.receiver is not None:
            self.receiver.server.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- doors

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.api_port}"

    def wait_for_api(self, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                httpx.get(f"{self.api_url}/livez", timeout=1).raise_for_status()
                return
            except httpx.HTTPError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def make_media(self, video_ids: Sequence[str], *, poison: str | None = None) -> None:
        for video_id in video_ids:
            (self.media / f"{video_id}.mp4").write_bytes(media_bytes(video_id, poison=poison))

    def direct_client(self) -> redis.Redis:
        """A client straight to the broker, as a platform has it."""
        return redis.Redis(port=self.broker.port, socket_timeout=5)

    def push_raw(self, client: redis.Redis, video_ids: Sequence[str], *, lane: str = "default") -> None:
        for start in range(0, len(video_ids), 500):
            client.lpush(lane, *[raw_message(video_id) for video_id in video_ids[start : start + 500]])

    def push_by_name(self, video_ids: Sequence[str], *, lane: str = "default") -> None:
        with Celery(broker=self.broker.url, set_as_current=False) as app:
            app.conf.task_serializer = "json"
            with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
                for video_id in video_ids:
                    app.send_task("veriframe.screen", kwargs={"video_id": video_id}, queue=lane, producer=producer)

    def post(self, video_ids: Sequence[str], *, on_answer: Callable[[str, int, float], None] | None = None) -> None:
        """Submit by HTTP; `on_answer` gets (video ID, status or 0 for silence, seconds)."""
        with httpx.Client(base_url=self.api_url, timeout=10.0) as client:
            for video_id in video_ids:
                started = time.monotonic()
                try:
                    status = client.post("/v1/videos", json={"video_id": video_id}).status_code
                except httpx.HTTPError:
                    status = 0
                if on_answer is not None:
                    on_answer(video_id, status, time.monotonic() - started)
                else:
                    assert status == 202, (video_id, status)

    # --- looking

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.folder / "ledger.sqlite3", timeout=30)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def num_finished(self) -> int:
        return int(self.query("select count(*) from jobs where finished_at is not null")[0][0])

    def num_jobs(self) -> int:
        return int(self.query("select count(*) from jobs")[0][0])

    def wait_finished(self, count: int, *, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.num_finished() >= count:
                return True
            time.sleep(0.1)
        return False

    def history(self) -> list[dict[str, Any]]:
        return list(self.ledger.history())

    def verdict_of(self) -> dict[str, dict[str, Any]]:
        """The stable part of every verdict, by video."""
        rows = self.query("select video_id, body from verdicts")
        return {video_id: stable_part(json.loads(body)) for video_id, body in rows}

    def leased_by(self, pid: int) -> list[str]:
        rows = self.query("select ledger_id from jobs where state = 'LEASED' and owner like ?", f"%:{pid}:%")
        return [row[0] for row in rows]

    def leftovers(self) -> tuple[int, int]:
        """(processes that outlived the run, temp files left); stop the fleet first."""
        from tests.chaos.fleet import marked_processes

        end = time.monotonic() + 2
        while (orphans := marked_processes(self.run_id)) and time.monotonic() < end:
            time.sleep(0.1)
        return len(orphans), sum(len(files) for _folder, _folders, files in os.walk(self.temp))


VOLATILE = ("job_id", "timing_ms", "worker", "created_at", "cost", "trace_id", "attributes", "ffmpeg")


def stable_part(body: dict[str, Any]) -> dict[str, Any]:
    """A verdict without what legitimately differs between two runs: times, costs, who did it."""
    kept = {name: value for name, value in body.items() if name not in VOLATILE}
    kept["models"] = [{k: v for k, v in model.items() if k != "ms"} for model in body.get("models", [])]
    return kept


def raw_message(video_id: str) -> str:
    """Door 1b written by hand, as any language would."""
    message_id = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps([[], {"video_id": video_id}, {}]).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "veriframe.screen", "id": message_id},
            "properties": {
                "correlation_id": message_id,
                "body_encoding": "base64",
                "delivery_mode": 2,
                "delivery_tag": message_id,
                "delivery_info": {"exchange": "", "routing_key": "default"},
                "priority": 0,
            },
        }
    )


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile; 0 for nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
