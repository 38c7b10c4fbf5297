"""What the janitor sends to which queue: old videos move up one lane, and take no more than their share of it."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from workers.broker import MemoryDispatcher
from workers.intake import Intake
from workers.janitor import Janitor
from workers.ledger import Ledger, Submission
from workers.ledger.schema import db_now, jobs
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.settings import Settings

BOUND = 64
SHARE = BOUND // 8


class World:
    """A ledger, its janitor and its intake, without a broker."""

    def __init__(self) -> None:
        self.ledger, metrics = Ledger.in_memory(), Metrics()
        self.dispatcher = MemoryDispatcher(bound=BOUND)
        self.janitor = Janitor(
            self.ledger, self.dispatcher, client=None, settings=Settings(dispatch_bound=BOUND), metrics=metrics, owner="janitor"
        )
        self.intake = Intake(self.ledger, self.dispatcher, metrics=metrics, resend_seconds=30, backlog_limit=10_000)

    def submit(self, lane: str, num: int) -> list[str]:
        many = [Submission(request=EnqueueRequest(video_id=f"{lane}{i}", lane=lane), door="http") for i in range(num)]
        return [outcome.ledger_id for outcome in self.ledger.submit_many(many)]

    def grow_old(self, seconds: float) -> None:
        with self.ledger.engine.begin() as connection:
            connection.execute(update(jobs).values(created_at=jobs.c.created_at - seconds, due_at=db_now() - 1))

    def work(self, queue: str) -> str:
        job = self.dispatcher.queues[queue].pop(0)
        self.ledger.claim(job, owner="w1", lease_seconds=1000)
        return job


@pytest.fixture
def world():
    made = World()
    yield made
    made.ledger.close()


@pytest.mark.parametrize(("lane", "above", "seconds"), [("default", "urgent", 1000), ("bulk", "default", 4000)])
def test_a_backlog_of_old_videos_leaves_the_lane_above_its_own_room(world, lane, above, seconds):
    old = set(world.submit(lane, 300))
    world.grow_old(seconds)
    world.janitor.step()
    world.janitor.step()
    assert len(world.dispatcher.queues[above]) == SHARE
    [upload] = world.intake.accept([Submission(request=EnqueueRequest(video_id="now", lane=above), door="http")])
    served = 0
    while world.work(above) != upload.ledger_id:
        served += 1
        world.janitor.step()
    assert served == SHARE
    assert len(old & set(world.dispatcher.queues[above])) == SHARE, "others moved up behind it: nobody starves"


def test_a_lane_that_never_runs_dry_starves_no_old_video_below(world):
    [old] = world.submit("default", 1)
    world.submit("urgent", 300)
    world.grow_old(1000)
    world.janitor.step()
    assert len(world.dispatcher.queues["urgent"]) == BOUND
    assert old in world.dispatcher.queues["urgent"]
