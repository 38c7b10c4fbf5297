"""The short form of `python -m tests.soak`: real workers and detectors, a worker taken away under load, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import servers
from tests.soak.watch import Look, growth, slope_per_hour

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_soak_smoke(tmp_path):
    pytest.importorskip("skimage", reason="pip install veriframe[demo]")
    if servers.RedisServer.binary() is None:
        servers.missing("redis-server")
    out = tmp_path / "soak.json"
    command = [sys.executable, "-m", "tests.soak", "--smoke", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850, check=False)
    assert out.exists(), done.stderr[-2000:]
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert [row for row in rows.values() if row["pass"] is False] == [], done.stderr[-2000:]
    assert rows["videos lost, scale-down under load included"]["value"] == 0
    assert rows["scale-down: videos held when told"]["value"] >= 1


def test_a_leak_has_a_slope_and_a_burst_has_none():
    leak = [Look(at=5.0 * i, rss_bytes=10**9 + 1000 * i, num_files=20, num_children=1) for i in range(100)]
    assert slope_per_hour(leak) == pytest.approx(1000 / 5 * 3600)
    burst = [Look(at=5.0 * i, rss_bytes=10**9 + (10**8 if i % 9 == 0 else 0), num_files=20, num_children=1) for i in range(100)]
    assert slope_per_hour(burst) == 0
    assert slope_per_hour(leak[:1]) == 0


def test_growth_compares_the_ends():
    assert growth([20, 21, 20, 22, 30, 30, 29, 31]) == 30 - 20.5
    assert growth([20, 35, 20, 20]) == 0
    assert growth([]) == 0
