"""Latency of `POST /v1/videos` at a steady rate against one real API process: each request is sent at its appointed time and
measured from then on, so a stall of the server is counted in every request that it delays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.chaos.report import Report
from tests.integration.servers import PostgresServer, RedisServer, free_port

LIMIT_MS = 30
_ROOT = Path(__file__).parents[2]


def measure(report: Report, *, rate: int, seconds: float) -> None:
    """Submit to an API on SQLite, then on Postgres."""
    with tempfile.TemporaryDirectory() as folder:
        _measure_on(report, f"sqlite:///{folder}/ledger.sqlite3", Path(folder), "SQLite", rate=rate, seconds=seconds)
    if PostgresServer.find_binaries() is None:
        return
    server = PostgresServer().start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _measure_on(report, server.url, Path(folder), "Postgres", rate=rate, seconds=seconds)
    finally:
        server.stop()


def _measure_on(report: Report, ledger_url: str, folder: Path, name: str, *, rate: int, seconds: float) -> None:
    with _api(ledger_url, folder) as address:
        asyncio.run(_submit(address, rate=rate, seconds=2.0, prefix="warm"))
        times, refused = asyncio.run(_submit(address, rate=rate, seconds=seconds, prefix="vid"))
    p95 = statistics.quantiles(times, n=20)[-1]
    report.at_most(f"submit at {rate}/s, {name}: p95 of {len(times)}", p95, "ms", LIMIT_MS)
    report.add(f"submit at {rate}/s, {name}: median", statistics.median(times), "ms", goal="-", passed=None)
    report.equals(f"submit at {rate}/s, {name}: not accepted", refused, "requests", 0)


async def _submit(address: str, *, rate: int, seconds: float, prefix: str) -> tuple[list[float], int]:
    times: list[float] = []
    refused = 0
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as client:
        start = time.perf_counter() + 0.2

        async def one(number: int) -> None:
            nonlocal refused
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answer = await client.post("/v1/videos", json={"video_id": f"{prefix}_{number}", "lane": "default"})
            times.append((time.perf_counter() - due) * 1000)
            refused += answer.status_code != 202

        await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    return times, refused


@contextlib.contextmanager
def _api(ledger_url: str, folder: Path) -> Iterator[str]:
    (folder / "redis").mkdir()
    broker = RedisServer(folder / "redis").start()
    port = free_port()
    env = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "VERIFRAME_STATE_DIR": str(folder),
        "VERIFRAME_BROKER_URL": broker.url,
        "VERIFRAME_LEDGER_URL": ledger_url,
        "VERIFRAME_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "workers", "api", "--port", str(port)], env=env)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{address}/readyz", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, "the API ended at its start"
            assert time.monotonic() < deadline, "the API does not start"
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)
        broker.stop()
