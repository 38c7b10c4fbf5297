"""`veriframe up` as an operator runs it: answers, stops in order when told to, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

from tests.chaos.fleet import marked_processes
from tests.integration.servers import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def test_up_answers_and_stops_in_order(tmp_path):
    port, mark = free_port(), f"VERIFRAME_TEST_RUN={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    env = {**os.environ, name: value, "PYTHONPATH": str(ROOT), "VERIFRAME_STATE_DIR": str(tmp_path)}
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        system = subprocess.Popen([sys.executable, "-m", "workers", "up", "--port", str(port)], env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 40
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
                break
            except httpx.HTTPError:
                assert time.monotonic() < end, log.read_text()
                assert system.poll() is None, log.read_text()
                time.sleep(0.1)
        # the printed link lets the one who started it into the review pages, once
        link = re.search(r"http://localhost:\d+(/review/login/\S+)", log.read_text())
        assert link is not None
        entered = httpx.post(f"http://127.0.0.1:{port}{link[1]}", headers={"content-length": "0"}, timeout=30)
        assert (entered.status_code, entered.headers["location"]) == (303, "/review/")
        system.send_signal(signal.SIGTERM)
        assert system.wait(timeout=60) == 0, log.read_text()
    finally:
        if system.poll() is None:
            system.kill()
            system.wait()
    end = time.monotonic() + 5
    while (left := marked_processes(value)) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []
    assert "Traceback" not in log.read_text()
