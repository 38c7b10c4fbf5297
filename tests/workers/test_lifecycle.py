"""Heartbeat, deadlines, memory limit and drain of one worker process."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from workers import lifecycle
from workers.errors import LedgerUnavailableError
from workers.in_flight import InFlight, Running
from workers.ledger import Claim, Ledger, Submission
from workers.lifecycle import WorkerLife
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.settings import Settings


@pytest.fixture
def ledger(tmp_path):
    # a file: heartbeats write from a thread of their own, and a ledger in memory has one connection for all
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def make_life(ledger: Ledger, **changes) -> tuple[WorkerLife, InFlight]:
    settings = Settings(lease_seconds=0.4, drain_seconds=0.2, exit_seconds=2.0, **changes)
    screening = SimpleNamespace(in_flight=InFlight(), num_received=0)
    client = SimpleNamespace(llen=lambda _queue: 0, zadd=lambda *_args, **_options: 0, ping=lambda: True)
    life = WorkerLife(screening, ledger=ledger, client=client, metrics=Metrics(), settings=settings, owner="me")
    return life, screening.in_flight


def run_one(ledger: Ledger, in_flight: InFlight, video_id: str = "a") -> Running:
    job = ledger.submit(Submission(request=EnqueueRequest(video_id=video_id), door="cli")).ledger_id
    claim = ledger.claim(job, owner="me", lease_seconds=0.4)
    assert isinstance(claim, Claim)
    running = Running(claim=claim, delivery_tag="tag")
    in_flight.add(running)
    return running


def test_the_heartbeat_keeps_leases_and_notices_lost_ones(ledger):
    life, in_flight = make_life(ledger)
    kept, lost = run_one(ledger, in_flight, "kept"), run_one(ledger, in_flight, "lost")
    life.start()
    time.sleep(1.0)
    assert ledger.expire_leases(max_crashes=3, page=5, urls=[], poison_body=lambda _row: {}) == []
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET owner = 'other', fence = fence + 1 WHERE video_id = 'lost'")
    assert lost.cancel.wait(5)
    assert lost.cancel_reason == "lease_lost"
    assert not kept.cancel.is_set()
    assert life.is_live
    assert life.is_ready
    life.stop()


def test_a_lease_that_nobody_works_on_runs_out_beside_a_busy_neighbour(ledger):
    life, in_flight = make_life(ledger)
    run_one(ledger, in_flight, "busy")
    orphan = run_one(ledger, in_flight, "orphan")
    in_flight.remove(orphan)  # as after a claim whose answer was lost, or a commit that was given up
    life.start()
    time.sleep(1.0)
    ledger.expire_leases(max_crashes=3, page=5, urls=[], poison_body=lambda _row: {})
    life.stop()
    assert ledger.job(orphan.claim.ledger_id).state == "QUEUED"
    assert ledger.latest_job("busy").state == "LEASED"


def test_a_ledger_outage_does_not_stop_the_heartbeat(ledger, monkeypatch):
    life, in_flight = make_life(ledger)
    run_one(ledger, in_flight)
    real, failures = ledger.renew, [LedgerUnavailableError("down")] * 2

    def flaky(*args, **options):
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(ledger, "renew", flaky)
    life.start()
    time.sleep(0.8)
    assert failures == []
    assert life.is_live
    life.stop()


def test_a_video_beyond_its_time_is_cancelled(ledger):
    life, in_flight = make_life(ledger, video_soft_seconds=0.2, video_hard_seconds=60.0)
    running = run_one(ledger, in_flight)
    life.start()
    assert running.cancel.wait(5)
    assert running.cancel_reason == "deadline"
    life.stop()


def test_a_stuck_thread_makes_the_process_leave_and_spares_the_neighbours(ledger, monkeypatch):
    life, in_flight = make_life(ledger, video_soft_seconds=0.1, video_hard_seconds=0.3)
    stuck = run_one(ledger, in_flight, "stuck")
    left = threading.Event()
    monkeypatch.setattr(lifecycle.os, "_exit", lambda status: left.set() if status == lifecycle.EXIT_STUCK else None)
    time.sleep(0.35)
    neighbour = run_one(ledger, in_flight, "neighbour")
    life.start()
    assert left.wait(5)
    life.stop()
    assert ledger.job(neighbour.claim.ledger_id).state == "QUEUED"
    assert ledger.job(neighbour.claim.ledger_id).attempts == 0
    assert ledger.job(stuck.claim.ledger_id).state == "LEASED"


def test_a_worker_that_hands_back_renews_no_more(ledger, monkeypatch):
    """Renewal and hand-back take the same rows in other orders: the database would end one of them, a second later."""
    life, in_flight = make_life(ledger)
    jobs = [run_one(ledger, in_flight, f"v{i}") for i in range(3)]
    real, busy, go_on, order = ledger.renew, threading.Event(), threading.Event(), []

    def slow(*args, **options):
        busy.set()
        go_on.wait(5)
        order.append("renewed")
        return real(*args, **options)

    monkeypatch.setattr(ledger, "renew", slow)
    renewal = threading.Thread(target=life._renew, args=(in_flight.snapshot(),))
    renewal.start()
    assert busy.wait(5)
    threading.Timer(0.3, go_on.set).start()
    life._hand_back(in_flight.snapshot(), why="drain")
    order.append("handed back")
    renewal.join()
    life._renew(in_flight.snapshot())
    assert order == ["renewed", "handed back"]
    assert {(ledger.job(job.claim.ledger_id).state, ledger.job(job.claim.ledger_id).attempts) for job in jobs} == {("QUEUED", 0)}


def test_too_much_memory_ends_in_a_drain(ledger, monkeypatch):
    life, _in_flight = make_life(ledger, memory_limit_bytes=1)
    told = threading.Event()
    monkeypatch.setattr(lifecycle, "signal_self", told.set)
    life.start()
    assert told.wait(5)
    life.stop()


def test_a_drain_hands_back_what_does_not_end_and_then_leaves(ledger, monkeypatch):
    life, in_flight = make_life(ledger)
    running = run_one(ledger, in_flight)
    gone = threading.Event()
    monkeypatch.setattr(lifecycle.os, "_exit", lambda _status: gone.set())
    life.start()
    started = time.monotonic()
    life.drain()
    life.drain()  # a second SIGTERM changes nothing
    assert not life.is_ready
    assert running.cancel.wait(5)
    assert running.cancel_reason == "drain"
    assert gone.wait(5)
    assert time.monotonic() - started < 4
    row = ledger.job(running.claim.ledger_id)
    assert (row.state, row.attempts) == ("QUEUED", 0)
    life.stop()


def test_a_busy_ledger_does_not_hold_up_the_exit(ledger, monkeypatch):
    life, in_flight = make_life(ledger)
    for name in ("a", "b", "c"):
        run_one(ledger, in_flight, name)
    gone = threading.Event()
    monkeypatch.setattr(lifecycle.os, "_exit", lambda _status: gone.set())
    with ledger.engine.begin():  # the only writer, for longer than the exit may take
        started = time.monotonic()
        life.drain()
        assert gone.wait(10)
        assert 1.9 < time.monotonic() - started < 4
    life.stop()
