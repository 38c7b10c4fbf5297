"""The typed client against the real application, and against a service that is busy, away or not ours."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys

import httpx
import pytest

from api_caller import KEYS, READ_KEY, SUBMIT_KEY, make_caller
from verdict_builders import made_body, put_verdict
from workers.client import ApiError, ForgedWebhookError, Outcome, VeriframeClient, read_webhook
from workers.ledger import Ledger, OutboxEvent
from workers.signatures import secret_bytes, sign
from workers.webhooks import cloud_event

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


class InProcess(httpx.BaseTransport):
    """A synchronous client's way into the application."""

    def __init__(self, caller) -> None:
        self._transport = caller.transport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def send() -> httpx.Response:
            answer = await self._transport.handle_async_request(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            )
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(send())


class Scripted(httpx.BaseTransport):
    """Answers from a list; an exception in it is raised."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def client_of(ledger, *, api_key=None, **settings) -> VeriframeClient:
    return VeriframeClient("http://localhost", api_key=api_key, transport=InProcess(make_caller(ledger, **settings)))


def scripted(*answers) -> tuple[VeriframeClient, Scripted, list[float]]:
    transport, pauses = Scripted(*answers), []
    client = VeriframeClient("http://localhost", transport=transport, sleep=pauses.append, clock=lambda: sum(pauses))
    return client, transport, pauses


def test_a_video_is_submitted_once_and_read_back(ledger):
    with client_of(ledger) as client:
        accepted = client.submit("vid_1", source="file:///media/vid_1.mp4", lane="bulk", attributes={"title": "x"}, idempotency_key="k1")
        assert accepted.created
        assert client.submit("vid_1", source="file:///media/vid_1.mp4", lane="bulk", attributes={"title": "x"}, idempotency_key="k1") == (
            type(accepted)(video_id="vid_1", job_id=accepted.job_id, created=False)
        )
        waiting = client.outcome("vid_1")
        assert (waiting.state, waiting.verdict, waiting.p_fake, waiting.is_finished) == ("queued", None, None, False)
        with pytest.raises(ApiError) as caught:
            client.submit("vid 1")
        assert (caught.value.api_code, caught.value.status, caught.value.may_retry) == ("INVALID_VIDEO_ID", 422, False)


def test_verdicts_and_evidence_are_typed(ledger):
    for i, peak in enumerate((0.1, 0.7, 0.95)):
        put_verdict(ledger, f"v{i}", peaks=(peak,))
    with client_of(ledger) as client:
        assert [(each.video_id, each.verdict, each.p_fake) for each in client.verdicts(page=2)] == [
            ("v2", "manipulated", 0.95),
            ("v1", "suspicious", 0.7),
            ("v0", "authentic", 0.1),
        ]
        assert [each.video_id for each in client.verdicts(verdict="suspicious")] == ["v1"]
        assert client.wait("v2").sentence == "made for a test"
        assert client.evidence("v2")["schema"] == "evidence/1"


def test_keys_and_unknown_videos(ledger):
    with client_of(ledger, api_key=READ_KEY, api_keys=KEYS) as client:
        with pytest.raises(ApiError) as caught:
            client.outcome("nobody/../x")
        assert (caught.value.api_code, caught.value.status) in (("UNKNOWN_VIDEO", 404), ("NOT_FOUND", 404))
        with pytest.raises(ApiError, match="scope"):
            client.submit("vid_1")
    with client_of(ledger, api_key=SUBMIT_KEY, api_keys=KEYS) as client:
        assert client.submit("vid_1").created


def test_a_busy_service_is_asked_again_after_the_time_it_names():
    busy = httpx.Response(503, headers={"retry-after": "5"}, json={"code": "BACKLOG_FULL", "message": "later", "retryable": True})
    accepted = httpx.Response(202, json={"video_id": "v", "job_id": "j", "state": "queued", "created": True})
    client, transport, pauses = scripted(busy, httpx.ConnectError("down"), httpx.Response(502, text="<html>"), accepted)
    assert client.submit("v").created
    assert pauses == [5.0, 2.0, 4.0]
    assert len(transport.requests) == 4


def test_a_quota_that_is_back_tomorrow_is_told_at_once():
    used_up = httpx.Response(429, headers={"retry-after": "40000"}, json={"code": "QUOTA_EXHAUSTED", "message": "no", "retryable": True})
    client, transport, pauses = scripted(used_up, used_up)
    with pytest.raises(ApiError) as caught:
        client.submit("v")
    assert (caught.value.api_code, caught.value.may_retry, caught.value.retry_after_seconds) == ("QUOTA_EXHAUSTED", True, 40_000.0)
    assert (len(transport.requests), pauses) == (1, [])


def test_a_service_that_stays_away_is_an_error_with_its_last_words():
    client, _, pauses = scripted(*[httpx.ReadTimeout("slow")] * 4)
    with pytest.raises(ApiError) as caught:
        client.outcome("v")
    assert (caught.value.api_code, caught.value.may_retry, caught.value.status) == ("UNREACHABLE", True, None)
    assert len(pauses) == 3
    client, transport, _ = scripted(httpx.Response(500, text="oops"))
    with pytest.raises(ApiError, match="answered 500"):
        client.outcome("v")
    assert len(transport.requests) == 1, "a bug is not asked again"


def test_waiting_looks_less_and_less_often_and_ends():
    pending = {**made_body().to_json(), "state": "processing", "verdict": None, "score": None}
    client, _, pauses = scripted(*[httpx.Response(200, json=pending)] * 2, httpx.Response(200, json=made_body().to_json()))
    assert client.wait("vid_1").verdict == "manipulated"
    assert pauses == [0.5, 0.75]
    client, _, _ = scripted(*[httpx.Response(200, json=pending)] * 50)
    with pytest.raises(ApiError) as caught:
        client.wait("vid_1", seconds=3.0)
    assert caught.value.api_code == "TIMEOUT"


def test_waiting_counts_the_time_that_looks_take():
    now, looks = [0.0], []

    def slow(_request: httpx.Request) -> httpx.Response:
        looks.append(now[0])
        now[0] += 9.0
        return httpx.Response(200, json={**made_body().to_json(), "state": "processing"})

    def sleep(seconds: float) -> None:
        now[0] += seconds

    client = VeriframeClient("http://x", transport=httpx.MockTransport(slow), sleep=sleep, clock=lambda: now[0])
    with pytest.raises(ApiError, match="after 10 s"):
        client.wait("vid_1", seconds=10.0)
    assert looks == [0.0, 9.5]
    client, transport, _ = scripted(*[httpx.ReadTimeout("slow")] * 4)
    with pytest.raises(ApiError) as caught:
        client.wait("vid_1", seconds=2.0)
    assert (caught.value.api_code, len(transport.requests)) == ("UNREACHABLE", 2), "the time is over before the next try"


@pytest.mark.parametrize("answer", [{"text": "<html>sign in</html>"}, {"json": {}}, {"json": [1]}, {"json": {"verdicts": 3}}])
@pytest.mark.parametrize("ask", [lambda c: c.submit("v"), lambda c: c.outcome("v"), lambda c: list(c.verdicts())])
def test_a_good_answer_of_another_service_is_named(answer, ask):
    client, _, _ = scripted(httpx.Response(200, **answer))
    with pytest.raises(ApiError) as caught:
        ask(client)
    assert caught.value.api_code == "UNKNOWN_SCHEMA"


@pytest.mark.parametrize(
    "body", [{}, {"schema": "verdict/2"}, {"schema": "verdict/1"}, {"schema": "verdict/1", "video_id": "v", "state": "failed", "error": 3}]
)
def test_what_is_no_verdict_is_named(body):
    with pytest.raises(ApiError) as caught:
        Outcome.from_body(body)
    assert caught.value.api_code == "UNKNOWN_SCHEMA"


def webhook() -> tuple[bytes, dict[str, str]]:
    event = OutboxEvent(
        event_id="e1",
        ledger_id="j",
        kind="verdict.completed",
        url="https://example.org",
        payload=json.dumps(made_body().to_json()),
        tries=1,
        created_at=1000.0,
    )
    body = cloud_event(event)
    signature = sign(body, event_id="e1", timestamp=1000, key=secret_bytes(SECRET))
    return body, {"Webhook-Id": "e1", "Webhook-Timestamp": "1000", "Webhook-Signature": signature}


def test_a_webhook_is_read_only_when_its_signature_holds():
    body, headers = webhook()
    assert read_webhook(body, headers=headers, secret=SECRET, now=1100).verdict == "manipulated"
    assert read_webhook(body, headers=headers, secret=OTHER, previous_secret=SECRET, now=1100).video_id == "vid_1"
    for changed in (
        {"body": body + b" "},
        {"headers": {}},
        {"headers": {**headers, "Webhook-Signature": "v1,é"}},
        {"headers": {**headers, "Webhook-Id": "\udcff"}},
        {"headers": {**headers, "Webhook-Timestamp": "9" * 400}},
        {"headers": {**headers, "Webhook-Timestamp": "-1000"}},
        {"headers": {**headers, "Webhook-Timestamp": "١٠٠٠"}},
        {"secret": OTHER},
        {"now": 2000},
    ):
        given = {"body": body, "headers": headers, "secret": SECRET, "now": 1100, **changed}
        with pytest.raises(ForgedWebhookError):
            read_webhook(given.pop("body"), **given)


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"{}", b'{"data": 3}', b'{"data": {"schema": "verdict/2"}}', b"\xff"])
def test_a_signed_webhook_of_another_schema_is_named(body):
    headers = {
        "Webhook-Id": "e",
        "Webhook-Timestamp": "1000",
        "Webhook-Signature": sign(body, event_id="e", timestamp=1000, key=secret_bytes(SECRET)),
    }
    with pytest.raises(ApiError) as caught:
        read_webhook(body, headers=headers, secret=SECRET, now=1000)
    assert caught.value.api_code == "UNKNOWN_SCHEMA"


def test_the_client_brings_no_model_stack():
    code = "import sys, workers.client; print(sorted({'torch','celery','sqlalchemy','redis','fastapi','cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
