"""How old what nobody read yet is: by its producer's word, by the broker's number, or since it was first seen."""

from __future__ import annotations

import json
import time

import pytest
import redis

from workers import inbox_watch
from workers.gauges import QueueGauges
from workers.inbox_watch import InboxWatch
from workers.ledger import Ledger
from workers.messages import EnqueueRequest, enqueue_message
from workers.metrics import Metrics


class FakePipeline:
    """Answers at the end what was asked for on the way."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._lengths: list[int] = []

    def llen(self, name):
        self._lengths.append(self._broker.llen(name))

    def execute(self, **_options):
        return self._lengths


class FakeBroker:
    """The few commands that are asked for."""

    def __init__(self, *, may_look: bool = True, **queues: list[bytes]) -> None:
        self.queues = queues
        self.may_look = may_look

    def llen(self, name):
        return len(self.queues.get(name, []))

    def pipeline(self, **_options):
        return FakePipeline(self)

    def lindex(self, name, _index):
        if not self.may_look:
            raise redis.exceptions.NoPermissionError("this user has no permissions to run the 'lindex' command")
        return self.queues[name][-1] if self.queues.get(name) else None

    def xlen(self, _name):
        return self.llen("stream")

    def xrange(self, _name, *, count):
        return [(entry, {}) for entry in self.queues.get("stream", [])[:count]]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that `time.monotonic` is ahead."""
    ahead, real = [0.0], time.monotonic
    monkeypatch.setattr(inbox_watch.time, "monotonic", lambda: real() + ahead[0])
    return ahead


def message(enqueued_at: object) -> bytes:
    made = json.loads(enqueue_message(EnqueueRequest(video_id="vid", lane="urgent")))
    made["headers"]["enqueued_at"] = enqueued_at
    return json.dumps(made).encode()


def test_messages_and_events_that_nobody_reads_are_seen_by_length_and_age():
    hours_ago = time.time() - 6 * 3600
    ledger, metrics = Ledger.in_memory(), Metrics()
    client = FakeBroker(urgent=[message(time.time()), message(hours_ago)], stream=[f"{round(hours_ago * 1000)}-0".encode()])
    QueueGauges(ledger, client=client, metrics=metrics).set_all()
    ledger.close()

    def value(name, queue):
        return metrics.registry.get_sample_value(name, {"queue": queue})

    assert [value("veriframe_queue_length", queue) for queue in ("urgent", "stream", "bulk")] == [2, 1, 0]
    for queue in ("urgent", "stream"):
        assert value("veriframe_queue_oldest_message_age_seconds", queue) == pytest.approx(6 * 3600, abs=5)
    assert value("veriframe_queue_oldest_message_age_seconds", "default") == 0


@pytest.mark.parametrize(
    "head",
    [
        b"raw text",
        b"[]",
        b'{"headers": {}}',
        b"1" * 5000,
        message("now"),
        message(-1e400),
        message(10**400),
        message(time.time() + 900),
        message(0),
    ],
)
def test_a_message_that_tells_no_time_is_as_old_as_it_is_known(clock, head):
    client = FakeBroker(urgent=[head])
    watch = InboxWatch(client)
    assert watch.look().ages["urgent"] < 5
    clock[0] = 400.0
    assert watch.look().ages["urgent"] == pytest.approx(400, abs=5)
    client.queues["urgent"] = [b"another"]
    assert watch.look().ages["urgent"] < 5


def test_a_number_of_ones_own_choice_on_the_stream_is_no_time(clock):
    watch = InboxWatch(FakeBroker(stream=[b"1-1"]))
    assert watch.look().ages["stream"] < 5
    clock[0] = 400.0
    assert watch.look().ages["stream"] == pytest.approx(400, abs=5)


def test_a_broker_whose_users_are_older_still_tells_lengths():
    unread = InboxWatch(FakeBroker(may_look=False, urgent=[b"x"])).look()
    assert unread.lengths["urgent"] == 1
    assert unread.ages == {}
