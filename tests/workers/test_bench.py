"""The bench: which device its figures are of, and errors that outlive its temporary folder."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import ClassVar

import pytest

from workers.bench import memory, run, service, stock_process
from workers.capacity import read_bench
from workers.errors import BenchError, WorkerDiedError
from workers.ledger.schema import FAILED
from workers.up import System

PARTS = ("compare", "by_concurrency", "by_length", "by_faces", "by_size", "peak_memory", "service_overhead", "budgets", "gpu_table")


class Loaded:
    """A screener that only knows its device."""

    made: ClassVar[list[Loaded]] = []

    def __init__(self, device: str) -> None:
        self.device, self.closed = device, False
        self.made.append(self)

    @classmethod
    def load(cls, *, device: str = "cpu", **_options) -> Loaded:
        return cls(device)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def devices(monkeypatch, tmp_path):
    """Device of every part that was handed a screener or a name; curves as a machine would write them."""
    seen: dict[str, str] = {}

    def spent(seconds: float, **more: float) -> dict[str, float]:
        return {"wall_seconds": seconds, "cpu_seconds": seconds, **more}

    curves = {
        "by_length": {"10 s": spent(1.9), "30 s": spent(2.1), "2 min": spent(3.0)},
        "by_size": {"480p": spent(1.2), "720p": spent(1.4), "1080p": spent(1.9)},
        "by_faces": {"1": spent(1.8, found_per_frame=1.0), "20": spent(11.3, found_per_frame=20.0)},
    }

    def part(name: str):
        def measure(bench, *arguments, device=None, **_options) -> None:
            screeners = [each.device for each in arguments if isinstance(each, Loaded)]
            seen[name] = device or (screeners[0] if screeners else "none")
            bench.detail |= {name: curves[name]} if name in curves else {}

        return measure

    for name in PARTS:
        monkeypatch.setattr(run, name, part(name))
    monkeypatch.setattr(run, "Screener", Loaded)
    monkeypatch.setattr(run, "make_clip", lambda *_arguments, **_options: SimpleNamespace(path=tmp_path / "clip.mp4"))
    monkeypatch.setattr(Loaded, "made", [])
    return seen


def test_the_times_that_capacity_plans_with_are_those_of_the_device_that_was_named(devices, tmp_path):
    out = tmp_path / "bench.json"
    assert run.run_bench([], out=out, repeats=1, quick=True, device="cuda:0") == 0
    on_device = {"by_concurrency", "by_length", "by_faces", "by_size", "service_overhead", "budgets", "gpu_table"}
    assert {name for name, device in devices.items() if device == "cuda:0"} == on_device
    assert devices["compare"] == "cpu", "the usual loop runs on the processor"
    assert json.loads(out.read_text())["detail"]["device"] == "cuda:0"
    assert read_bench(out).name.startswith("cuda:0, ")
    assert Loaded.made
    assert all(screener.closed for screener in Loaded.made)


def test_on_the_processor_nothing_is_loaded_twice(devices, tmp_path):
    run.run_bench([], out=tmp_path / "bench.json", repeats=1, quick=True)
    assert [screener.device for screener in Loaded.made] == ["cpu", "cpu"]
    assert read_bench(tmp_path / "bench.json").name.startswith("cpu, ")


@pytest.fixture
def system(monkeypatch):
    monkeypatch.setattr(service, "connect", lambda _url: SimpleNamespace(lpush=lambda *_messages: None, close=lambda: None))

    def made(*, job, num_starts: int = 1) -> System:
        worker = SimpleNamespace(num_starts=num_starts, log_tail=lambda: "the worker's last words")
        return System(control=SimpleNamespace(ledger=SimpleNamespace(latest_job=lambda _id: job)), broker_url="", worker=worker)

    return made


def test_a_bench_without_verdicts_shows_the_end_of_the_workers_log(system, monkeypatch):
    with pytest.raises(BenchError, match=r"video a failed(?s:.*)last words"):
        service._through(system(job=SimpleNamespace(state=FAILED)), ["a"])
    with pytest.raises(WorkerDiedError, match=r"ended 2 times(?s:.*)last words"):
        service._through(system(job=None, num_starts=3), ["a"])
    monkeypatch.setattr(service, "_WAIT_SECONDS", 0.0)
    with pytest.raises(BenchError, match=r"1 of 1 videos had no verdict(?s:.*)last words"):
        service._through(system(job=None), ["a"])


def test_a_process_of_the_bench_that_fails_is_a_sentence(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="out of memory", stdout="")
    monkeypatch.setattr(memory.subprocess, "run", lambda *_arguments, **_options: failed)
    with pytest.raises(BenchError, match="out of memory"):
        memory._peak([tmp_path / "a.mp4"])
    with pytest.raises(BenchError, match="out of memory"):
        stock_process.run_stock(tmp_path / "a.mp4", num_frames=1, size_px=64, threads=1, keep_memory=False)
