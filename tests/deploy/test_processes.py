"""Ingest and janitor as processes of their own, as docker-compose.yml and the manifests run them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.integration import servers  # noqa: E402
from workers.settings import base_environment  # noqa: E402

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("part", ["ingest", "janitor"])
def test_a_process_without_an_api_serves_its_probes_and_metrics(part, tmp_path):
    if servers.RedisServer.binary() is None:
        servers.missing("redis-server")
    broker = servers.RedisServer(tmp_path).start()
    port = servers.free_port()
    environment = {
        **base_environment(),
        "VERIFRAME_STATE_DIR": str(tmp_path / "state"),
        "VERIFRAME_BROKER_URL": broker.url,
        "VERIFRAME_METRICS_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "workers", part], cwd=ROOT, env=environment)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(lambda: httpx.get(f"{base}/readyz").status_code == 200)
        assert httpx.get(f"{base}/livez").status_code == 200
        if part == "janitor":
            wait_for(lambda: 'veriframe_queue_length{queue="default"} 0.0' in httpx.get(f"{base}/metrics").text)
            assert "veriframe_reconciler_leader 1.0" in httpx.get(f"{base}/metrics").text
        broker.stop()
        assert httpx.get(f"{base}/readyz", timeout=15).status_code == 503
        assert httpx.get(f"{base}/livez").status_code == 200, "a broker that is away kills nobody"
    finally:
        process.terminate()
        status = process.wait(timeout=30)
        broker.stop()
    assert status == 0


def wait_for(condition, *, seconds=30.0):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)
