"""Tripwire: what we rely on inside Celery and kombu. A new version that changes any of it fails here, loudly."""

from __future__ import annotations

import json
import threading
import time

import pytest
import redis
from celery import Celery
from celery.app import trace
from celery.exceptions import Reject

from workers.app import make_app
from workers.broker import DISPATCH_LANES, dispatch_queue
from workers.consumer_watch import _lose_connection
from workers.lifecycle import renew_deliveries
from workers.messages import DISPATCH_TASK, dispatch_message, parse_celery_message
from workers.settings import Settings
from workers.tasks import watched_request

pytestmark = [
    pytest.mark.integration,
    # Celery announces a later default at every connection loss; ours is set on purpose
    pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::celery.platforms.SecurityWarning"),  # the test machine may be root
]


class RunningApp:
    """The real application with a task of the test, consuming in a thread of this process."""

    def __init__(self, url: str, body, *, concurrency: int = 1, lanes=DISPATCH_LANES, on_lost=lambda _channel: None, **settings) -> None:
        self.app = make_app(Settings(broker_url=url, **settings), broker_url=url)
        self.app.task(body, name=DISPATCH_TASK, bind=True, ignore_result=True, shared=False, Request=watched_request(on_lost))
        self.app.finalize()
        self.ready = threading.Event()
        self.worker = self.app.Worker(
            pool_cls="threads", quiet=True, concurrency=concurrency, queues=[dispatch_queue(lane) for lane in lanes], loglevel="WARNING",
            without_mingle=True, without_gossip=True, without_heartbeat=True, ready_callback=lambda _consumer: self.ready.set(),
        )  # fmt: skip
        self.thread = threading.Thread(target=self.worker.start, daemon=True)
        self.thread.start()
        assert self.ready.wait(15)

    def stop(self) -> None:
        from celery.worker import state

        state.should_stop = 0
        self.thread.join(timeout=20)
        state.should_stop = None
        trace.reset_worker_optimizations(self.app)
        assert not self.thread.is_alive()


