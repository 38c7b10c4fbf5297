"""How long videos wait; tests/integration/test_ledger_postgres.py runs the same on a real Postgres server."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from tests.workers.test_ledger import plans_of
from workers.ledger import Ledger, Submission
from workers.ledger.schema import db_now, jobs
from workers.messages import EnqueueRequest


@pytest.fixture
def ledger(tmp_path):
    with_file = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield with_file
    with_file.close()


def submitted(ledger: Ledger, video_id: str) -> str:
    return ledger.submit(Submission(request=EnqueueRequest(video_id=video_id), door="cli")).ledger_id


def set_times(ledger: Ledger, job: str, **seconds_from_now: float) -> None:
    with ledger.engine.begin() as connection:
        now = connection.scalar(select(db_now()))
        connection.execute(update(jobs).where(jobs.c.ledger_id == job).values({name: now + by for name, by in seconds_from_now.items()}))


def test_a_video_that_pauses_before_another_try_does_not_wait_for_a_worker(ledger):
    def age():
        return ledger.queue_facts().oldest_age_seconds["default"]

    paused = submitted(ledger, "paused")
    set_times(ledger, paused, created_at=-1200.0, not_before=300.0)
    assert age() == 0
    fresh = submitted(ledger, "fresh")
    assert age() < 5
    set_times(ledger, fresh, created_at=-60.0)
    assert 60 <= age() < 65
    set_times(ledger, paused, not_before=-100.0)  # it is over, and no worker came
    assert 100 <= age() < 105
    ledger.claim(fresh, owner="w1", lease_seconds=60.0)
    assert 100 <= age() < 105


def test_only_rows_that_wait_are_looked_at(ledger):
    submitted(ledger, "waits")
    plans = plans_of(ledger, ledger.queue_facts)
    assert sum("ix_jobs_waiting (lane=?" in plan for plan in plans) == 2
    assert not any("SCAN jobs" in plan and "INDEX" not in plan for plan in plans)
