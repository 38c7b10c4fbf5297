"""The ledger's protocol on SQLite; tests/integration/test_ledger_postgres.py runs the same on a real Postgres server."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect

from workers.errors import IdempotencyConflictError, InvalidMessageError, LeaseLostError, LedgerFullError, LedgerSchemaError, SettingsError
from workers.ledger import Claim, ClaimRefused, Ledger, Submission, Submitted, VerdictFilter, VerdictRecord, migrate, submissions
from workers.ledger.engine import make_engine
from workers.ledger.schema import metadata
from workers.messages import EnqueueRequest

RECORD = VerdictRecord(
    content_sha256="0" * 64, bundle_set="b@1", policy="p", verdict="authentic", p_fake=0.25, body={"schema": "verdict/1"}
)
HOOK = "http://receiver.example/hook"


def submission(video_id: str = "vid_1", **fields) -> Submission:
    extra = {name: fields.pop(name) for name in ("key", "key_sha256") if name in fields}
    return Submission(request=EnqueueRequest(video_id=video_id, **fields), door="cli", **extra)


@pytest.fixture
def ledger(tmp_path):
    with_file = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield with_file
    with_file.close()


def claimed(ledger: Ledger, ledger_id: str, *, owner: str = "w1", lease: float = 60.0) -> Claim:
    claim = ledger.claim(ledger_id, owner=owner, lease_seconds=lease)
    assert isinstance(claim, Claim)
    return claim


def test_same_video_twice_is_one_job(ledger):
    first, second = ledger.submit(submission()), ledger.submit(submission())
    assert (first.created, second.created) == (True, False)
    assert first.ledger_id == second.ledger_id
    other = ledger.submit(submission(content_sha256="a" * 64))
    assert other.created
    assert other.ledger_id != first.ledger_id


def test_outcomes_come_in_the_callers_order(ledger):
    names = ["c", "a", "b", "a"]
    outcomes = ledger.submit_many([submission(name) for name in names])
    assert [ledger.job(outcome.ledger_id).video_id for outcome in outcomes] == names
    assert [outcome.created for outcome in outcomes] == [True, True, True, False]


def submitted_at_once(ledger, name, *, times):
    """One video submitted by many threads that start together."""
    barrier, outcomes = threading.Barrier(times), []

    def send():
        barrier.wait()
        outcomes.append(ledger.submit(submission(name)))

    threads = [threading.Thread(target=send) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_fifty_threads_with_one_id_make_one_job(ledger):
    outcomes = submitted_at_once(ledger, "storm", times=50)
    assert len({o.ledger_id for o in outcomes}) == 1
    assert sum(o.created for o in outcomes) == 1
    assert ledger.count_states()["QUEUED"] == 1


def test_batch_with_a_repeated_id_makes_one_job(ledger):
    outcomes = ledger.submit_many([submission("a"), submission("b"), submission("a")])
    assert [o.created for o in outcomes] == [True, True, False]
    assert outcomes[0].ledger_id == outcomes[2].ledger_id


def test_idempotency_key_gives_the_job_back_or_refuses_another_request(ledger):
    first = ledger.submit(submission("a", key="k", key_sha256="1"))
    assert ledger.submit(submission("a", key="k", key_sha256="1")).ledger_id == first.ledger_id
    with pytest.raises(IdempotencyConflictError, match="another request"):
        ledger.submit(submission("b", key="k", key_sha256="2"))
    assert ledger.latest_job("b") is None


def test_no_statement_grows_with_the_batch(ledger, monkeypatch):
    """Postgres takes 65,535 parameters, a batch of the stream may have 256,000 videos."""
    monkeypatch.setattr(submissions, "_CHUNK", 50)
    sent = []
    event.listen(ledger.engine, "before_cursor_execute", lambda _c, _cursor, _statement, parameters, *_: sent.append(parameters))
    batch = [replace(submission(f"vid_{number}", key=f"k{number}"), read_at=time.monotonic()) for number in range(120)]
    assert all(outcome.created for outcome in ledger.submit_many(batch))
    again = ledger.submit_many([submission(f"new_{each.key}", key=each.key) for each in batch])
    assert not any(outcome.created for outcome in again)
    assert max(len(parameters) for parameters in sent if not isinstance(parameters, list)) < 60


def failed(ledger: Ledger, ledger_id: str, *, code: str = "FETCH_TIMEOUT") -> str:
    ledger.fail(claimed(ledger, ledger_id), code=code, message="m", body={}, urls=[HOOK])
    return ledger_id


def test_a_job_that_failed_for_a_passing_reason_is_tried_again_when_it_is_submitted_again(ledger):
    first = failed(ledger, ledger.submit(submission(source="s3://b/expired")).ledger_id)
    again = ledger.submit(submission(source="s3://b/fresh"))
    assert (again.created, again.state, again.again_for) == (True, "QUEUED", first)
    assert ledger.submit(submission()) == Submitted(again.ledger_id, False, "default", "QUEUED")
    claim = claimed(ledger, again.ledger_id)
    assert (claim.source, claim.attempts, claim.retries) == ("s3://b/fresh", 1, 0)
    assert [event["detail"] for event in ledger.history() if event["kind"] == "submitted"] == [None, f"again:{first}"]
    ledger.fail(claim, code="FETCH_TIMEOUT", message="m", body={}, urls=[HOOK])
    third = ledger.submit_many([submission(), submission()])
    assert [(each.created, each.again_for) for each in third] == [(True, again.ledger_id), (False, None)]
    assert ledger.commit_verdict(claimed(ledger, third[0].ledger_id), verdict=RECORD, urls=[HOOK])
    assert ledger.submit(submission()) == Submitted(third[0].ledger_id, False, "default", "VERDICT")
    assert ledger.submit(submission(content_sha256="a" * 64)).again_for is None
    # each failure was told of, and the verdict
    assert len(ledger.due_events(page=10, hold_seconds=60)) == 3


def test_a_job_that_failed_for_good_or_by_poison_stays_so(ledger):
    job = failed(ledger, ledger.submit(submission()).ledger_id, code="NOT_MEDIA")
    assert ledger.submit(submission()) == Submitted(job, False, "default", "FAILED")
    poisoned = ledger.submit(submission("vid_2")).ledger_id
    claimed(ledger, poisoned, lease=0.01)
    time.sleep(0.05)
    ledger.expire_leases(max_crashes=1, page=10, urls=[], poison_body=lambda _row: {})
    assert ledger.submit(submission("vid_2")) == Submitted(poisoned, False, "default", "POISONED")


def test_an_event_that_is_delivered_again_tries_nothing_again(ledger):
    job = failed(ledger, ledger.submit(submission(key="e1")).ledger_id)
    for _ in range(2):
        assert ledger.submit(submission(key="e1")) == Submitted(job, False, "default", "FAILED")
    again = ledger.submit(submission(key="e2"))
    assert again.again_for == job
    assert ledger.submit(submission(key="e2")).ledger_id == again.ledger_id


def test_a_job_that_was_requeued_is_not_tried_again_beside_it(ledger):
    job = failed(ledger, ledger.submit(submission()).ledger_id)
    requeued = ledger.resubmit(job)
    assert ledger.submit(submission()) == Submitted(requeued.ledger_id, False, "default", "QUEUED")
    failed(ledger, requeued.ledger_id)
    assert ledger.submit(submission()).again_for == requeued.ledger_id


def test_many_who_submit_a_failed_job_again_at_once_make_one_job(ledger):
    job = failed(ledger, ledger.submit(submission("storm")).ledger_id)
    outcomes = submitted_at_once(ledger, "storm", times=20)
    assert [o.again_for for o in outcomes if o.created] == [job]
    assert len({o.ledger_id for o in outcomes}) == 1


def test_a_claim_is_exclusive_and_terminal_states_stay(ledger):
    job = ledger.submit(submission()).ledger_id
    claim = claimed(ledger, job)
    assert ledger.claim(job, owner="w2", lease_seconds=60) == ClaimRefused("leased")
    assert ledger.commit_verdict(claim, verdict=RECORD, urls=[HOOK])
    assert ledger.claim(job, owner="w2", lease_seconds=60) == ClaimRefused("terminal")
    assert ledger.claim("f" * 32, owner="w2", lease_seconds=60) == ClaimRefused("unknown")
    with pytest.raises(LeaseLostError):
        ledger.commit_verdict(claim, verdict=RECORD, urls=[HOOK])
    assert len(ledger.due_events(page=10, hold_seconds=60)) == 1


def test_a_stale_worker_writes_nothing(ledger):
    job = ledger.submit(submission()).ledger_id
    stale = claimed(ledger, job, owner="stale", lease=0.01)
    time.sleep(0.05)
    assert [e.state for e in ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=lambda _row: {})] == ["QUEUED"]
    fresh = claimed(ledger, job, owner="fresh")
    for write in (
        lambda: ledger.commit_verdict(stale, verdict=RECORD, urls=[]),
        lambda: ledger.fail(stale, code="X", message="m", body={}, urls=[]),
        lambda: ledger.retry(stale, code="X", message="m", delay_seconds=0),
        lambda: ledger.release(stale),
    ):
        with pytest.raises(LeaseLostError, match="no longer held by stale"):
            write()
    assert ledger.list_verdicts() == []
    assert ledger.list_dead_letters() == []
    assert ledger.commit_verdict(fresh, verdict=RECORD, urls=[])


def test_renewal_keeps_a_lease_and_tells_what_is_lost(ledger):
    jobs = [ledger.submit(submission(f"v{i}")).ledger_id for i in range(3)]
    claims = [claimed(ledger, job, lease=0.8) for job in jobs]
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        assert ledger.renew("w1", ledger_ids=jobs, lease_seconds=0.8) == {c.ledger_id: c.fence for c in claims}
        assert ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=lambda _row: {}) == []
        time.sleep(0.05)
    time.sleep(0.9)
    assert len(ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=lambda _row: {})) == 3
    assert ledger.renew("w1", ledger_ids=jobs, lease_seconds=60) == {}


def test_three_dead_leases_poison_a_video_and_say_so_once(ledger):
    job = ledger.submit(submission(callback_url=HOOK)).ledger_id
    states = []
    for _ in range(3):
        claimed(ledger, job, lease=0.001)
        time.sleep(0.01)
        states += [e.state for e in ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=lambda row: {"id": row.video_id})]
    assert states == ["QUEUED", "QUEUED", "POISONED"]
    [letter] = ledger.list_dead_letters()
    assert (letter["code"], letter["attempts"]) == ("POISONED", 3)
    [event] = ledger.due_events(page=10, hold_seconds=60)
    assert (event.kind, event.payload, event.url) == ("verdict.failed", '{"id": "vid_1"}', HOOK)
    assert ledger.claim(job, owner="w9", lease_seconds=60) == ClaimRefused("terminal")


def test_a_crash_suspect_goes_to_the_isolate_route(ledger):
    job = ledger.submit(submission()).ledger_id
    claimed(ledger, job, lease=0.001)
    time.sleep(0.01)
    ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=lambda _row: {})
    assert ledger.take_due(route="default", page=10, resend_seconds=60) == []
    assert [d.queue for d in ledger.take_due(route="isolate", page=10, resend_seconds=60)] == ["isolate"]


def test_due_rows_come_oldest_first_once_per_resend_time(ledger):
    ids = [ledger.submit(submission(f"v{i}")).ledger_id for i in range(5)]
    taken = [d.ledger_id for d in ledger.take_due(route="default", page=3, resend_seconds=2.5)]
    assert set(taken) == set(ids[:3])
    assert {d.ledger_id for d in ledger.take_due(route="default", page=10, resend_seconds=2.5)} == set(ids[3:])
    assert ledger.take_due(route="default", page=10, resend_seconds=2.5) == []
    time.sleep(2.6)
    assert len(ledger.take_due(route="default", page=10, resend_seconds=60)) == 5
    assert ledger.take_due(route="default", page=0, resend_seconds=60) == []


def test_a_retry_waits_its_delay_and_a_release_does_not_count(ledger):
    job = ledger.submit(submission()).ledger_id
    ledger.retry(claimed(ledger, job), code="FETCH_TIMEOUT", message="down", delay_seconds=0.6)
    assert ledger.claim(job, owner="w", lease_seconds=1) == ClaimRefused("not_due")
    time.sleep(0.7)
    claim = claimed(ledger, job)
    assert (claim.attempts, claim.retries) == (2, 1)
    ledger.release(claim)
    again = claimed(ledger, job)
    assert again.attempts == 2
    assert again.fence > claim.fence


def test_the_same_judgement_is_published_once(ledger):
    first, second = ledger.submit(submission()).ledger_id, ledger.submit(submission(content_sha256="0" * 64)).ledger_id
    assert ledger.commit_verdict(claimed(ledger, first), verdict=RECORD, urls=[HOOK])
    assert not ledger.commit_verdict(claimed(ledger, second), verdict=RECORD, urls=[HOOK])
    assert len(ledger.list_verdicts()) == 1
    assert len(ledger.due_events(page=10, hold_seconds=60)) == 1
    row = ledger.job(second)
    assert row is not None
    assert (row.state, row.body) == ("VERDICT", {"schema": "verdict/1"})


def test_a_callback_hears_of_a_judgement_that_was_on_record(ledger):
    first, second = submission(), submission(content_sha256="0" * 64, callback_url="https://b.example/hook")
    assert ledger.commit_verdict(claimed(ledger, ledger.submit(first).ledger_id), verdict=RECORD, urls=[HOOK])
    again, job = replace(RECORD, body={"schema": "another"}), ledger.submit(second).ledger_id
    assert not ledger.commit_verdict(claimed(ledger, job), verdict=again, urls=[HOOK, "https://b.example/hook"])
    [house, callback] = ledger.due_events(page=10, hold_seconds=60)
    assert (house.url, callback.url, callback.kind, callback.ledger_id) == (HOOK, "https://b.example/hook", "verdict.completed", job)
    own = {"job_id": job, "attributes": {}, "trace_id": None}
    assert json.loads(callback.payload) == json.loads(house.payload) | own
    assert callback.event_id != house.event_id


def test_one_leader_at_a_time_by_the_database_clock(ledger, monkeypatch):
    assert ledger.lead("janitor", owner="a", seconds=0.8)
    assert not ledger.lead("janitor", owner="b", seconds=0.8)
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)  # a worker's clock far ahead changes nothing
    assert not ledger.lead("janitor", owner="b", seconds=0.8)
    assert ledger.lead("janitor", owner="a", seconds=0.8)
    time.sleep(0.9)
    assert ledger.lead("janitor", owner="b", seconds=60)
    ledger.step_down("janitor", owner="b")
    assert ledger.lead("janitor", owner="a", seconds=60)


def test_a_clock_ahead_expires_no_lease(ledger, monkeypatch):
    job = ledger.submit(submission()).ledger_id
    claimed(ledger, job)
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    assert ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=lambda _row: {}) == []


def test_outbox_postpones_and_gives_up_with_a_dead_letter(ledger):
    job = ledger.submit(submission()).ledger_id
    ledger.commit_verdict(claimed(ledger, job), verdict=RECORD, urls=[HOOK])
    [event] = ledger.due_events(page=10, hold_seconds=60)
    assert ledger.due_events(page=10, hold_seconds=60) == []
    ledger.postpone(event, delay_seconds=0)
    [again] = ledger.due_events(page=10, hold_seconds=60)
    assert (again.event_id, again.tries) == (event.event_id, 2)
    assert ledger.give_up(again, code="WEBHOOK_UNDELIVERED", message="500")
    assert ledger.due_events(page=10, hold_seconds=0) == []
    assert [letter["code"] for letter in ledger.list_dead_letters()] == ["WEBHOOK_UNDELIVERED"]


def test_an_event_that_was_erased_on_its_way_leaves_no_trace(ledger):
    events = []
    for name in ("taken", "refused"):
        job = ledger.submit(submission(name)).ledger_id
        ledger.commit_verdict(claimed(ledger, job), verdict=replace(RECORD, content_sha256=name), urls=[HOOK])
        events += ledger.due_events(page=10, hold_seconds=60)
        ledger.erase_video(name, actor="test")
    taken, refused = events
    ledger.delivered([taken])
    assert ledger.give_up(refused, code="WEBHOOK_UNDELIVERED", message="500") is False
    assert ledger.list_dead_letters() == []
    assert list(ledger.history()) == []


def test_a_malformed_message_is_recorded_once(ledger):
    assert ledger.bury_message(b"\x00\xff junk", door="queue", code="INVALID_MESSAGE", message="not JSON")
    assert not ledger.bury_message(b"\x00\xff junk", door="queue", code="INVALID_MESSAGE", message="not JSON")
    [letter] = ledger.list_dead_letters(code="INVALID_MESSAGE")
    assert letter["payload"] == "\\x00\\xff junk"


def test_retention_removes_finished_jobs_and_keeps_verdicts(ledger):
    done, waiting = ledger.submit(submission("done")).ledger_id, ledger.submit(submission("waiting")).ledger_id
    ledger.commit_verdict(claimed(ledger, done), verdict=RECORD, urls=[])
    assert ledger.retire(days=1) == 0
    time.sleep(0.02)
    assert ledger.retire(days=0.01 / 86400) == 1
    assert ledger.job(done) is None
    assert ledger.job(waiting) is not None
    assert len(ledger.list_verdicts()) == 1


def test_verdicts_are_listed_by_cursor(ledger):
    for i in range(5):
        job = ledger.submit(submission(f"v{i}")).ledger_id
        record = VerdictRecord(
            content_sha256=f"{i:064d}",
            bundle_set="b",
            policy="p",
            verdict="suspicious" if i % 2 else "authentic",
            p_fake=0.5,
            body={"i": i},
        )
        ledger.commit_verdict(claimed(ledger, job), verdict=record, urls=[])
    page = ledger.list_verdicts(limit=2)
    assert [row.body["i"] for row in page] == [4, 3]
    assert [row.body["i"] for row in ledger.list_verdicts(before=page[-1].seq)] == [2, 1, 0]
    assert [row.body["i"] for row in ledger.list_verdicts(VerdictFilter(words=("suspicious",)))] == [3, 1]


def test_queue_facts_see_live_rows_only(ledger):
    ids = [ledger.submit(submission(f"v{i}", lane="bulk")).ledger_id for i in range(3)]
    claimed(ledger, ids[0])
    facts = ledger.queue_facts()
    assert (facts.queued, facts.leased) == ({"bulk": 2}, {"bulk": 1})
    assert 0 <= facts.oldest_age_seconds["bulk"] < 5


def test_migrations_go_up_and_down_and_match_the_tables(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'm.sqlite3'}")
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    migrate.require_current(engine)
    migrate.downgrade(engine)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with pytest.raises(LedgerSchemaError, match="veriframe migrate"):
        migrate.require_current(engine)
    migrate.upgrade(engine)
    engine.dispose()


def test_the_revision_in_the_code_is_the_newest_migration():
    assert ScriptDirectory.from_config(migrate.alembic_config()).get_current_head() == migrate.HEAD


def test_a_full_disk_is_a_typed_error_and_loses_nothing(tmp_path):
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'full.sqlite3'}", pool_size=1)
    ledger.submit(submission("before"))
    with ledger.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        connection.commit()
    big = {f"k{i}": "x" * 100 for i in range(30)}

    def fill():
        for i in range(200):
            ledger.submit(submission(f"after{i}", attributes=big))

    with pytest.raises(LedgerFullError, match="disk is full"):
        fill()
    assert ledger.latest_job("before") is not None
    ledger.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_an_impossible_url_is_a_settings_error(url):
    with pytest.raises(SettingsError, match="sqlite"):
        make_engine(url)


def plans_of(ledger: Ledger, call) -> list[str]:
    """The query plans of every statement that `call` really sends."""
    sent = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        sent.append((statement, parameters))

    event.listen(ledger.engine, "before_cursor_execute", note)
    call()
    event.remove(ledger.engine, "before_cursor_execute", note)
    with ledger.engine.connect() as connection:
        return [
            " ".join(str(row) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters))
            for statement, parameters in sent
            if not statement.startswith("BEGIN")
        ]


def test_the_scans_touch_live_rows_only(ledger):
    job = ledger.submit(submission()).ledger_id
    due, bump = plans_of(ledger, lambda: ledger.take_due(route="default", page=10, resend_seconds=60))
    assert "COVERING INDEX ix_jobs_due" in due
    assert "ledger_id=?" in bump
    [expired] = plans_of(ledger, lambda: ledger.expire_leases(max_crashes=3, page=10, urls=[], poison_body=dict))
    assert "INDEX ix_jobs_leased" in expired
    [renewed] = plans_of(ledger, lambda: ledger.renew("w1", ledger_ids=[job], lease_seconds=60))
    assert "ledger_id=?" in renewed
    claim, *_ = plans_of(ledger, lambda: ledger.claim(job, owner="w1", lease_seconds=60))
    assert "ledger_id=?" in claim
    assert "SCAN" not in claim
    assert all("COVERING INDEX" in plan or "ix_outbox_pending" in plan for plan in plans_of(ledger, ledger.queue_facts))


def test_a_number_beyond_64_bits_is_the_callers_mistake(ledger):
    with pytest.raises(InvalidMessageError, match="larger"):
        ledger.list_verdicts(before=2**64)
