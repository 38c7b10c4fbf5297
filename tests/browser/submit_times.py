"""Latency of `POST /v1/videos` at a steady rate against one real API process: each request is sent at its appointed time and
measured from then on, so a stall of the server is counted in every request that it delays."""

from __future__ import annotations

import asyncio
import contextlib
import json
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
_CONNECTIONS = 32
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
    with _api(ledger_url, folder) as (port, process_id):
        asyncio.run(_submit(port, rate=rate, seconds=2.0, prefix="warm"))
        before = _cpu_seconds(process_id)
        times, refused = asyncio.run(_submit(port, rate=rate, seconds=seconds, prefix="vid"))
        cpu_ms = (_cpu_seconds(process_id) - before) * 1000 / len(times)
    p95 = statistics.quantiles(times, n=20)[-1]
    report.at_most(f"submit at {rate}/s, {name}: p95 of {len(times)}", p95, "ms", LIMIT_MS)
    report.add(f"submit at {rate}/s, {name}: median", statistics.median(times), "ms", goal="-", passed=None)
    report.add(f"submit, {name}: processor time of the API per request", cpu_ms, "ms", goal="-", passed=None)
    report.equals(f"submit at {rate}/s, {name}: not accepted", refused, "requests", 0)


async def _submit(port: int, *, rate: int, seconds: float, prefix: str) -> tuple[list[float], int]:
    """Milliseconds of each request from its appointed time on, and how many were not accepted."""
    times: list[float] = []
    refused = 0
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    start = time.perf_counter() + 0.2

    async def one(number: int) -> None:
        nonlocal refused
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = await free.get()
        status = await _post(*connection, json.dumps({"video_id": f"{prefix}_{number}", "lane": "default"}).encode())
        free.put_nowait(connection)
        times.append((time.perf_counter() - due) * 1000)
        refused += status != 202

    await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    while not free.empty():
        free.get_nowait()[1].close()
    return times, refused


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:
    """One request on an open connection, written by hand: a client library costs more than the server does."""
    head = f"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(answer.split("content-length:")[1].split("\r\n")[0])
    await reader.readexactly(length)
    return int(answer.split()[1])


def _cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", maxsplit=1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _api(ledger_url: str, folder: Path) -> Iterator[tuple[int, int]]:
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
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)
        broker.stop()
