"""Submits that wait share a transaction, and none hears of another one's trouble."""

from __future__ import annotations

import asyncio
import threading

import pytest

from workers.errors import BrokerUnavailableError, InvalidMessageError
from workers.ledger import Submission, Submitted
from workers.messages import parse_enqueue
from workers.web.auth import ApiKey
from workers.web.gather import Gather

KEY, OTHER = ApiKey(frozenset({"submit"}), "a"), ApiKey(frozenset({"submit"}), "b", tenant="acme")


def submission(number: int) -> Submission:
    return Submission(request=parse_enqueue({"video_id": f"vid_{number}"}), door="http")


class Writer:
    """Writes batches; the first one waits until the test lets it go."""

    def __init__(self, *, bad: str | None = None, error: Exception | None = None) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.go, self.bad, self.error = threading.Event(), bad, error

    def __call__(self, submissions: list[Submission], key: ApiKey) -> list[Submitted]:
        ids = [each.request.video_id for each in submissions]
        self.batches.append((key.tenant, ids))
        if len(self.batches) == 1:
            assert self.go.wait(30)
        if self.error is not None and (self.bad is None or self.bad in ids):
            raise self.error
        return [Submitted(each, True, "default") for each in ids]


async def submit_behind_a_slow_one(writer: Writer, keys: list[ApiKey]) -> list[Submitted | BaseException]:
    gather = Gather(writer)
    tasks = [asyncio.create_task(gather.submit(submission(0), KEY))]
    while not writer.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(gather.submit(submission(number), key)) for number, key in enumerate(keys, start=1)]
    await asyncio.sleep(0)
    writer.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_written_together_and_apart_per_key():
    writer = Writer()
    outcomes = asyncio.run(submit_behind_a_slow_one(writer, [KEY, OTHER, KEY]))
    assert [each.ledger_id for each in outcomes] == ["vid_0", "vid_1", "vid_2", "vid_3"]
    assert writer.batches == [("", ["vid_0"]), ("", ["vid_1", "vid_3"]), ("acme", ["vid_2"])]


def test_one_at_fault_is_refused_alone():
    writer = Writer(bad="vid_2", error=InvalidMessageError("no"))
    outcomes = asyncio.run(submit_behind_a_slow_one(writer, [KEY, KEY, KEY]))
    assert [isinstance(each, InvalidMessageError) for each in outcomes] == [False, False, True, False]


def test_a_broker_that_is_down_is_asked_once_for_all():
    writer = Writer(error=BrokerUnavailableError("down"))
    outcomes = asyncio.run(submit_behind_a_slow_one(writer, [KEY] * 5))
    assert all(isinstance(each, BrokerUnavailableError) for each in outcomes)
    assert len(writer.batches) == 2


def test_a_caller_that_went_away_stops_nobody():
    async def run() -> Submitted:
        writer = Writer()
        gather = Gather(writer)
        gone = asyncio.create_task(gather.submit(submission(0), KEY))
        while not writer.batches:
            await asyncio.sleep(0.001)
        stays = asyncio.create_task(gather.submit(submission(1), KEY))
        gone.cancel()
        writer.go.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(run()).ledger_id == "vid_1"
