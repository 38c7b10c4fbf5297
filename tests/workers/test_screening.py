"""One job from claim to commit: every way it can end."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import replace

import pytest

from detect_core.errors import DecodeTimeoutError, NotMediaError, ScreeningCancelled
from detect_core.structs import Sampling, Verdict, VideoInfo
from workers.errors import LedgerUnavailableError
from workers.in_flight import IsolationGate
from workers.ledger import Ledger, Submission
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.screening import DrainingError, Screening
from workers.settings import Settings
from workers.sources import ConfiguredSources


def verdict(p_fake: float = 0.25) -> Verdict:
    return Verdict(
        verdict="authentic",
        p_fake=p_fake,
        reason_codes=(),
        sentence="s",
        video=VideoInfo(64, 64, 1.0, 25, 1, "h264", "mp4", "yuv420p", 0),
        sampling=Sampling("uniform", 8, 8, 4, (0.0,)),
        bundle_set="b@1",
        policy="p",
    )


class Scripted:
    """A screener that does what the test says."""

    def __init__(self, *script) -> None:
        self.script, self.started = list(script), threading.Event()

    def screen(self, file, *, cancel=None, deadline_seconds=0.0, on_stage=None):
        assert file.read()
        assert deadline_seconds > 0
        self.started.set()
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if step == "wait for cancel":
            assert cancel.wait(10)
            raise ScreeningCancelled("cancelled")
        if isinstance(step, BaseException):
            raise step
        on_stage("decode", 0.1, 0.1)
        return step

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def world(tmp_path):
    (tmp_path / "vid.mp4").write_bytes(b"bytes")
    settings = Settings(
        media_template=f"{tmp_path}/{{video_id}}.mp4", media_roots=(tmp_path,), lease_seconds=5, webhook_url="http://h.example/x"
    )
    ledger = Ledger.in_memory()

    def make(*script) -> tuple[Screening, Ledger, str, Metrics]:
        metrics = Metrics()
        screening = Screening(
            ledger=ledger, screener=Scripted(*script), sources=ConfiguredSources(settings), metrics=metrics, settings=settings, owner="w1"
        )
        job = ledger.submit(Submission(request=EnqueueRequest(video_id="vid"), door="cli")).ledger_id
        return screening, ledger, job, metrics

    yield make
    ledger.close()


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_good_video_ends_in_a_verdict_with_its_content_hash(world):
    screening, ledger, job, metrics = world(verdict())
    assert screening.run(job, lane="default") == "verdict"
    row = ledger.job(job)
    assert (row.state, row.body["content_sha256"]) == ("VERDICT", hashlib.sha256(b"bytes").hexdigest())
    assert row.body["timing_ms"]["total"] >= 0
    assert screening.run(job, lane="default") == "skipped"
    assert count(metrics, "veriframe_video_duplicates_skipped_total", reason="terminal") == 1
    assert count(metrics, "veriframe_videos_processed_total", verdict="authentic", queue="default", model="b@1") == 1


@pytest.mark.parametrize(("said", "counted"), [({}, 0), ({"hardware_decode": "unsupported"}, 1)])
def test_with_the_option_on_a_video_is_counted_by_how_it_was_decoded(world, said, counted):
    screening, _ledger, job, metrics = world(replace(verdict(), extra=said))
    assert screening.run(job, lane="default") == "verdict"
    assert count(metrics, "veriframe_hardware_decodes_total", outcome="unsupported") == counted


def test_a_bad_file_fails_with_its_code_and_a_dead_letter(world):
    screening, ledger, job, metrics = world(NotMediaError("these bytes are no video"))
    assert screening.run(job, lane="default") == "failed"
    row = ledger.job(job)
    assert (row.state, row.error_code, row.body) == ("FAILED", "NOT_MEDIA", None)
    [event] = ledger.due_events(page=5, hold_seconds=60)
    assert event.kind == "verdict.failed"
    assert '"p_fake"' not in event.payload
    assert count(metrics, "veriframe_video_failures_total", stage="decode", reason="NOT_MEDIA") == 1


def test_a_timeout_is_retried_once_and_then_succeeds(world):
    screening, ledger, job, metrics = world(DecodeTimeoutError("slow"), verdict())
    assert screening.run(job, lane="default") == "retried"
    assert ledger.job(job).state == "QUEUED"
    assert screening.run(job, lane="default") == "verdict"
    assert count(metrics, "veriframe_video_retries_total", reason="DECODE_TIMEOUT") == 1


def test_memory_error_is_caught_counted_and_typed(world):
    screening, ledger, job, metrics = world(MemoryError())
    assert screening.run(job, lane="default") == "retried"
    assert screening.run(job, lane="default") == "failed"
    assert ledger.job(job).error_code == "DECODE_RESOURCE_LIMIT"
    assert count(metrics, "veriframe_video_failures_total", stage="decode", reason="memory") == 2


def test_an_untyped_bug_never_shows_its_text(world):
    screening, ledger, job, _metrics = world(ZeroDivisionError("secret /srv/path"))
    screening.run(job, lane="default")
    screening.run(job, lane="default")
    row = ledger.job(job)
    assert row.error_code == "INTERNAL"
    assert "secret" not in row.error_message


@pytest.mark.parametrize(("reason", "state", "attempts"), [("drain", "QUEUED", 0), ("deadline", "QUEUED", 1), ("lease_lost", "LEASED", 1)])
def test_cancelling_ends_as_its_reason_says(world, reason, state, attempts):
    screening, ledger, job, _metrics = world("wait for cancel")
    thread = threading.Thread(target=screening.run, args=(job,), kwargs={"lane": "default"})
    thread.start()
    assert screening._screener.started.wait(10)
    [running] = screening.in_flight.snapshot()
    running.stop(reason)
    thread.join(timeout=10)
    assert not thread.is_alive()
    row = ledger.job(job)
    assert (row.state, row.attempts) == (state, attempts)
    assert len(screening.in_flight) == 0


def test_a_draining_worker_claims_nothing(world):
    screening, ledger, job, _metrics = world(verdict())
    screening.in_flight.draining.set()
    with pytest.raises(DrainingError):
        screening.run(job, lane="default")
    assert ledger.job(job).attempts == 0


def test_a_stale_worker_stops_silently(world):
    screening, ledger, job, _metrics = world("wait for cancel", verdict())
    thread = threading.Thread(target=screening.run, args=(job,), kwargs={"lane": "default"})
    thread.start()
    screening._screener.started.wait(10)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET lease_until = 0")
    assert len(ledger.expire_leases(max_crashes=3, page=5, urls=[], poison_body=lambda _row: {})) == 1
    [running] = screening.in_flight.snapshot()
    running.cancel.set()  # the screening ends by itself, unaware that its lease is gone
    thread.join(timeout=10)
    row = ledger.job(job)
    assert (row.state, ledger.list_verdicts(), ledger.list_dead_letters()) == ("QUEUED", [], [])


def test_a_ledger_outage_at_commit_is_waited_out(world, monkeypatch):
    screening, ledger, job, _metrics = world(verdict())
    real, failures = ledger.commit_verdict, [LedgerUnavailableError("down"), LedgerUnavailableError("down")]

    def flaky(*args, **kwargs):
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(ledger, "commit_verdict", flaky)
    assert screening.run(job, lane="default") == "verdict"
    assert ledger.job(job).state == "VERDICT"


def test_a_suspect_runs_alone_and_lets_nobody_starve():
    gate, log, lock = IsolationGate(), [], threading.Lock()
    inside = 0

    def visit(alone: bool) -> None:
        nonlocal inside
        with gate.enter(alone=alone):
            with lock:
                inside += 1
                log.append((alone, inside))
            time.sleep(0.01)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=visit, args=(number % 5 == 0,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(log) == 40
    assert all(count == 1 for alone, count in log if alone)
    assert max(count for alone, count in log if not alone) > 1
