"""A clock of the ledger's database that is set, forward or back: no living worker loses its videos, and somebody leads."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import event

from workers.broker import MemoryDispatcher
from workers.clock_watch import ClockWatch
from workers.janitor import Janitor
from workers.ledger import Claim, Ledger, Submission, migrate
from workers.ledger.engine import make_engine
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.settings import Settings

_EPOCH_DAYS = 2440587.5


class SetLedger:
    """A ledger whose database's clock is ahead of the true one by `ahead_seconds`."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        engine = make_engine("sqlite://")
        event.listen(engine, "connect", self._prepare)
        migrate.upgrade(engine)
        self.ledger = Ledger(engine)

    def _prepare(self, connection, _record):
        connection.create_function("julianday", 1, lambda _now: (time.time() + self.ahead_seconds) / 86400.0 + _EPOCH_DAYS)


@pytest.fixture
def world():
    made = SetLedger()
    yield made
    made.ledger.close()


def janitor_of(world: SetLedger, *, lease_seconds: float) -> Janitor:
    settings = Settings(lease_seconds=lease_seconds)
    return Janitor(world.ledger, MemoryDispatcher(), client=None, settings=settings, metrics=Metrics(), owner="j")


def rounds(janitor: Janitor, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        janitor.step()
        time.sleep(0.05)


def test_a_step_forward_takes_no_video_from_a_living_worker(world):
    janitor = janitor_of(world, lease_seconds=60.0)
    job = world.ledger.submit(Submission(request=EnqueueRequest(video_id="a"), door="cli")).ledger_id
    assert isinstance(world.ledger.claim(job, owner="alive", lease_seconds=60.0), Claim)
    janitor.step()
    world.ahead_seconds = 90.0
    rounds(janitor, seconds=1.2)
    assert set(world.ledger.renew("alive", ledger_ids=[job], lease_seconds=60.0)) == {job}


def test_after_a_step_the_lease_of_a_dead_worker_still_runs_out(world):
    janitor = janitor_of(world, lease_seconds=1.0)
    job = world.ledger.submit(Submission(request=EnqueueRequest(video_id="a"), door="cli")).ledger_id
    world.ledger.claim(job, owner="dead", lease_seconds=60.0)
    janitor.step()
    world.ahead_seconds = 90.0
    rounds(janitor, seconds=2.6)
    assert world.ledger.job(job).state == "QUEUED"


def test_a_standby_leads_although_the_clock_went_back(world):
    assert world.ledger.lead("janitor", owner="dead", seconds=10.0)
    assert not world.ledger.lead("janitor", owner="standby", seconds=10.0)
    world.ahead_seconds = -3600.0
    assert world.ledger.lead("janitor", owner="standby", seconds=10.0)


@pytest.mark.parametrize(
    ("looks", "steps"),
    [
        ([(0, 1000), (60, 1060), (3600, 4601)], [0, 0, 0]),  # ran, and was slewed a little
        ([(0, 1000), (1, 1091), (2, 1092)], [0, 90, 0]),
        ([(0, 1000), (1, -2599)], [0, -3600]),
    ],
)
def test_a_clock_that_runs_is_told_from_one_that_is_set(looks, steps):
    times = iter([monotonic for monotonic, _now in looks])
    watch = ClockWatch(monotonic=lambda: float(next(times)))
    assert [watch.step_seconds(float(now)) for _monotonic, now in looks] == steps
