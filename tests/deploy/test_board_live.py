"""The board against a real Prometheus that scrapes a real system at work: broker, ledger, ingest, janitor, API, a worker with nets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from board_expressions import DEPLOY, FOREIGN, metric_names, of_panels, of_rules, panels, recorded  # noqa: E402

from tests.integration.servers import free_port, serving  # noqa: E402
from workers.settings import Settings  # noqa: E402
from workers.up import start_system  # noqa: E402
from workers.web.app import create_app  # noqa: E402

pytestmark = pytest.mark.integration

MAY_BE_EMPTY = {
    "GPU": "no DCGM here",
    "Broker memory": "no redis exporter here",
    "Time since the last finished stage": "no worker holds a video at the end",
    "Webhooks": "no receiver is set",
    "Alerts that fire": "nothing is wrong",
    "Copies without effect, tries repeated": "nothing had to be repeated",
    "Decisions of people, 6 h": "nobody decides here",
}


class Prometheus:
    """A real Prometheus on a random port, with the rules of deploy/, once a second."""

    def __init__(self, binary: str, folder: Path, targets: dict[str, int]) -> None:
        shutil.copytree(DEPLOY / "prometheus" / "rules", folder / "rules")
        for path in (folder / "rules").glob("*.yml"):
            rules = yaml.safe_load(path.read_text())
            for group in rules["groups"]:
                group["interval"] = "1s"
            path.write_text(yaml.safe_dump(rules))
        jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules/*.yml"],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )

    def ask(self, path: str, **parameters: str) -> dict:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def wait_until_up(self, num_targets: int, *, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if sum(float(row["value"][1]) for row in self.ask("query", query="up")["data"]["result"]) == num_targets:
                    return
            except OSError:
                pass
            assert time.monotonic() < end, "Prometheus does not see all targets"
            time.sleep(0.2)

    def wait_for(self, expr: str, *, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not self.ask("query", query=expr)["data"]["result"]:
            assert time.monotonic() < end, f"{expr} does not come true"
            time.sleep(0.5)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def small_bundle_set(folder: Path) -> Path:
    """A bundle set with one tiny untrained net: what it says is worthless, but it is loaded, batched and measured like any other."""
    import torch

    from detect_core.bundle import CropSpec, save_bundle
    from detect_core.calibration import load_bundle_set
    from detect_core.nets import build_net
    from detect_core.self_test import golden_document, golden_path

    options = {"widths": [8, 8, 16, 16, 16, 24], "num_middle": 1, "middle_repeats": 1}
    torch.manual_seed(0)
    bundle = save_bundle(
        folder / "blend",
        build_net("minixception", **options),
        name="blend",
        version="1",
        detector="blend",
        net="minixception",
        net_options=options,
        crop=CropSpec(size_px=64, margin=1.3),
        temperature=1.0,
        card={"metrics": {}},
    )
    document = {
        "schema": "bundle_set/1",
        "name": "test",
        "bundles": [{"name": "blend", "path": "blend", "sha256": bundle.sha256}],
        "optional": ["xception"],
        "fusion": {"kind": "max", "offsets": {"blend": 0.0}},
        "strategy": "best_window/1",
        "beta": 0.3,
        "platt": {"a": 1.0, "c": 0.0},
        "thresholds": {"t_review": 0.5, "t_fake": 0.9},
        "protocol": {"date": "2026-11-20"},
    }
    path = folder / "set.json"
    path.write_text(json.dumps(document))
    golden_path(path).write_text(json.dumps(golden_document(load_bundle_set(path))))
    return path


def submit(http: httpx.Client, video_id: str, path: Path) -> None:
    http.post("/v1/videos", json={"video_id": video_id, "source": path.as_uri()}).raise_for_status()


def wait_for_end(http: httpx.Client, video_ids: list[str], *, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while any(http.get(f"/v1/videos/{video_id}").json()["state"] not in ("complete", "failed") for video_id in video_ids):
        assert time.monotonic() < end, "the videos did not end in time"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def live(tmp_path_factory, program):
    """(Prometheus, what API and worker exported) after a little work."""
    from builders import astronaut_pictures, write_clip

    binary = program("prometheus")
    media = tmp_path_factory.mktemp("media")
    write_clip(media / "face.mp4", astronaut_pictures(16, size=(320, 240)), rate=8)
    (media / "broken.mp4").write_bytes((media / "face.mp4").read_bytes()[:4000])
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        bundle_set=str(small_bundle_set(tmp_path_factory.mktemp("bundles"))),
        media_roots=(media,),
        metrics_port=free_port(),
        concurrency=2,
        lease_seconds=4,  # the worker's gauges are set at each heartbeat, a quarter of this
        drain_seconds=2,
        exit_seconds=8,
        log_level="warning",
    )
    with (
        start_system(settings) as running,
        serving(create_app(running.control)) as base,
        httpx.Client(base_url=base, timeout=10) as http,
    ):
        api_port = int(base.rsplit(":", 1)[1])
        prometheus = Prometheus(
            binary, tmp_path_factory.mktemp("prometheus"), {"veriframe-api": api_port, "veriframe-worker": settings.metrics_port}
        )
        try:
            submit(http, "first", media / "face.mp4")
            submit(http, "first-broken", media / "broken.mp4")
            running.control.client.lpush("default", b"no message of ours")
            prometheus.wait_until_up(2)
            wait_for_end(http, ["first", "first-broken"])
            time.sleep(2.5)  # a counter has a rate once it was seen twice
            again = ["again-0", "again-1"]
            for video_id in again:
                submit(http, video_id, media / "face.mp4")
            submit(http, "again-broken", media / "broken.mp4")
            wait_for_end(http, [*again, "again-broken"])
            prometheus.wait_for("sum(veriframe_videos_processed_total) == 5")
            time.sleep(2.5)  # rules read rules: three rounds
            prometheus.wait_for("veriframe:queue_work_seconds:predicted == 0")  # the janitor counts every five seconds
            prometheus.wait_for("veriframe_worker_in_flight == 0")
            pages = [http.get("/metrics").text, httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics").text]
            yield prometheus, pages
        finally:
            prometheus.stop()


def rows(prometheus: Prometheus, expr: str) -> list[dict]:
    answer = prometheus.ask("query", query=expr)
    assert answer["status"] == "success", expr
    return [row for row in answer["data"]["result"] if row["value"][1] not in ("NaN", "+Inf", "-Inf")]


def test_every_panel_shows_something(live):
    prometheus, _pages = live
    shown = {expression.where for expression in of_panels(rate_interval="30s") if rows(prometheus, expression.expr)}
    empty = {panel["title"] for panel in panels()} - shown
    assert empty <= set(MAY_BE_EMPTY), f"these panels show nothing: {sorted(empty - set(MAY_BE_EMPTY))}"


def test_every_query_of_a_panel_is_understood_and_the_headline_says_what_happened(live):
    prometheus, _pages = live
    for expression in of_panels(rate_interval="30s"):
        rows(prometheus, expression.expr)
    value = {
        name: float(rows(prometheus, name)[0]["value"][1]) for name in ("veriframe:workers_ready:sum", "veriframe:late_videos:ratio_rate1h")
    }
    assert value == {"veriframe:workers_ready:sum": 1.0, "veriframe:late_videos:ratio_rate1h": 0.0}
    (cost,) = rows(prometheus, "veriframe:worker_seconds_per_video:avg30m")
    assert 0.01 < float(cost["value"][1]) < 60.0, "seconds of this one worker per video, minutes after it started"


def test_rules_run_without_an_error_and_no_alert_fires_on_a_healthy_system(live):
    prometheus, _pages = live
    groups = prometheus.ask("rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(of_rules())
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert {rule["name"] for rule in rules if rule.get("state") == "firing"} == set()


def test_every_metric_that_is_asked_for_is_exported_by_the_live_system(live):
    _prometheus, pages = live
    exported = {line.split()[2] for page in pages for line in page.splitlines() if line.startswith("# TYPE")}
    for expression in [*of_panels(), *of_rules()]:
        for name in metric_names(expression.expr) - FOREIGN - recorded():
            family = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            assert family in exported or name in exported, f"{expression.where}: {name}"


def test_promtool_finds_the_metrics_well_named(live, program):
    _prometheus, pages = live
    for page in pages:
        answer = subprocess.run(
            [program("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, timeout=30, check=False
        )
        complaints = [line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("veriframe_")]
        assert complaints == []


def test_the_board_can_be_drawn_without_grafana(live, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install veriframe[train]")
    prometheus, _pages = live
    command = [sys.executable, str(DEPLOY / "grafana" / "render.py"), f"http://127.0.0.1:{prometheus.port}", str(tmp_path / "board.png")]
    answer = subprocess.run([*command, "--minutes", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "board.png").read_bytes().startswith(b"\x89PNG")
    assert f"{len(panels())} panels" in answer.stdout
