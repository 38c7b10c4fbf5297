"""Broker start-up checks and the inbox, on real servers."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import redis
import structlog
from celery import Celery

from tests.chaos.world import raw_message
from tests.integration.servers import RedisServer, missing
from workers import broker, embedded, ingest
from workers import janitor as janitor_module
from workers.broker import RedisDispatcher, connect, dispatch_queue, require_no_eviction, wait_for
from workers.embedded import EmbeddedBroker
from workers.errors import (
    AlreadyRunningError,
    BrokerPolicyError,
    BrokerUnavailableError,
    DiskFullError,
    PortInUseError,
    SettingsError,
)
from workers.forget import forget_video
from workers.gauges import QueueGauges
from workers.inbox_watch import InboxWatch
from workers.ingest import GROUP, STREAM, Ingest
from workers.intake import Intake
from workers.janitor import Janitor
from workers.ledger import Ledger
from workers.metrics import Metrics
from workers.settings import Settings

pytestmark = pytest.mark.integration


class Reader:
    """One ingest on a real broker and an in-memory ledger."""

    def __init__(self, server: RedisServer, ledger: Ledger, owner: str, **options) -> None:
        self.client, self.metrics = connect(server.url), Metrics()
        self.dispatcher = RedisDispatcher(self.client, bound=10)
        intake = Intake(ledger, self.dispatcher, metrics=self.metrics, resend_seconds=30, backlog_limit=10_000)
        self.ingest = Ingest(self.client, ledger, intake, metrics=self.metrics, owner=owner, **options)


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def test_users_made_before_priorities_were_read_go_on_taking_in_everything_else(redis_server, ledger):
    """Broker users outlive an upgrade: what they may not read stays where it is, and holds up nothing."""
    admin = connect(redis_server.url)
    old = ["-@all", "+ping", "+hello", "+select", "~veriframe.*", "~urgent", "~default", "~bulk", "~video-events"]
    old += [f"+{name}" for name in ("set", "get", "del", "pexpire", "lrange", "lrem", "llen", "lindex", "lpush", "xlen", "xrange")]
    old += [f"+{name}" for name in ("xgroup|create", "xautoclaim", "xreadgroup", "xack", "xdel")]
    admin.execute_command("ACL", "SETUSER", "old", "on", ">secret", *old)
    admin.lpush("default", raw_message("plain"))
    admin.lpush("default\x06\x163", raw_message("with_a_priority"))
    event = {"specversion": "1.0", "type": "t", "source": "/u", "id": "1", "subject": "by_stream", "data": {}}
    admin.xadd(STREAM, {"event": json.dumps(event)})
    broker._say_priorities_unread.cache_clear()
    reader = Reader(redis_server, ledger, "r1")
    reader.ingest._client = connect(redis_server.url.replace("redis://", "redis://old:secret@"))

    with structlog.testing.capture_logs() as logged:
        unread = InboxWatch(reader.ingest._client).look()
        assert (unread.lengths["default"], unread.lengths["stream"]) == (1, 1)
        reader.ingest.step()
    assert {ledger.latest_job(video).state for video in ("plain", "by_stream")} == {"QUEUED"}
    assert admin.llen("default\x06\x163") == 1
    assert [line["event"] for line in logged] == ["priority_lists_unread"]
    admin.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_broker_that_may_forget_is_refused(tmp_path, policy):
    if RedisServer.binary() is None:
        missing("redis-server")
    server = RedisServer(tmp_path, **{"maxmemory-policy": policy}).start()
    client = connect(server.url)
    with pytest.raises(BrokerPolicyError, match="noeviction"):
        require_no_eviction(client)
    client.close()
    server.stop()


def test_a_good_broker_is_taken_and_an_absent_one_is_typed(redis_server):
    client = connect(redis_server.url)
    require_no_eviction(client)
    client.close()
    nobody = connect("redis://127.0.0.1:1/0")
    with pytest.raises(BrokerUnavailableError):
        wait_for(nobody, seconds=0.3)
    with pytest.raises(SettingsError):
        connect("amqp://host")


def test_the_inbox_is_drained_in_order_and_hints_stop_at_the_bound(redis_server, ledger):
    reader = Reader(redis_server, ledger, "r1")
    for number in range(30):
        reader.client.lpush("default", raw_message(f"v{number:02d}"))
    assert reader.ingest.step() == 30
    assert reader.client.llen("default") == 0
    assert ledger.count_waiting() == 30
    hints = [json.loads(raw)["body"] for raw in reversed(reader.client.lrange(dispatch_queue("default"), 0, -1))]
    hinted = [json.loads(base64.b64decode(hint))[1]["ledger_id"] for hint in hints]
    assert [ledger.job(job).video_id for job in hinted] == [f"v{number:02d}" for number in range(10)], "the oldest first"
    assert len(ledger.take_due(route="default", page=100, resend_seconds=60)) == 20  # only those without a hint are due now


@pytest.mark.parametrize("steps", [[0, 3, 6, 9], list(range(10))])
def test_a_priority_hides_no_message(redis_server, ledger, steps):
    """Celery keeps messages with a priority in lists of their own."""
    reader = Reader(redis_server, ledger, "r1")
    with Celery(broker=redis_server.url, set_as_current=False) as celery:
        celery.conf.broker_transport_options = {"priority_steps": steps}
        for priority in range(10):
            celery.send_task("veriframe.screen", kwargs={"video_id": f"p{priority}"}, queue="bulk", priority=priority)
    gauges = QueueGauges(ledger, client=reader.client, metrics=reader.metrics)
    gauges.set_all()
    assert reader.metrics.queue_length.labels(queue="bulk")._value.get() == 10
    assert forget_video(ledger, reader.client, "p5", actor="test").messages == 1
    assert reader.ingest.step() == 9
    assert reader.ingest.step() == 0
    assert [number for number in range(10) if ledger.latest_job(f"p{number}") is None] == [5]
    assert ledger.latest_job("p9").lane == "bulk"


def test_a_reader_that_dies_before_removing_loses_and_doubles_nothing(redis_server, ledger, monkeypatch):
    first, second = Reader(redis_server, ledger, "r1"), Reader(redis_server, ledger, "r2")
    for number in range(5):
        first.client.lpush("bulk", raw_message(f"v{number}"))

    def die(*_args, **_kwargs):
        raise BrokerUnavailableError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(redis.client.Pipeline, "lrem", die)  # rows are committed, nothing is removed
        with pytest.raises(BrokerUnavailableError):
            first.ingest.step()
    assert first.client.llen("bulk") == 5
    assert ledger.count_waiting() == 5
    assert second.ingest.step() == 0  # the dead reader's lock still holds
    first.client.delete("veriframe.ingest.lock")
    assert second.ingest.step() == 5
    assert second.client.llen("bulk") == 0
    assert ledger.count_waiting() == 5


def test_a_full_broker_can_still_be_drained(tmp_path, ledger):
    if RedisServer.binary() is None:
        missing("redis-server")
    server = RedisServer(tmp_path, maxmemory=str(6 * 1024 * 1024)).start()
    client = redis.Redis(port=server.port)
    reader = Reader(server, ledger, "r1")
    assert reader.ingest.step() == 0  # lock and group exist before the flood
    pushed = 0

    def flood():
        nonlocal pushed
        while pushed < 100_000:
            client.lpush("default", raw_message(f"v{pushed}"))
            pushed += 1

    with pytest.raises(redis.exceptions.OutOfMemoryError):
        flood()
    stop = threading.Event()
    thread = threading.Thread(target=reader.ingest.run, args=(stop,))
    thread.start()
    end = time.monotonic() + 30
    while client.llen("default") and time.monotonic() < end:
        time.sleep(0.1)
    stop.set()
    thread.join()
    assert ledger.count_waiting() == pushed
    server.stop()


def test_stream_entries_of_a_dead_reader_are_claimed(redis_server, ledger):
    client = connect(redis_server.url)
    event = {"specversion": "1.0", "type": "t", "source": "/u", "id": "1", "subject": "vid_1", "data": {}}
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    client.xadd(STREAM, {"event": json.dumps(event)})
    client.xreadgroup(GROUP, "dead", {STREAM: ">"})
    reader = Reader(redis_server, ledger, "alive", stream_idle_seconds=0.2)
    time.sleep(0.3)
    assert reader.ingest.step() == 1
    assert ledger.latest_job("vid_1") is not None
    assert client.xpending(STREAM, GROUP)["pending"] == 0
    client.close()


def test_what_the_ledger_has_leaves_the_stream(redis_server, ledger):
    reader = Reader(redis_server, ledger, "r1")
    event = {"specversion": "1.0", "type": "t", "source": "/u", "id": "1", "subject": "vid_1", "data": {}}
    for payload in (json.dumps(event), "junk"):
        reader.client.xadd(STREAM, {"event": payload})
    reader.client.xadd(STREAM, {"wrong_field": "x"})
    assert reader.ingest.step() == 3
    assert (reader.client.xlen(STREAM), reader.client.xpending(STREAM, GROUP)["pending"]) == (0, 0)


def test_one_odd_object_of_a_notification_takes_no_other_with_it(redis_server, ledger):
    reader = Reader(redis_server, ledger, "r1")
    keys = [*(f"good{number}.mp4" for number in range(100)), "folder/Icon%0D"]
    records = [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": key}}} for key in keys]
    reader.client.xadd(STREAM, {"event": json.dumps({"Records": records})})
    assert reader.ingest.step() == 1
    assert ledger.count_waiting() == 100
    assert [json.loads(letter["payload"]) for letter in ledger.list_dead_letters()] == [{"Records": records[-1:]}]


def test_an_event_in_another_field_is_kept_for_people(redis_server, ledger):
    reader = Reader(redis_server, ledger, "r1")
    for field in ("data", "payload"):
        reader.client.xadd(STREAM, {field: f'{{"video_id": "in_{field}"}}', "n\xff": "1"})
    assert reader.ingest.step() == 2
    letters = {letter["payload"]: letter["message"] for letter in ledger.list_dead_letters()}
    assert set(letters) == {f'{field}={{"video_id": "in_{field}"}}\nn\xff=1' for field in ("data", "payload")}
    assert all("'event'" in message for message in letters.values())
    assert "'payload'" in letters['payload={"video_id": "in_payload"}\nn\xff=1']


def test_an_entry_deleted_by_a_reader_that_died_before_it_acknowledged_is_done_with(redis_server, ledger):
    client = connect(redis_server.url)
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    entry = client.xadd(STREAM, {"event": "junk"})
    client.xreadgroup(GROUP, "dead", {STREAM: ">"})
    client.xdel(STREAM, entry)
    reader = Reader(redis_server, ledger, "alive", stream_idle_seconds=0.2)
    time.sleep(0.3)
    reader.ingest.step()
    assert client.xpending(STREAM, GROUP)["pending"] == 0
    assert ledger.list_dead_letters() == []
    client.close()


def test_one_malformed_event_stops_nothing_and_takes_no_good_one_with_it(redis_server, ledger, monkeypatch):
    reader = Reader(redis_server, ledger, "r1")
    event = {"specversion": "1.0", "type": "t", "source": "/u", "data": {}}
    for entry in (
        {**event, "id": "1", "subject": "vid_1"},
        {**event, "id": "\ud800", "subject": "x"},
        {**event, "id": "2", "subject": "vid_2"},
    ):
        reader.client.xadd(STREAM, {"event": json.dumps(entry)})
    assert reader.ingest.step() == 3
    assert ledger.count_waiting() == 2
    assert [letter["code"] for letter in ledger.list_dead_letters()] == ["INVALID_MESSAGE"]
    # what no parser thought of
    real = ingest.parse_event
    monkeypatch.setattr(ingest, "parse_event", lambda raw: real(raw) if b"vid_3" in raw else 1 / 0)
    for number in (3, 4):
        reader.client.xadd(STREAM, {"event": json.dumps({**event, "id": str(number), "subject": f"vid_{number}"})})
    assert reader.ingest.step() == 2
    assert ledger.latest_job("vid_3") is not None
    assert len(ledger.list_dead_letters()) == 2


def test_a_fault_stops_no_thread_and_is_logged(redis_server, ledger, monkeypatch):
    """Nobody starts these threads again, so one that ended would be missed only by those who wait for verdicts."""
    reader = Reader(redis_server, ledger, "r1")
    janitor = Janitor(ledger, reader.dispatcher, client=None, settings=Settings(), metrics=reader.metrics, owner="j")
    monkeypatch.setattr(ingest, "_FAULT_SECONDS", 0.01)
    monkeypatch.setattr(janitor_module, "_FAULT_SECONDS", 0.01)
    stop = threading.Event()

    def failing_twice(real):
        calls = itertools.count(1)
        return lambda *args, **options: real(*args, **options) if next(calls) > 2 else 1 / 0

    for part, name in ((reader.ingest, "step"), (janitor, "step"), (janitor._sender, "deliver_due")):
        monkeypatch.setattr(part, name, failing_twice(getattr(part, name)))
    threads = [threading.Thread(target=part.run, args=(stop,)) for part in (reader.ingest, janitor)]
    with structlog.testing.capture_logs() as logged:
        for thread in threads:
            thread.start()
        reader.client.lpush("default", raw_message("vid_1"))
        end = time.monotonic() + 10
        while ledger.count_waiting() == 0 and time.monotonic() < end:
            time.sleep(0.05)
        failed = ["ingest_failed", "janitor_failed", "outbox_failed"] * 2
        while sorted(told(logged)) != sorted(failed) and time.monotonic() < end:
            time.sleep(0.05)
        assert all(thread.is_alive() for thread in threads)
        stop.set()
        for thread in threads:
            thread.join()
    assert ledger.count_waiting() == 1
    assert sorted(told(logged)) == sorted(failed)


def told(logged):
    return [entry["event"] for entry in list(logged) if entry["log_level"] == "error" and entry["exc_info"]]


def test_the_embedded_broker_keeps_what_it_holds(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        client = connect(broker.url)
        require_no_eviction(client)
        client.lpush("default", "kept")
        client.close()
    with EmbeddedBroker(tmp_path) as broker:
        client = connect(broker.url)
        assert client.lrange("default", 0, -1) == [b"kept"]
        client.close()


def test_an_embedded_broker_that_is_killed_comes_back_with_what_it_held(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        client = connect(broker.url)
        client.config_set("appendfsync", "always")
        client.lpush("default", "kept")
        killed = broker.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        end = time.monotonic() + 15
        while broker.pid == killed and time.monotonic() < end:
            time.sleep(0.05)
        wait_for(client, seconds=15.0)
        assert client.lrange("default", 0, -1) == [b"kept"]
        client.close()


def test_a_torn_tail_of_the_append_only_file_is_survived(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        client = connect(broker.url)
        for number in range(100):
            client.lpush("default", f"message-{number}")
        client.close()
    [log] = (tmp_path / "broker" / "appendonlydir").glob("*.incr.aof")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 7)  # as a power cut in the middle of a write leaves it
    with EmbeddedBroker(tmp_path) as broker:
        client = connect(broker.url)
        assert client.llen("default") == 99
        client.close()


def test_a_second_system_on_the_same_folder_is_refused(tmp_path):
    with EmbeddedBroker(tmp_path), pytest.raises(AlreadyRunningError, match="VERIFRAME_STATE_DIR"):
        EmbeddedBroker(tmp_path).start()


def test_a_taken_port_and_a_full_disk_are_sentences(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        broker = EmbeddedBroker(tmp_path / "a", port=taken.getsockname()[1])
        with pytest.raises(PortInUseError, match="VERIFRAME_EMBEDDED_BROKER_PORT"):
            broker.start()
        broker.stop()
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(embedded.os, "statvfs", lambda _path: os.statvfs_result((*real[:3], 1, 1, *real[5:])))
    with pytest.raises(DiskFullError, match="free some space"):
        EmbeddedBroker(tmp_path / "b").start()


def test_the_embedded_broker_ends_with_its_parent(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from workers.embedded import EmbeddedBroker\n"
        f"broker = EmbeddedBroker(Path({str(tmp_path)!r})); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:  # noqa: PTH110
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110
