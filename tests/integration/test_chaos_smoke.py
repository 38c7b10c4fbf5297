"""The short form of `make chaos`: every figure of the report must meet its goal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import servers

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def test_chaos_smoke(tmp_path):
    if servers.RedisServer.binary() is None:
        servers.missing("redis-server")
    out = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "tests.chaos", "--smoke", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert out.exists(), done.stderr[-2000:]
    report = json.loads(out.read_text())
    missed = [row for row in report["rows"] if row["pass"] is False]
    assert missed == [], (missed, report["detail"])
    assert len(report["rows"]) >= 20