def wait_for(condition, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def push(client: redis.Redis, name: str, lane: str = "default") -> None:
    client.lpush(dispatch_queue(lane), dispatch_message(name, queue=dispatch_queue(lane)))


def test_a_pushed_message_runs_with_its_tag_and_lane_and_is_acknowledged(redis_server):
    client, seen, held = redis.Redis(port=redis_server.port), [], threading.Event()

    def body(self, *, ledger_id, schema_version):
        seen.append((ledger_id, schema_version, self.request.properties["delivery_tag"], self.request.delivery_info["routing_key"]))
        held.wait(10)

    lost: list[object] = []
    running = RunningApp(redis_server.url, body, on_lost=lost.append)
    push(client, "job-1", "bulk")
    wait_for(lambda: seen)
    ledger_id, version, tag, routing_key = seen[0]
    assert (ledger_id, version, routing_key) == ("job-1", 1, dispatch_queue("bulk"))
    # renewal of the visibility timeout: the tag is the member, the score is the time
    assert client.type("unacked_index") == b"zset"
    before = client.zscore("unacked_index", tag)
    assert before is not None
    renew_deliveries(client, [tag, "unknown-tag"], now=before + 1000)
    assert client.zscore("unacked_index", tag) == pytest.approx(before + 1000)
    assert client.zscore("unacked_index", "unknown-tag") is None
    held.set()
    wait_for(lambda: client.zcard("unacked_index") == 0 and client.hlen("unacked") == 0)
    assert lost == []
    running.stop()
    client.close()


def test_a_rejected_message_goes_back_to_its_queue(redis_server):
    client, runs = redis.Redis(port=redis_server.port), []

    def body(self, *, ledger_id, schema_version):
        runs.append(self.request.delivery_info["routing_key"])
        if len(runs) == 1:
            raise Reject("not now", requeue=True)

    lost: list[object] = []
    running = RunningApp(redis_server.url, body, on_lost=lost.append)
    push(client, "job-1", "isolate")
    wait_for(lambda: len(runs) == 2)
    assert set(runs) == {dispatch_queue("isolate")}
    wait_for(lambda: client.hlen("unacked") == 0)
    assert lost == []
    running.stop()
    client.close()


def test_a_lost_acknowledgement_is_noticed_and_the_consumer_starts_afresh(redis_server):
    """Broker killed while every prefetch slot is busy: Celery alone logs "Couldn't ack" and never fetches again."""
    client, seen, held, lost = redis.Redis(port=redis_server.port), [], threading.Event(), []

    def body(self, *, ledger_id, schema_version):
        seen.append(ledger_id)
        held.wait(20)

    running = RunningApp(redis_server.url, body, concurrency=2, on_lost=lost.append)
    for number in range(2):
        push(client, f"first-{number}")
    wait_for(lambda: len(seen) == 2)
    redis_server.kill()
    held.set()
    wait_for(lambda: len(lost) == 2)
    first_channel = running.worker.consumer.task_consumer.channel
    assert lost == [first_channel, first_channel]  # how failures of an old connection are told from those of the present one
    redis_server.start()
    running.worker.consumer.hub.call_soon(_lose_connection)
    push(client, "second")
    wait_for(lambda: "second" in seen, seconds=30)
    assert running.worker.consumer.task_consumer.channel is not first_channel
    running.stop()
    client.close()


def test_lanes_are_served_in_declared_order(redis_server):
    client, order = redis.Redis(port=redis_server.port), []

    def body(self, *, ledger_id, schema_version):
        order.append(ledger_id)

    for lane in reversed(DISPATCH_LANES):
        for number in range(5):
            push(client, f"{lane}-{number}", lane)
    running = RunningApp(redis_server.url, body)
    wait_for(lambda: len(order) == 20)
    running.stop()
    assert [name.split("-")[0] for name in order] == [lane for lane in DISPATCH_LANES for _ in range(5)]
    client.close()


def test_an_unfinished_delivery_comes_back_after_the_visibility_timeout(redis_server):
    client, runs, held = redis.Redis(port=redis_server.port), [], threading.Event()

    def body(self, *, ledger_id, schema_version):
        runs.append(ledger_id)
        if len(runs) == 1:
            held.wait(20)

    running = RunningApp(redis_server.url, body, concurrency=2, visibility_timeout_seconds=1)
    push(client, "job-1")
    wait_for(lambda: len(runs) >= 2, seconds=20)  # restored although the first copy still runs: the ledger makes it a no-op
    held.set()
    running.stop()
    client.close()


def test_renewal_keeps_a_running_delivery_from_coming_back(redis_server):
    client, runs, held = redis.Redis(port=redis_server.port), [], threading.Event()
    tags: list[str] = []

    def body(self, *, ledger_id, schema_version):
        runs.append(ledger_id)
        tags.append(self.request.properties["delivery_tag"])
        held.wait(20)

    running = RunningApp(redis_server.url, body, concurrency=2, visibility_timeout_seconds=1)
    push(client, "job-1")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        renew_deliveries(client, tags, now=time.time())
        time.sleep(0.3)
    assert runs == ["job-1"]
    held.set()
    running.stop()
    client.close()


def test_what_send_task_puts_on_the_inbox_is_what_we_parse(redis_server):
    client = redis.Redis(port=redis_server.port)
    with Celery(broker=redis_server.url, set_as_current=False) as celery:
        celery.send_task(
            "veriframe.screen", kwargs={"video_id": "vid_1", "lane": "urgent"}, queue="default", headers={"traceparent": "00-a"}
        )
    [raw] = client.lrange("default", 0, -1)
    request, traceparent = parse_celery_message(raw, lane="default")
    assert (request.video_id, request.lane, traceparent) == ("vid_1", "urgent", "00-a")
    assert json.loads(raw)["content-type"] == "application/json"
    client.close()
