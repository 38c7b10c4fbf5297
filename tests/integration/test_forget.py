"""Forgetting reaches the broker: what still waits in the inbox and on the event stream goes too, and nothing else does."""

from __future__ import annotations

import json
import time

import pytest

from workers.allowance import Limiter
from workers.broker import MemoryDispatcher, connect
from workers.errors import BrokerUnavailableError, RateLimitedError
from workers.forget import forget_video
from workers.ingest import GROUP, STREAM, STREAM_FIELD, Ingest, asked_by
from workers.intake import Intake
from workers.ledger import Ledger
from workers.messages import enqueue_message, parse_enqueue
from workers.messages.events import video_id_of_object
from workers.metrics import Metrics
from workers.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def everything(client) -> bytes:
    """Every value in the broker."""
    lists = [item for lane in ("urgent", "default", "bulk") for item in client.lrange(lane, 0, -1)]
    return b"\n".join([*lists, *(value for _id, fields in client.xrange(STREAM) for value in fields.values())])


def test_messages_and_events_of_the_video_are_gone(redis_server, ledger):
    client = connect(redis_server.url)
    for number in range(600):  # more than one page
        client.lpush("default", enqueue_message(parse_enqueue({"video_id": f"other_{number}"})))
    for lane in ("urgent", "default", "bulk"):
        client.lpush(lane, enqueue_message(parse_enqueue({"video_id": "doomed"})))
    client.lpush("bulk", enqueue_message(parse_enqueue({"video_id": "doomed_2"})))
    client.lpush("bulk", b'{"broken": "doomed"}')
    client.lpush("bulk", enqueue_message(parse_enqueue({"video_id": "doomed"})).replace("veriframe.screen", "another.task"))
    for number, subject in enumerate(("doomed", "doomed_2", "doomed")):
        event = {"specversion": "1.0", "type": "t", "source": "/u", "id": str(number), "subject": subject, "data": {}}
        client.xadd(STREAM, {STREAM_FIELD: json.dumps(event)})
    forgotten = forget_video(ledger, client, "doomed", actor="test")
    assert forgotten.messages == 7
    assert b'"doomed"' not in everything(client)
    assert (client.llen("default"), client.llen("bulk"), client.xlen(STREAM)) == (600, 1, 1)
    assert forget_video(ledger, client, "doomed", actor="test").is_empty
    client.close()


def test_an_event_in_a_field_that_is_not_read_is_forgotten_too(redis_server, ledger):
    client = connect(redis_server.url)
    client.xadd(STREAM, {"data": '{"video_id": "doomed"}'})
    client.xadd(STREAM, {"data": '{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "a/clip.mp4"}}}]}'})
    client.xadd(STREAM, {"data": '{"video_id": "doomed_2"}'})
    assert forget_video(ledger, client, "doomed", actor="test").messages == 1
    assert forget_video(ledger, client, video_id_of_object("b", "a/clip.mp4"), actor="test").messages == 1
    assert client.xlen(STREAM) == 1
    client.close()


