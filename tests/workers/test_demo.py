"""The demo and the bench's service run a system of their own, and say what is missing instead of waiting or dying."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from types import SimpleNamespace

import av
import numpy as np
import pytest
from rich.console import Console

from builders import moving_pictures, write_clip
from workers import demo
from workers.bench import clips as bench_clips
from workers.bench import service
from workers.bench.measure import Bench
from workers.broker import DISPATCH_LANES
from workers.demo_clips import make_demo_clips
from workers.encoder import encode_clip
from workers.errors import EncodeError, MissingExtraError, WorkerDiedError
from workers.messages import JobFacts, pending_body
from workers.processes import SupervisedProcess
from workers.settings import base_environment
from workers.up import System


@pytest.fixture
def production(monkeypatch, tmp_path):
    """The environment of a container."""
    secret = tmp_path / "ledger_url"
    secret.write_text("postgresql+psycopg://user:password@ledger/veriframe\n")
    for name, value in {
        "BROKER_URL": "redis://worker:password@broker:6379/0",
        "LEDGER_URL_FILE": str(secret),
        "WEBHOOK_URL": "https://platform.example/hook",
        "OTLP_ENDPOINT": "http://collector:4318",
        "EMBEDDED_BROKER_PORT": "6379",
        "METRICS_PORT": "9100",
        "SHADOW_BUNDLE_SET": "candidate",
        "DISPATCH_LANES": '["bulk"]',
    }.items():
        monkeypatch.setenv(f"VERIFRAME_{name}", value)


class AskedError(Exception):
    """Carries the settings that a system was to be started with."""

    def __init__(self, settings) -> None:
        self.settings = settings


def ask(settings, **_options):
    raise AskedError(settings)


def require_apart(settings, folder) -> None:
    assert settings.state_dir.is_relative_to(folder)
    outside = ("broker_url", "ledger_url", "webhook_url", "otlp_endpoint", "shadow_bundle_set")
    assert {name: getattr(settings, name) for name in outside} == dict.fromkeys(outside)
    assert (settings.metrics_port, settings.embedded_broker_port) == (0, 0)
    assert settings.dispatch_lanes == DISPATCH_LANES
    assert settings.resolved_ledger_url.startswith(f"sqlite:///{settings.state_dir}")


def test_the_demo_stays_away_from_the_broker_and_ledger_of_its_environment(production, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "start_system", ask)
    monkeypatch.setattr(demo.tempfile, "mkdtemp", lambda **_options: str(tmp_path / "state"))
    clip = tmp_path / "own.mp4"
    write_clip(clip, moving_pictures(5))
    with pytest.raises(AskedError) as asked:
        demo.demo_command(clip)
    require_apart(asked.value.settings, tmp_path / "state")


def test_the_bench_stays_away_from_the_broker_and_ledger_of_its_environment(production, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "start_system", ask)
    monkeypatch.setenv("VERIFRAME_BUNDLE_SET", "/models/own.json")
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"never decoded")
    monkeypatch.setattr(service, "make_clip", lambda *_arguments, **_options: SimpleNamespace(path=clip))
    with pytest.raises(AskedError) as asked:
        service.service_overhead(Bench(repeats=1, console=Console(file=io.StringIO())), tmp_path, num_videos=2, device="cuda:1")
    require_apart(asked.value.settings, tmp_path / "state")
    assert asked.value.settings.device == "cuda:1", "both sides of the comparison run on one device"
    assert asked.value.settings.bundle_set == "default", "and with the same nets"


def test_without_its_pictures_a_command_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    for make in (make_demo_clips, lambda folder: bench_clips.make_clip(folder, height_px=240, seconds=1)):
        with pytest.raises(MissingExtraError, match=r"pip install 'veriframe\[demo\]'"):
            make(tmp_path)


def test_a_clip_that_cannot_be_written_ends_in_a_sentence(tmp_path):
    frames = [np.zeros((32, 48, 3), np.uint8)] * 500  # more than a pipe holds: the encoder is gone while they are written
    with pytest.raises(EncodeError, match=r"gone/clip\.mp4, ffmpeg ended with .*No such file"):
        encode_clip(tmp_path / "gone" / "clip.mp4", frames, size_wh=(48, 32), rate=25)
    encode_clip(tmp_path / "clip.mp4", frames, size_wh=(48, 32), rate=25, crf=30)
    with av.open(str(tmp_path / "clip.mp4")) as made:
        assert sum(1 for _ in made.decode(video=0)) == 500


@contextlib.contextmanager
def broken_worker(tmp_path):
    """A system whose worker says why it cannot start."""
    log = tmp_path / "worker.log"
    command = [sys.executable, "-c", "raise SystemExit('no seccomp here')"]
    worker = SupervisedProcess("worker", command, env=base_environment(), log_path=log)
    ledger = SimpleNamespace(latest_job=lambda _video_id: None)
    worker.start()
    try:
        yield System(control=SimpleNamespace(ledger=ledger), broker_url="redis://127.0.0.1:1/0", worker=worker)
    finally:
        worker.stop()


def test_the_demo_stops_waiting_for_a_worker_that_cannot_start_and_shows_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_WAIT_SECONDS", 60.0)
    started = time.monotonic()
    with broken_worker(tmp_path) as system, pytest.raises(WorkerDiedError, match=r"ended 2 times(?s:.*)no seccomp here"):
        demo._watch(["a", "b"], system, Console(file=io.StringIO()))
    assert time.monotonic() - started < 50


def test_a_worker_that_comes_back_after_an_outcome_is_waited_for(tmp_path, monkeypatch):
    queued = pending_body(state="queued", job=JobFacts(video_id="b"))
    done = queued.model_copy(update={"video_id": "a", "state": "complete"})
    monkeypatch.setattr(demo, "_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(demo, "_progress", lambda _bodies: "")
    monkeypatch.setattr(demo, "_outcome", lambda video_id, _ledger: done if video_id == "a" else queued)
    worker = SimpleNamespace(num_starts=5, log_tail=lambda: "")
    system = System(control=SimpleNamespace(ledger=None), broker_url="", worker=worker)
    assert [body.state for body in demo._watch(["a", "b"], system, Console(file=io.StringIO()))] == ["complete", "queued"]
