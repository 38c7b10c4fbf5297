"""Who may come in and how much: keys that end, scopes, tenants that never see each other, limits, quotas, and the log of it all."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from api_caller import ADMIN_KEY, KEYS, SUBMIT_KEY, assert_typed, make_caller
from verdict_builders import put_verdict
from workers.allowance import Limiter
from workers.cli import app as cli
from workers.errors import QuotaExhaustedError, RateLimitedError, SettingsError, UnknownKeyError
from workers.ledger import Ledger, Submission, TenantLimits
from workers.messages import EnqueueRequest
from workers.settings import Settings
from workers.web.auth import key_digest


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def add_key(ledger: Ledger, key: str, *scopes: str, tenant: str = "", days: float | None = None) -> str:
    key_id = key_digest(key)[:8]
    ledger.add_key(key_id=key_id, digest=key_digest(key), name=key, scopes=scopes, tenant=tenant, days=days, actor="test")
    return key_id


def test_a_key_is_on_record_only_as_a_hash(ledger):
    add_key(ledger, "vf_secret-of-ana", "read")
    found = ledger.find_key(key_digest("vf_secret-of-ana"))
    assert (found.state, found.scopes) == ("active", ("read",))
    with ledger.engine.connect() as connection:
        rows = connection.execute(text("select key_id, digest, tenant, scopes from api_keys")).all()
        logged = connection.execute(text("select detail from audit_log")).all()
    assert "secret-of-ana" not in str(rows)
    assert "vf_" not in json.loads(logged[0][0])["scopes"]


def test_keys_end_by_time_and_by_hand(ledger):
    add_key(ledger, "old", "read", days=-1)
    ended = add_key(ledger, "gone", "read")
    ledger.revoke_key(ended, actor="test")
    with pytest.raises(UnknownKeyError):
        ledger.revoke_key(ended, actor="test")
    states = {row.name: row.state for row in ledger.list_keys()}
    assert states == {"old": "expired", "gone": "revoked"}
    assert [(entry.action, entry.target) for entry in ledger.audit_entries(target=ended)] == [("key_revoked", ended), ("key_made", ended)]


def test_the_first_key_closes_an_open_api_for_good(ledger):
    api = make_caller(ledger)
    assert api.get("/v1/verdicts").status_code == 200
    key_id = add_key(ledger, "k", "read")
    assert_typed(api.get("/v1/verdicts"), 401, "UNAUTHENTICATED")
    assert api.get("/v1/verdicts", headers={"x-api-key": "k"}).status_code == 200
    ledger.revoke_key(key_id, actor="test")
    refused = api.get("/v1/verdicts", headers={"x-api-key": "k"})
    assert_typed(refused, 401, "UNAUTHENTICATED")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert_typed(make_caller(ledger).get("/v1/verdicts"), 401, "UNAUTHENTICATED")


def test_a_key_of_the_ledger_lets_the_api_listen_to_the_world(ledger):
    with pytest.raises(SettingsError, match="veriframe keys make"):
        make_caller(ledger, api_host="0.0.0.0")
    add_key(ledger, "k", "read")
    assert make_caller(ledger, api_host="0.0.0.0").get("/livez").status_code == 200


def test_tenants_never_see_each_other(ledger):
    add_key(ledger, "a", "submit", "read", tenant="acme")
    add_key(ledger, "b", "submit", "read", tenant="bolt")
    api = make_caller(ledger, api_keys=KEYS)
    jobs = {}
    for name in ("a", "b"):
        headers = {"x-api-key": name, "idempotency-key": "one"}
        answer = api.post("/v1/videos", json={"video_id": "same", "attributes": {"of": name}}, headers=headers)
        assert answer.status_code == 202
        jobs[name] = answer.json()["job_id"]
    assert jobs["a"] != jobs["b"]
    for name in ("a", "b"):
        seen = api.get("/v1/videos/same", headers={"x-api-key": name}).json()
        assert (seen["job_id"], seen["attributes"]) == (jobs[name], {"of": name})
    assert_typed(api.get(f"/v1/jobs/{jobs['a']}", headers={"x-api-key": "b"}), 404, "UNKNOWN_VIDEO")
    assert_typed(api.get("/v1/videos/same", headers={"x-api-key": "read-secret"}), 404, "UNKNOWN_VIDEO")
    assert_typed(api.get("/v1/videos/same/evidence", headers={"x-api-key": "read-secret"}), 404, "UNKNOWN_VIDEO")


@pytest.mark.parametrize("number", [2**63, 2**70])
def test_a_number_that_no_ledger_holds_is_the_callers_mistake(ledger, number):
    api = make_caller(ledger, api_keys=KEYS)
    mine = {"x-api-key": ADMIN_KEY}
    for path in (f"/v1/verdicts?cursor={number}", f"/v1/reviews?cursor={number}", f"/v1/reviews/{number}"):
        assert_typed(api.get(path, headers=mine), 422, "INVALID_MESSAGE")
    decision = {"reviewer": "ana", "decision": "fake"}
    assert_typed(api.post(f"/v1/reviews/{number}/decision", json=decision, headers=mine), 422, "INVALID_MESSAGE")


def test_the_largest_number_is_only_not_there(ledger):
    api = make_caller(ledger, api_keys=KEYS)
    mine = {"x-api-key": ADMIN_KEY}
    assert api.get(f"/v1/verdicts?cursor={2**63 - 1}", headers=mine).json() == {"verdicts": [], "next_cursor": None}
    assert_typed(api.get(f"/v1/reviews/{2**63 - 1}", headers=mine), 404, "UNKNOWN_REVIEW")


def test_a_nul_in_an_address_names_nothing(ledger):
    api = make_caller(ledger, api_keys=KEYS)
    for path in ("/v1/videos/a%00b", "/v1/videos/a%00b/evidence", f"/v1/jobs/{'0' * 31}%00"):
        assert_typed(api.get(path, headers={"x-api-key": ADMIN_KEY}), 404, "UNKNOWN_VIDEO")


def test_a_nul_in_what_a_reviewer_writes_is_left_out(ledger):
    put_verdict(ledger, "vid_1")
    api = make_caller(ledger, api_keys=KEYS)
    seq = ledger.review_item_of("vid_1").verdict_seq
    decision = {"reviewer": "ana", "decision": "fake", "reason": "mo\0uth", "note": "tee\0th"}
    assert api.post(f"/v1/reviews/{seq}/decision", json=decision, headers={"x-api-key": ADMIN_KEY}).status_code == 200
    [entry] = ledger.review_entries(seq)
    assert (entry.reason, entry.note) == ("mouth", "teeth")


@pytest.mark.parametrize("entry", ["review@acme:" + "0" * 64, "admin,read@acme:" + "0" * 64, "read@no space:" + "0" * 64])
def test_a_tenants_key_has_no_scope_of_the_house(ledger, entry):
    with pytest.raises(SettingsError):
        make_caller(ledger, api_keys=(entry,))


class Clock:
    def __init__(self) -> None:
        self.now = 60_000.0

    def __call__(self) -> float:
        return self.now


def limiter(ledger: Ledger, clock: Clock, client=None, **settings) -> Limiter:
    return Limiter(client, ledger, settings=Settings(**settings), clock=clock)


def take_all(taken: Limiter, tenant: str, tries: int) -> int:
    served = 0
    for _ in range(tries):
        try:
            taken.take(tenant)
            served += 1
        except RateLimitedError:
            continue
    return served


def test_a_minute_has_so_many_requests_and_slides(ledger):
    clock = Clock()
    counted = limiter(ledger, clock, requests_per_minute=10)
    assert take_all(counted, "acme", 15) == 10
    assert take_all(counted, "bolt", 3) == 3
    clock.now += 60
    assert take_all(counted, "acme", 3) == 0  # the minute before still weighs in full
    clock.now += 60
    clock.now += 60
    assert take_all(counted, "acme", 15) == 10


def test_who_asks_a_little_too_often_is_served_at_the_limit(ledger):
    clock = Clock()
    counted = limiter(ledger, clock, requests_per_minute=60)
    served = []
    for minute in range(5):
        served.append(0)
        for i in range(66):
            clock.now = 60_000.0 + 60 * minute + i * 60 / 66
            served[minute] += take_all(counted, "acme", 1)
    assert all(55 <= num <= 60 for num in served), served


@pytest.mark.parametrize(("limit", "first", "second"), [(60, 100, 100), (60, 40, 30), (10, 10, 1), (1, 1, 1), (7, 3, 9)])
@pytest.mark.parametrize("into_seconds", [0.0, 12.3, 30.0, 59.9])
def test_retry_after_is_the_first_second_that_has_room(ledger, limit, first, second, into_seconds):
    clock = Clock()
    counted = limiter(ledger, clock, requests_per_minute=limit)
    clock.now += into_seconds
    take_all(counted, "acme", first)
    clock.now += 60
    take_all(counted, "acme", second)
    take_all(counted, "acme", limit)  # until it is full
    with pytest.raises(RateLimitedError) as refused:
        counted.take("acme")
    told = refused.value.retry_after_seconds
    if told > 1:
        clock.now += told - 1
        assert take_all(counted, "acme", 1) == 0
        clock.now -= told - 1
    clock.now += told
    assert take_all(counted, "acme", 1) == 1


def test_a_broker_that_is_away_does_not_close_the_door(ledger, redis_down):
    counted = limiter(ledger, Clock(), client=redis_down, requests_per_minute=4)
    assert take_all(counted, "acme", 9) == 4


@pytest.fixture
def redis_down():
    from workers.broker import connect

    client = connect("redis://127.0.0.1:1/0", reply_seconds=0.2)
    yield client
    client.close()


def test_a_tenants_own_limit_wins(ledger):
    clock = Clock()
    ledger.set_limits("acme", TenantLimits(requests_per_minute=2), actor="test")
    ledger.set_limits("free", TenantLimits(requests_per_minute=0), actor="test")
    counted = limiter(ledger, clock, requests_per_minute=5)
    assert [take_all(counted, tenant, 9) for tenant in ("acme", "free", "")] == [2, 9, 5]
    ledger.set_limits("acme", TenantLimits(requests_per_minute=7), actor="test")
    clock.now += 200
    assert take_all(counted, "acme", 9) == 7


def test_too_many_requests_are_429_with_retry_after(ledger):
    api = make_caller(ledger, api_keys=KEYS, requests_per_minute=3)
    answers = [api.get("/v1/videos/x", headers={"x-api-key": "read-secret"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429, 429]
    assert_typed(answers[-1], 429, "RATE_LIMITED")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 80  # of three in one minute one has room 20 s into the next
    assert answers[-1].json()["retryable"] is True
    assert_typed(api.get("/v1/videos/x"), 401, "UNAUTHENTICATED")  # strangers use up nobody's share


def test_a_quota_counts_new_videos_only_and_all_or_none(ledger):
    api = make_caller(ledger, api_keys=KEYS, videos_per_day=2)
    headers = {"x-api-key": SUBMIT_KEY}

    def submit(video_id: str):
        return api.post("/v1/videos", json={"video_id": video_id}, headers=headers)

    assert [submit(name).status_code for name in ("v1", "v1", "v1", "v2", "v1")] == [202] * 5
    refused = submit("v3")
    assert_typed(refused, 429, "QUOTA_EXHAUSTED")
    assert 0 < int(refused.headers["retry-after"]) <= 86_401
    assert ledger.latest_job("v3") is None
    keyed = {**headers, "idempotency-key": "k"}
    assert api.post("/v1/videos", json={"video_id": "v2"}, headers=keyed).status_code == 202
    assert api.post("/v1/videos", json={"video_id": "v2"}, headers=keyed).status_code == 202, "a repeat takes nothing"


def test_each_tenant_has_a_quota_and_a_batch_fits_whole_or_not_at_all(ledger):
    def submit(tenant, *names):
        batch = [Submission(request=EnqueueRequest(video_id=name), door="http", tenant=tenant) for name in names]
        return [outcome.created for outcome in ledger.submit_many(batch, quota=3)]

    assert submit("acme", "v1", "v2") == [True, True]
    with pytest.raises(QuotaExhaustedError):
        submit("acme", "v3", "v4")
    assert ledger.latest_job("v3", tenant="acme") is None
    assert submit("acme", "v1", "v3") == [False, True]
    assert submit("bolt", "v1", "v2", "v3") == [True] * 3


@pytest.mark.parametrize("statement", ["update audit_log set actor = 'nobody'", "delete from audit_log"])
def test_the_audit_log_cannot_be_rewritten(ledger, statement):
    ledger.audit(actor="ana", action="tested", target="x")
    with pytest.raises(DBAPIError, match="append-only"), ledger.engine.begin() as connection:
        connection.execute(text(statement))
    [entry] = ledger.audit_entries()
    assert (entry.actor, entry.action, entry.target) == ("ana", "tested", "x")


def test_the_command_makes_lists_and_revokes(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path))
    runner = CliRunner()
    made = runner.invoke(cli, ["keys", "make", "platform", "--scope", "submit", "--scope", "read", "--tenant", "acme", "--days", "30"])
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert key.startswith("vf_")
    assert len(key) > 40
    [row] = [json.loads(line) for line in runner.invoke(cli, ["keys", "list", "--json"]).stdout.splitlines()]
    assert (row["name"], row["tenant"], row["scopes"], row["state"]) == ("platform", "acme", ["read", "submit"], "active")
    assert key not in json.dumps(row)
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", create=False)
    api = make_caller(ledger)
    assert api.post("/v1/videos", json={"video_id": "v"}, headers={"authorization": f"Bearer {key}"}).status_code == 202
    assert runner.invoke(cli, ["keys", "limit", "--tenant", "acme", "--videos-per-day", "1"]).exit_code == 0
    assert ledger.limits_of("acme") == TenantLimits(None, 1)
    assert runner.invoke(cli, ["keys", "limit", "--tenant", "no such tenant!", "--videos-per-day", "1"]).exit_code == 2
    assert runner.invoke(cli, ["keys", "revoke", row["key_id"]]).exit_code == 0
    assert_typed(api.get("/v1/videos/v", headers={"x-api-key": key}), 401, "UNAUTHENTICATED")
    actions = [json.loads(line)["action"] for line in runner.invoke(cli, ["audit"]).stdout.splitlines()]
    assert actions == ["key_revoked", "limits_set", "key_made"]
    job = ledger.latest_job("v", tenant="acme")
    claim = ledger.claim(job.ledger_id, owner="w", lease_seconds=60)
    ledger.fail(claim, code="DECODE_ERROR", message="m", body={}, urls=[])
    assert runner.invoke(cli, ["requeue", job.ledger_id]).exit_code == 0
    assert runner.invoke(cli, ["login-link", "sampling"]).exit_code == 2
    assert runner.invoke(cli, ["login-link", "ana"]).exit_code == 0
    assert [(entry.action, entry.target) for entry in ledger.audit_entries(limit=2)] == [
        ("login_link_made", "ana"),
        ("requeued", job.ledger_id),
    ]
    ledger.close()


@pytest.mark.parametrize("arguments", [["--scope", "fly"], ["--scope", "admin", "--tenant", "acme"]])
def test_the_command_refuses_scopes_that_cannot_be(tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path))
    refused = CliRunner().invoke(cli, ["keys", "make", "x", *arguments])
    assert isinstance(refused.exception, SettingsError)
    assert not (tmp_path / "ledger.sqlite3").exists()