def test_the_other_objects_of_a_notification_are_taken_in_as_the_ingest_would(redis_server, ledger):
    client = connect(redis_server.url)
    keys = ("alice/clip.mp4", "bob/clip.mp4", "carol/clip.mp4", "Icon%0D")
    records = [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": key, "eTag": "1"}}} for key in keys]
    notification = json.dumps({"Records": records}).encode()
    client.xadd(STREAM, {STREAM_FIELD: notification})
    alice, bob, carol = (video_id_of_object("b", key) for key in keys[:3])
    assert forget_video(ledger, client, bob, actor="test").messages == 1
    assert client.xlen(STREAM) == 0
    assert ["Icon%0D" in letter["payload"] for letter in ledger.list_dead_letters()] == [True]
    assert [ledger.latest_job(name) is not None for name in (alice, bob, carol)] == [True, False, True]
    again = ledger.submit_many([each for each in asked_by(notification).submissions if each.request.video_id != bob])
    assert [outcome.created for outcome in again] == [False, False], "the event that is delivered again carries the same keys"
    assert len(ledger.take_due(route="default", page=10, resend_seconds=60)) == 2, "the janitor dispatches them"
    client.close()


@pytest.fixture
def reader(redis_server, ledger):
    """An ingest that runs `meanwhile` after it has read its messages and before it takes them in."""
    client, metrics = connect(redis_server.url), Metrics()
    intake = Intake(ledger, MemoryDispatcher(), metrics=metrics, resend_seconds=30, backlog_limit=1000)
    made = Ingest(client, ledger, intake, metrics=metrics, owner="r", stream_idle_seconds=0.1)
    taken_in, bury, made.meanwhile, made.client = intake.accept, ledger.bury_message, lambda: None, client

    def accept(submissions):
        made.meanwhile()
        return taken_in(submissions)

    def bury_message(raw, **facts):
        if "read_at" in facts:  # by the ingest, not while an entry is forgotten
            made.meanwhile()
        return bury(raw, **facts)

    intake.accept, ledger.bury_message = accept, bury_message
    yield made
    client.close()


EVENT = json.dumps({"specversion": "1.0", "type": "t", "source": "/u", "id": "1", "subject": "doomed", "data": {}})
DOORS = {
    "queue": lambda client: client.lpush("default", enqueue_message(parse_enqueue({"video_id": "doomed"}))),
    "stream": lambda client: client.xadd(STREAM, {STREAM_FIELD: EVENT}),
}

REFUSED = {
    "queue": lambda client: client.lpush("default", b'{"broken": "doomed"}'),
    "stream": lambda client: client.xadd(STREAM, {STREAM_FIELD: b'{"broken": "doomed"}'}),
    "stream, another field": lambda client: client.xadd(STREAM, {"data": b'{"video_id": "doomed"}'}),
}


@pytest.mark.parametrize("door", REFUSED)
def test_a_video_does_not_come_back_as_the_dead_letter_of_a_message_that_was_being_read(reader, ledger, door):
    reader.step()
    REFUSED[door](reader.client)
    reader.meanwhile = lambda: forget_video(ledger, reader.client, "doomed", actor="test")
    assert reader.step() == 0
    assert ledger.list_dead_letters() == []


@pytest.mark.parametrize("door", REFUSED)
def test_a_refused_message_that_is_sent_again_after_its_video_was_forgotten_is_buried(reader, ledger, door):
    reader.step()

    def forget_and_send():
        reader.meanwhile = lambda: None
        forget_video(ledger, reader.client, "doomed", actor="test")
        REFUSED[door](reader.client)

    REFUSED[door](reader.client)
    reader.meanwhile = forget_and_send
    end = time.monotonic() + 10
    while everything(reader.client) and time.monotonic() < end:
        reader.step()
        time.sleep(0.05)
    assert everything(reader.client) == b""
    assert len(ledger.list_dead_letters()) == 1


@pytest.mark.parametrize("door", DOORS)
def test_a_video_does_not_come_back_by_a_message_that_was_being_read(reader, ledger, door):
    reader.step()
    DOORS[door](reader.client)
    reader.meanwhile = lambda: forget_video(ledger, reader.client, "doomed", actor="test")
    assert reader.step() == 0
    assert ledger.latest_job("doomed") is None
    assert [entry.detail for entry in ledger.audit_entries(target="doomed")] == [{"messages": 1}]


@pytest.mark.parametrize("door", DOORS)
def test_a_video_that_is_sent_again_after_it_was_forgotten_is_never_lost(reader, ledger, door):
    reader.step()

    def forget_and_send():
        forget_video(ledger, reader.client, "doomed", actor="test")
        DOORS[door](reader.client)
        reader.meanwhile = lambda: None

    DOORS[door](reader.client)
    reader.meanwhile = forget_and_send
    end = time.monotonic() + 10
    while ledger.latest_job("doomed") is None and time.monotonic() < end:
        reader.step()
        time.sleep(0.05)
    assert ledger.latest_job("doomed") is not None
    while (left := everything(reader.client)) and time.monotonic() < end:
        reader.step()
        time.sleep(0.05)
    assert left == b""
    assert reader.client.xpending(STREAM, GROUP)["pending"] == 0


def test_a_broker_that_is_away_leaves_the_ledger_as_it_was(ledger):
    client = connect("redis://127.0.0.1:1/0", reply_seconds=0.2)
    with pytest.raises(BrokerUnavailableError):
        forget_video(ledger, client, "doomed", actor="test")
    assert ledger.audit_entries() == []
    client.close()


def test_processes_count_one_minute_together(redis_server, ledger):
    client = connect(redis_server.url)
    doors = [Limiter(client, ledger, settings=Settings(requests_per_minute=10), clock=lambda: 60_000.0) for _ in range(3)]
    served = 0
    for number in range(30):
        try:
            doors[number % 3].take("acme")
            served += 1
        except RateLimitedError:
            continue
    assert served == 10
    assert 0 < client.ttl("veriframe.rate.acme.1000") <= 150
    client.close()
