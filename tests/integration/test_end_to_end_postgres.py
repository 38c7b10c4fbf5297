"""The same system on its production parts: Postgres ledger and redis-server broker; a janitor that waits out a ledger outage."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from tests.chaos.history import broken_promises
from tests.chaos.screener import media_bytes
from tests.chaos.world import raw_message
from tests.integration.servers import PostgresServer, missing
from workers.broker import MemoryDispatcher
from workers.errors import LedgerError
from workers.janitor import Janitor
from workers.ledger import Claim, Ledger, Submission
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.settings import Settings
from workers.up import start_system

pytestmark = pytest.mark.integration


def test_ids_become_verdicts_on_postgres_and_redis(postgres, redis_server, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    ids = [f"pg_{number}" for number in range(60)]
    for video_id in ids:
        (media / f"{video_id}.mp4").write_bytes(media_bytes(video_id))
    settings = Settings(
        state_dir=tmp_path,
        broker_url=redis_server.url,
        ledger_url=postgres.url,
        media_template=f"{media}/{{video_id}}.mp4",
        media_roots=(media,),
        lease_seconds=4,
        resend_seconds=4,
        log_level="warning",
    )
    with start_system(settings, command=[sys.executable, "-m", "tests.chaos.worker_process"]) as system:
        ledger = system.control.ledger
        for video_id in ids:
            system.control.client.lpush("default", raw_message(video_id))
        end = time.monotonic() + 60
        while ledger.count_states()["VERDICT"] < len(ids) and time.monotonic() < end:
            time.sleep(0.1)
        assert ledger.count_states()["VERDICT"] == len(ids)
        assert broken_promises(ledger.history()) == []


def test_living_workers_are_not_blamed_for_a_ledger_outage(tmp_path):
    if PostgresServer.find_binaries() is None:
        missing("postgresql")
    server = PostgresServer().start()
    ledger, metrics = Ledger.open(server.url), Metrics()
    settings = Settings(lease_seconds=2.0, state_dir=tmp_path, leader_seconds=1.0)
    janitor = Janitor(ledger, MemoryDispatcher(), client=None, settings=settings, metrics=metrics, owner="j")
    stop = threading.Event()
    thread = threading.Thread(target=janitor.run, args=(stop,), daemon=True)
    try:
        job = ledger.submit(Submission(request=EnqueueRequest(video_id="a"), door="cli")).ledger_id
        assert isinstance(ledger.claim(job, owner="w", lease_seconds=2.0), Claim)
        thread.start()
        time.sleep(0.5)
        server.restart(pause_seconds=3.0)  # longer than the lease: nobody could renew
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                assert set(ledger.renew("w", ledger_ids=[job], lease_seconds=60.0)) == {job}
                break
            except LedgerError:
                time.sleep(0.05)
        time.sleep(2.0)
        assert ledger.job(job).state == "LEASED"
        assert metrics.registry.get_sample_value("veriframe_leases_expired_total", {"queue": "default"}) is None
    finally:
        stop.set()
        thread.join(timeout=10)
        ledger.close()
        server.stop()
