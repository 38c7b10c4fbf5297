"""Signed webhooks: the specification's vector, replay, rotation, and the same event ID on every try."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workers.broker import MemoryDispatcher
from workers.errors import SettingsError
from workers.janitor import Janitor
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.settings import Settings
from workers.signatures import secret_bytes, sign, verify
from workers.webhooks import WebhookSender

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def test_the_published_vector_of_standard_webhooks():
    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(b'{"test": 2432232314}', event_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, key=key)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_replay_and_forgery_are_noticed():
    key, body = secret_bytes(SECRET), b"{}"
    headers = {"webhook-id": "e", "webhook-timestamp": "1000", "webhook-signature": sign(body, event_id="e", timestamp=1000, key=key)}
    assert verify(body, headers=headers, keys=[key], now=1100)
    assert verify(body, headers=headers, keys=[b"o" * 32, key], now=1100)
    assert not verify(body, headers=headers, keys=[key], now=1301)
    assert not verify(body, headers=headers, keys=[key], now=699)
    assert not verify(b"{ }", headers=headers, keys=[key], now=1100)
    assert not verify(body, headers={**headers, "webhook-id": "f"}, keys=[key], now=1100)
    assert not verify(body, headers={}, keys=[key], now=1100)


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_c2hvcnQ="])
def test_a_weak_secret_is_refused(secret):
    with pytest.raises(SettingsError):
        secret_bytes(secret)


class Receiver:
    def __init__(self, statuses: list[int]) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests.append(
                    ({k.lower(): v for k, v in self.headers.items()}, self.rfile.read(int(self.headers["content-length"])))
                )
                self.send_response(statuses[min(len(outer.requests), len(statuses)) - 1])
                self.end_headers()

            def log_message(self, *_arguments) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver(request):
    running = Receiver(request.param)
    yield running
    running.server.shutdown()
    running.server.server_close()


def ledger_with_event(url: str) -> Ledger:
    ledger = Ledger.in_memory()
    add_event(ledger, "vid_1", url)
    return ledger


def add_event(ledger: Ledger, name: str, url: str) -> None:
    job = ledger.submit(Submission(request=EnqueueRequest(video_id=name), door="cli")).ledger_id
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    assert isinstance(claim, Claim)
    record = VerdictRecord(content_sha256=name * 10, bundle_set="b", policy="p", verdict="authentic", p_fake=0.1, body={"video_id": name})
    ledger.commit_verdict(claim, verdict=record, urls=[url])


def sender(ledger: Ledger, port: int, **changes) -> tuple[WebhookSender, Metrics]:
    fields = {
        "webhook_secret": SECRET,
        "webhook_private_hosts": (f"127.0.0.1:{port}",),
        "webhook_tries": 3,
        "webhook_backoff_seconds": 0.02,
        "webhook_seconds": 2.0,
        **changes,
    }
    metrics = Metrics()
    return WebhookSender(ledger, settings=Settings(**fields), metrics=metrics), metrics


def deliver_all(sending: WebhookSender, *, seconds: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sending.deliver_due()
        time.sleep(0.02)
    sending.close()


@pytest.mark.parametrize("receiver", [[500, 503, 204]], indirect=True)
def test_every_try_carries_the_same_event_and_a_valid_signature(receiver):
    ledger = ledger_with_event(f"http://127.0.0.1:{receiver.port}/hook")
    deliver_all(sender(ledger, receiver.port)[0])
    assert len(receiver.requests) == 3
    assert len({headers["webhook-id"] for headers, _body in receiver.requests}) == 1
    assert all(verify(body, headers=headers, keys=[secret_bytes(SECRET)]) for headers, body in receiver.requests)
    event = json.loads(receiver.requests[-1][1])
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "io.veriframe.verdict.completed", "vid_1")
    assert event["data"] == {"video_id": "vid_1"}
    assert ledger.list_dead_letters() == []
    ledger.close()


@pytest.mark.parametrize(
    ("receiver", "tries", "code"), [([500], 3, "WEBHOOK_UNDELIVERED"), ([410], 1, "WEBHOOK_GONE")], indirect=["receiver"]
)
def test_what_cannot_be_delivered_becomes_a_dead_letter(receiver, tries, code):
    ledger = ledger_with_event(f"http://127.0.0.1:{receiver.port}/hook")
    deliver_all(sender(ledger, receiver.port)[0])
    assert len(receiver.requests) == tries
    assert [letter["code"] for letter in ledger.list_dead_letters()] == [code]
    ledger.close()


def test_an_event_that_was_erased_on_its_way_counts_as_no_dead_letter():
    ledger = ledger_with_event("http://127.0.0.1:1/hook")
    sending, metrics = sender(ledger, 1, webhook_tries=1)
    [event] = ledger.due_events(page=10, hold_seconds=60)
    ledger.erase_video("vid_1", actor="test")
    assert sending.deliver(event) is False
    assert metrics.registry.get_sample_value("veriframe_dead_letters_total", {"code": "WEBHOOK_UNDELIVERED"}) is None
    sending.close()
    ledger.close()


@pytest.mark.parametrize("receiver", [[204]], indirect=True)
def test_an_inside_address_is_never_called(receiver):
    ledger = ledger_with_event(f"http://127.0.0.1:{receiver.port}/hook")
    deliver_all(sender(ledger, receiver.port, webhook_private_hosts=())[0], seconds=0.2)
    assert receiver.requests == []
    assert [letter["code"] for letter in ledger.list_dead_letters()] == ["WEBHOOK_NOT_ALLOWED"]
    ledger.close()


@pytest.mark.parametrize("receiver", [[204]], indirect=True)
def test_an_address_that_cannot_be_read_is_a_dead_letter_and_nobody_elses_trouble(receiver):
    ledger = ledger_with_event("http://xn--a/hook")
    add_event(ledger, "good", f"http://127.0.0.1:{receiver.port}/hook")
    deliver_all(sender(ledger, receiver.port)[0])
    assert len(receiver.requests) == 1
    assert [letter["code"] for letter in ledger.list_dead_letters()] == ["WEBHOOK_NOT_ALLOWED"]
    ledger.close()


@pytest.mark.parametrize("receiver", [[204]], indirect=True)
def test_a_slow_receiver_holds_up_its_own_events_only(receiver):
    """Two requests meet at the receiver: they can only both be answered when they were under way together."""
    ledger = ledger_with_event(f"http://127.0.0.1:{receiver.port}/hook")
    for name in ("vid_2", "vid_3"):
        add_event(ledger, name, f"http://127.0.0.1:{receiver.port}/hook")
    meeting = threading.Barrier(3)
    running, metrics = sender(ledger, receiver.port, webhook_parallel=4)
    real = running._post

    def meet(event, **options):
        meeting.wait(timeout=60)
        return real(event, **options)

    running._post = meet
    assert running.deliver_due() == 3
    running.close()
    assert metrics.registry.get_sample_value("veriframe_webhook_deliveries_total", {"outcome": "delivered"}) == 3
    assert ledger.due_events(page=9, hold_seconds=1) == []


class Dripping:
    """Sends `first`, then `drop` every 50 ms to whoever connects, for ever."""

    def __init__(self, first: bytes, drop: bytes) -> None:
        self.first, self.drop = first, drop
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._drip, args=(self.socket.accept()[0],), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(self.first)
            while True:
                time.sleep(0.05)
                connection.sendall(self.drop)


@pytest.fixture
def dripping(request):
    server = Dripping(*request.param)
    yield server
    server.socket.close()


@pytest.mark.parametrize("receiver", [[204]], indirect=True)
@pytest.mark.parametrize("dripping", [(b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n")], indirect=True)
def test_a_receiver_that_drips_its_headers_is_cut_and_stops_nobody_else(receiver, dripping):
    ledger = ledger_with_event(f"http://127.0.0.1:{dripping.port}/hook")
    running, metrics = sender(
        ledger,
        receiver.port,
        webhook_private_hosts=(f"127.0.0.1:{receiver.port}", f"127.0.0.1:{dripping.port}"),
        webhook_seconds=3.0,
        webhook_tries=1,
        webhook_parallel=2,
    )
    began = time.monotonic()
    running.deliver_due()
    for number in range(3):
        add_event(ledger, f"vid_{number + 2}", f"http://127.0.0.1:{receiver.port}/hook")
        running.deliver_due()
    assert ledger.list_dead_letters() == [], "the slow try is still under way"
    assert len(receiver.requests) == 3
    running.close()
    assert time.monotonic() - began < 20
    [letter] = ledger.list_dead_letters()
    assert letter["code"] == "WEBHOOK_UNDELIVERED"
    assert "ReadTimeout" in letter["message"]
    assert metrics.registry.get_sample_value("veriframe_webhook_deliveries_total", {"outcome": "delivered"}) == 3
    ledger.close()


@pytest.mark.parametrize("receiver", [[204]], indirect=True)
@pytest.mark.parametrize("dripping", [(b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n")], indirect=True)
def test_a_receiver_with_many_slow_events_leaves_places_to_others(receiver, dripping):
    ledger = Ledger.in_memory()
    for number in range(12):
        add_event(ledger, f"slow_{number}", f"http://127.0.0.1:{dripping.port}/hook")
    for number in range(2):
        add_event(ledger, f"good_{number}", f"http://127.0.0.1:{receiver.port}/hook")
    hosts = (f"127.0.0.1:{receiver.port}", f"127.0.0.1:{dripping.port}")
    running, _ = sender(ledger, receiver.port, webhook_private_hosts=hosts, webhook_seconds=4.0, webhook_tries=1, webhook_parallel=4)
    began = time.monotonic()
    while len(receiver.requests) < 2 and time.monotonic() < began + 3:
        running.deliver_due()
    assert len(receiver.requests) == 2, "two events waited for a receiver that never ends"
    assert len(running._running) == 3
    running.close()
    ledger.close()


@pytest.mark.parametrize("dripping", [(b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n")], indirect=True)
def test_a_janitor_that_leads_no_more_settles_what_it_began(dripping, tmp_path):
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")  # two threads: in memory they would share one connection
    add_event(ledger, "vid_1", f"http://127.0.0.1:{dripping.port}/hook")
    settings = Settings(webhook_private_hosts=(f"127.0.0.1:{dripping.port}",), webhook_seconds=1.0, webhook_tries=1)
    janitor, stop = Janitor(ledger, MemoryDispatcher(), client=None, settings=settings, metrics=Metrics(), owner="j"), threading.Event()
    janitor._leads.set()
    outbox = threading.Thread(target=janitor._run_outbox, args=(stop,))
    outbox.start()
    end = time.monotonic() + 30
    while not janitor._sender._running and time.monotonic() < end:
        time.sleep(0.01)
    janitor._leads.clear()
    while not ledger.list_dead_letters() and time.monotonic() < end:
        time.sleep(0.01)
    stop.set()
    outbox.join()
    janitor._sender.close()
    assert [letter["code"] for letter in ledger.list_dead_letters()] == ["WEBHOOK_UNDELIVERED"]
    ledger.close()


@pytest.mark.parametrize("dripping", [(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)], indirect=True)
def test_an_endless_answer_counts_by_its_status(dripping):
    ledger = ledger_with_event(f"http://127.0.0.1:{dripping.port}/hook")
    running, metrics = sender(ledger, dripping.port, webhook_seconds=30.0)
    running.deliver_due()
    running.close()
    assert metrics.registry.get_sample_value("veriframe_webhook_deliveries_total", {"outcome": "delivered"}) == 1
    ledger.close()
