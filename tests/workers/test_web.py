"""The API's promises: 202 with Location, idempotency, typed errors, 503 with Retry-After, keys and scopes, bounded bodies."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field

import httpx
import pytest
from jsonschema import validate

from workers.broker import MemoryDispatcher
from workers.errors import BrokerFullError, LedgerFullError, SettingsError
from workers.ingest import asked_by
from workers.intake import Intake
from workers.ledger import Claim, Ledger, VerdictRecord
from workers.messages import JobFacts, pending_body
from workers.messages.events import video_id_of_object
from workers.metrics import Metrics
from workers.services import Control
from workers.settings import Settings
from workers.web.app import create_app

SUBMIT_KEY, READ_KEY, ADMIN_KEY = "submit-secret", "read-secret", "admin-secret"
KEYS = tuple(
    f"{scope}:{hashlib.sha256(key.encode()).hexdigest()}"
    for scope, key in (("submit", SUBMIT_KEY), ("read", READ_KEY), ("admin", ADMIN_KEY))
)
EVENT = {"specversion": "1.0", "type": "t", "source": "/u", "id": "1", "subject": "vid_1", "data": {}}


@dataclass
class Api:
    """The application, called without a socket."""

    ledger: Ledger
    dispatcher: MemoryDispatcher
    app: object
    calls: list = field(default_factory=list)

    def call(self, method: str, path: str, **options) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def post(self, path: str = "/v1/videos", **options) -> httpx.Response:
        return self.call("POST", path, **options)

    def get(self, path: str, **options) -> httpx.Response:
        return self.call("GET", path, **options)


def make_api(ledger: Ledger, **changes) -> Api:
    settings = Settings(**changes)
    dispatcher, metrics = MemoryDispatcher(), Metrics()
    intake = Intake(ledger, dispatcher, metrics=metrics, resend_seconds=30, backlog_limit=settings.backlog_limit)
    control = Control(settings, None, ledger, dispatcher, intake, metrics, "owner")
    return Api(ledger, dispatcher, create_app(control))


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


@pytest.fixture
def api(ledger):
    return make_api(ledger)


def assert_typed(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"code", "message", "retryable"}
    assert body["code"] == code
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
        assert body["retryable"]


def test_a_submit_is_accepted_written_and_hinted(api):
    answer = api.post(json={"video_id": "vid_1", "lane": "urgent"}, headers={"traceparent": "00-abc"})
    assert (answer.status_code, answer.headers["location"]) == (202, "/v1/videos/vid_1")
    job = api.ledger.latest_job("vid_1")
    assert (job.state, job.lane, job.trace_id) == ("QUEUED", "urgent", "00-abc")
    assert api.dispatcher.queues["urgent"] == [job.ledger_id]
    assert api.get("/v1/videos/vid_1").json()["state"] == "queued"
    assert api.get(f"/v1/jobs/{job.ledger_id}").json()["job_id"] == job.ledger_id


def test_the_same_video_or_key_twice_is_one_job(api):
    headers = {"idempotency-key": "k1"}
    first = api.post(json={"video_id": "a"}, headers=headers).json()
    again = api.post(json={"video_id": "a"}, headers=headers).json()
    assert (first["created"], again["created"], again["job_id"]) == (True, False, first["job_id"])
    assert_typed(api.post(json={"video_id": "b"}, headers=headers), 409, "IDEMPOTENCY_CONFLICT")
    assert api.post(json={"video_id": "a"}).json()["job_id"] == first["job_id"]
    assert api.ledger.latest_job("b") is None


def test_an_event_that_came_by_the_stream_and_then_by_http_is_one_job(api):
    [by_stream] = api.ledger.submit_many(asked_by(json.dumps(EVENT).encode()).submissions)
    answer = api.post(content=json.dumps(EVENT), headers={"content-type": "application/cloudevents+json"})
    assert (answer.status_code, answer.json()["job_id"], answer.json()["created"]) == (202, by_stream.ledger_id, False)


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"json": {"video_id": "../etc/passwd"}}, 422, "INVALID_VIDEO_ID"),
        ({"json": {"video_id": "a", "schema_version": 7}}, 422, "UNKNOWN_VERSION"),
        ({"json": {"video": "a"}}, 422, "INVALID_MESSAGE"),
        ({"json": []}, 422, "INVALID_MESSAGE"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "INVALID_MESSAGE"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 422, "INVALID_MESSAGE"),
        ({"content": b"<xml/>", "headers": {"content-type": "text/xml"}}, 415, "UNSUPPORTED_TYPE"),
        ({"content": b'{"video_id": "a"}'}, 415, "UNSUPPORTED_TYPE"),
        ({"content": b"x" * 2_000_000, "headers": {"content-type": "application/json"}}, 413, "BODY_TOO_LARGE"),
        ({"json": {**EVENT, "specversion": "0.3"}, "headers": {"content-type": "application/cloudevents+json"}}, 422, "UNKNOWN_VERSION"),
        (
            {"content": json.dumps({**EVENT, "id": "\ud800"}), "headers": {"content-type": "application/cloudevents+json"}},
            422,
            "INVALID_MESSAGE",
        ),
        ({"json": {**EVENT, "data": "[" * 9000}, "headers": {"content-type": "application/cloudevents+json"}}, 422, "INVALID_MESSAGE"),
        ({"json": {"video_id": "a"}, "headers": {"idempotency-key": "k" * 200}}, 422, "HTTP_ERROR"),
    ],
)
def test_bad_requests_are_refused_with_a_typed_body(api, options, status, code):
    assert_typed(api.post(**options), status, code)
    assert api.ledger.count_waiting() == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8080"}, 202),
        ({"host": "127.8.0.1"}, 202),
        ({"host": "[::1]:8080"}, 202),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, 202),
        ({"host": "rebound.example:8080"}, 403),
        ({"host": "localhost.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost:8080", "origin": "https://page.example"}, 403),
        ({"host": "localhost:8080", "origin": "http://localhost:3000"}, 403),
        ({"host": "localhost:8080", "origin": "null"}, 403),
        ({"host": "localhost:8080", "origin": "http://[::1"}, 403),
    ],
)
def test_without_keys_no_web_page_of_another_site_gets_in(api, headers, status):
    answer = api.post(json={"video_id": "a"}, headers=headers)
    assert answer.status_code == status, answer.text
    assert api.get("/v1/videos/a", headers=headers).status_code == (200 if status == 202 else 403)
    if status == 403:
        assert_typed(answer, 403, "FORBIDDEN")
        assert "veriframe keys make" in answer.json()["message"]


def test_with_keys_any_name_will_do(ledger):
    api = make_api(ledger, api_keys=KEYS)
    headers = {"host": "veriframe.example", "origin": "https://page.example", "x-api-key": SUBMIT_KEY}
    assert api.post(json={"video_id": "a"}, headers=headers).status_code == 202


def test_unknown_things_are_404(api):
    assert_typed(api.get("/v1/videos/nobody"), 404, "UNKNOWN_VIDEO")
    assert_typed(api.get("/v1/videos/" + "x" * 500), 404, "UNKNOWN_VIDEO")
    assert_typed(api.get("/v1/jobs/1"), 404, "UNKNOWN_VIDEO")
    assert_typed(api.get("/v1/nothing"), 404, "NOT_FOUND")
    assert_typed(api.call("DELETE", "/v1/videos"), 405, "METHOD_NOT_ALLOWED")


def test_s3_notifications_are_taken_once(api):
    record = {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "up"}, "object": {"key": "vid_9.mp4", "eTag": "e"}}}
    first = api.post("/v1/events/s3", json={"Records": [record]}).json()
    again = api.post("/v1/events/s3", json={"Records": [record]}).json()
    assert first["accepted"][0]["video_id"] == video_id_of_object("up", "vid_9.mp4")
    assert (first["accepted"][0]["created"], again["accepted"][0]["created"]) == (True, False)


def test_an_odd_record_of_a_notification_is_named_and_the_others_are_taken(api):
    def send(*keys):
        records = [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "up"}, "object": {"key": key}}} for key in keys]
        return api.post("/v1/events/s3", json={"Records": records})

    answer = send("vid_9.mp4", "bad%0Aname.mp4")
    assert answer.status_code == 202
    assert [each["video_id"] for each in answer.json()["accepted"]] == [video_id_of_object("up", "vid_9.mp4")]
    assert [(each["record"], each["code"]) for each in answer.json()["refused"]] == [(1, "INVALID_MESSAGE")]
    page = api.get("/metrics").text
    counted = [line for line in page.splitlines() if line.startswith("veriframe_messages_rejected_total") and line.endswith(" 1.0")]
    assert counted == [], "what this counts is kept as a dead letter, and the alert on it says so"
    assert_typed(send("bad%0Aname.mp4"), 422, "INVALID_MESSAGE")
    tried = api.post("/v1/events/s3", json={"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "up"})
    assert (tried.status_code, tried.json()) == (202, {"accepted": []})


def test_openapi_says_what_a_notification_is_answered_with(api):
    answers = api.get("/openapi.json").json()["paths"]["/v1/events/s3"]["post"]["responses"]
    shape = answers["202"]["content"]["application/json"]["schema"]
    records = [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "up"}, "object": {"key": key}}} for key in ("v.mp4", "%0A")]
    answer = api.post("/v1/events/s3", json={"Records": records}).json()
    validate(answer, shape)
    assert set(shape["properties"]) == set(answer)
    for name, listed in shape["properties"].items():
        assert set(listed["items"]["required"]) == set(listed["items"]["properties"]) == set(answer[name][0])
    validate(api.post("/v1/events/s3", json={"Records": []}).json(), shape)


@pytest.mark.parametrize(
    ("end", "state", "created"),
    [(None, "processing", False), ("verdict", "complete", False), ("NOT_MEDIA", "failed", False), ("FETCH_TIMEOUT", "queued", True)],
)
def test_a_video_that_is_submitted_again_is_answered_with_its_true_state(api, end, state, created):
    first = api.post(json={"video_id": "a"}).json()
    assert (first["state"], api.post(json={"video_id": "a"}).json()["state"]) == ("queued", "queued")
    claim = api.ledger.claim(first["job_id"], owner="w", lease_seconds=60)
    if end == "verdict":
        record = VerdictRecord(content_sha256="c" * 64, bundle_set="b", policy="p", verdict="authentic", p_fake=0.1, body={})
        api.ledger.commit_verdict(claim, verdict=record, urls=[])
    elif end:
        api.ledger.fail(claim, code=end, message="m", body={}, urls=[])
    again = api.post(json={"video_id": "a"}).json()
    assert (again["state"], again["created"], again["job_id"] == first["job_id"]) == (state, created, not created)
    if created:
        assert api.dispatcher.queues["default"] == [first["job_id"], again["job_id"]]
        assert api.get("/v1/videos/a").json()["state"] == "queued"


@pytest.mark.parametrize("change", [{"key": "bob/clip.mp4"}, {"eTag": "e2"}, {"versionId": "v2"}, {"sequencer": "2"}])
def test_another_object_or_version_is_another_job(api, change):
    def send(**changes):
        stored = {"key": "alice/clip.mp4", "eTag": "e", "versionId": "v", "sequencer": "1", **changes}
        record = {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "up"}, "object": stored}}
        return api.post("/v1/events/s3", json={"Records": [record]}).json()["accepted"][0]

    first, other, again = send(), send(**change), send()
    assert (first["created"], other["created"], again["created"]) == (True, True, False)
    assert (other["job_id"] != first["job_id"], again["job_id"]) == (True, first["job_id"])
    claims = [api.ledger.claim(each["job_id"], owner="w", lease_seconds=9) for each in (first, other)]
    assert [claim.source for claim in claims] == ["s3://up/alice/clip.mp4", f"s3://up/{change.get('key', 'alice/clip.mp4')}"]


def test_a_full_broker_is_503_before_anything_is_written(api, monkeypatch):
    def full() -> None:
        raise BrokerFullError("at its limit")

    monkeypatch.setattr(api.dispatcher, "check", full)
    assert_typed(api.post(json={"video_id": "a"}), 503, "BROKER_FULL")
    assert api.ledger.latest_job("a") is None
    assert api.get("/readyz").status_code == 503
    assert api.get("/livez").status_code == 200


def test_a_full_ledger_is_503(api, monkeypatch):
    def full(*_args, **_kwargs) -> None:
        raise LedgerFullError("disk is full")

    monkeypatch.setattr(api.ledger, "submit_many", full)
    assert_typed(api.post(json={"video_id": "a"}), 503, "LEDGER_FULL")


def test_a_hint_that_cannot_be_sent_is_no_error(api, monkeypatch):
    def down(_jobs) -> None:
        raise BrokerFullError("full just now")

    monkeypatch.setattr(api.dispatcher, "send", down)
    assert api.post(json={"video_id": "a"}).status_code == 202
    assert api.ledger.latest_job("a").state == "QUEUED"


def test_too_long_a_backlog_is_503(ledger):
    api = make_api(ledger, backlog_limit=1)
    assert api.post(json={"video_id": "a"}).status_code == 202
    fresh = make_api(ledger, backlog_limit=1)
    assert_typed(fresh.post(json={"video_id": "b"}), 503, "BACKLOG_FULL")


def test_a_bug_shows_no_trace(api, monkeypatch):
    def bug(*_args, **_kwargs) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(api.ledger, "latest_job", bug)
    answer = api.get("/v1/videos/a")
    assert_typed(answer, 500, "INTERNAL")
    assert "secret" not in answer.text


def test_verdicts_are_paged_by_cursor(api):
    for number in range(5):
        job = api.post(json={"video_id": f"v{number}"}).json()["job_id"]
        claim = api.ledger.claim(job, owner="w", lease_seconds=60)
        assert isinstance(claim, Claim)
        body = pending_body(state="queued", job=JobFacts(video_id=f"v{number}")).to_json()
        record = VerdictRecord(content_sha256=f"{number:064d}", bundle_set="b", policy="p", verdict="suspicious", p_fake=0.7, body=body)
        api.ledger.commit_verdict(claim, verdict=record, urls=[])
    seen, cursor = [], None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = api.get("/v1/verdicts", params=params).json()
        seen += [body["video_id"] for body in page["verdicts"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["v4", "v3", "v2", "v1", "v0"]
    assert_typed(api.get("/v1/verdicts", params={"limit": 9999}), 422, "INVALID_MESSAGE")
    assert api.get("/v1/verdicts", params={"verdict": "authentic"}).json() == {"verdicts": [], "next_cursor": None}


PROTECTED = [
    ("POST", "/v1/videos", "submit"),
    ("POST", "/v1/videos/bulk", "submit"),
    ("POST", "/v1/events/s3", "submit"),
    ("GET", "/v1/videos/a", "read"),
    ("GET", "/v1/videos/a/evidence", "read"),
    ("GET", "/v1/videos/a/evidence.zip", "review"),
    ("GET", "/v1/videos/a/as/hive", "read"),
    ("POST", "/v1/videos/a/explanation", "review"),
    ("GET", "/v1/videos/a/explanation", "review"),
    ("GET", "/v1/videos/a/explanation/clip", "review"),
    ("GET", "/v1/jobs/a", "read"),
    ("GET", "/v1/verdicts", "read"),
    ("GET", "/v1/reviews", "review"),
    ("GET", "/v1/reviews/1", "review"),
    ("POST", "/v1/reviews/1/decision", "review"),
    ("DELETE", "/v1/videos/a", "admin"),
]


@pytest.mark.parametrize(("method", "path", "scope"), PROTECTED)
def test_every_endpoint_wants_a_key_with_its_scope(ledger, method, path, scope):
    api = make_api(ledger, api_keys=KEYS)
    right, wrong = {
        "submit": (SUBMIT_KEY, READ_KEY),
        "read": (READ_KEY, SUBMIT_KEY),
        "review": (ADMIN_KEY, READ_KEY),
        "admin": (ADMIN_KEY, READ_KEY),
    }[scope]
    assert_typed(api.call(method, path), 401, "UNAUTHENTICATED")
    assert_typed(api.call(method, path, headers={"x-api-key": "guess"}), 401, "UNAUTHENTICATED")
    assert_typed(api.call(method, path, headers={"x-api-key": wrong}), 403, "FORBIDDEN")
    for headers in ({"x-api-key": right}, {"authorization": f"Bearer {right}"}, {"x-api-key": ADMIN_KEY}):
        assert api.call(method, path, headers=headers).status_code not in (401, 403)


def test_every_v1_route_is_in_the_auth_test(api):
    routes = {
        (method.upper(), path.replace("{video_id}", "a").replace("{job_id}", "a").replace("{review_id}", "1").replace("{shape}", "hive"))
        for path, item in api.get("/openapi.json").json()["paths"].items()
        if path.startswith("/v1")
        for method in item
    }
    assert routes == {(method, path) for method, path, _scope in PROTECTED}


@pytest.mark.parametrize("keys", [("submit",), ("fly:" + "0" * 64,), ("submit:xyz",)])
def test_malformed_keys_stop_the_start(ledger, keys):
    with pytest.raises(SettingsError, match="scope"):
        make_api(ledger, api_keys=keys)


def test_listening_to_the_world_needs_keys(ledger):
    with pytest.raises(SettingsError, match="without keys"):
        make_api(ledger, api_host="0.0.0.0")


def test_openapi_says_how_a_key_is_sent(api):
    """Clients that are made from the document would have no place for a key."""
    document = api.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {(each["type"], each.get("name"), each.get("in"), each.get("scheme")) for each in schemes.values()} == {
        ("apiKey", "X-API-Key", "header", None),
        ("http", None, None, "bearer"),
    }
    for path, item in document["paths"].items():
        for operation in item.values():
            wanted = [{name: []} for name in schemes] if path.startswith("/v1") else []
            assert sorted(map(str, operation.get("security", []))) == sorted(map(str, wanted)), path


def test_openapi_carries_both_contracts(api):
    text = json.dumps(api.get("/openapi.json").json())
    assert "VerdictBody" in text
    assert "content_sha256" in text
