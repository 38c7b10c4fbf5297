"""A worker that is alive but fetches nothing is noticed; a healthy or idle one is left alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import redis

from workers import consumer_watch
from workers.consumer_watch import HOPELESS_SECONDS, SILENT_SECONDS, ConsumerWatch
from workers.in_flight import InFlight


class Hub:
    def __init__(self) -> None:
        self.called: list = []

    def call_soon(self, callback) -> None:
        self.called.append(callback)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def scene(monkeypatch):
    clock, hub, hopeless, lengths = Clock(), Hub(), [], {"value": 5}
    monkeypatch.setattr(consumer_watch, "time", clock)
    channel = object()
    screening = SimpleNamespace(num_received=0, in_flight=InFlight())
    client = SimpleNamespace(llen=lambda _queue: lengths["value"])
    watch = ConsumerWatch(screening, client=client, lanes=["default"], on_hopeless=lambda: hopeless.append(1))
    watch.watch(SimpleNamespace(consumer=SimpleNamespace(hub=hub, task_consumer=SimpleNamespace(channel=channel))))
    return SimpleNamespace(
        clock=clock, hub=hub, hopeless=hopeless, lengths=lengths, screening=screening, watch=watch, channel=channel, client=client
    )


def look_for(scene, seconds: float, *, each: float = 2.0, busy: bool = False) -> None:
    end = scene.clock.now + seconds
    while scene.clock.now < end:
        if busy:
            scene.screening.num_received += 1
        scene.watch.look()
        scene.clock.now += each


def test_idle_beside_a_filled_queue_reconnects_and_then_gives_up(scene):
    look_for(scene, SILENT_SECONDS)
    assert scene.hub.called == []
    look_for(scene, 6)
    assert scene.hub.called
    with pytest.raises(ConnectionResetError):
        scene.hub.called[0]()
    assert scene.hopeless == []
    look_for(scene, HOPELESS_SECONDS)
    assert scene.hopeless


def test_a_busy_worker_and_an_empty_queue_are_left_alone(scene):
    look_for(scene, 200, busy=True)
    scene.lengths["value"] = 0
    look_for(scene, 200)
    assert (scene.hub.called, scene.hopeless) == ([], [])


def test_a_worker_that_explains_is_busy(scene):
    with scene.screening.in_flight.explaining():
        look_for(scene, 200)
    assert (scene.hub.called, scene.hopeless) == ([], [])
    look_for(scene, SILENT_SECONDS + 6)
    assert scene.hub.called


def test_a_broker_that_is_away_is_not_the_consumers_fault(scene):
    def away(_queue):
        raise redis.ConnectionError("away")

    scene.client.llen = away
    look_for(scene, 200)
    assert (scene.hub.called, scene.hopeless) == ([], [])


def test_only_a_failure_on_the_present_connection_reconnects_and_only_once(scene):
    scene.watch.on_lost_acknowledgement(object())
    assert scene.hub.called == []
    for _ in range(4):
        scene.watch.on_lost_acknowledgement(scene.channel)
    assert len(scene.hub.called) == 1
