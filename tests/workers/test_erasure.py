"""Deletion by ID is complete: after it no table but the audit log, and no message in the broker, names the video."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError

from api_caller import KEYS, assert_typed, make_caller
from verdict_builders import put_verdict
from workers import janitor
from workers.broker import MemoryDispatcher
from workers.errors import LeaseLostError
from workers.forget import forget_video
from workers.ledger import Claim, Ledger, Submission, VerdictRecord, erasure
from workers.ledger.records import ShadowRecord
from workers.ledger.schema import metadata
from workers.messages import names_video, parse_enqueue
from workers.messages.events import video_id_of_object
from workers.metrics import Metrics
from workers.settings import Settings

DOOMED, KEPT = "vid_doomed", "vid_doomedtoo"  # one name within the other: nothing is deleted by likeness
LINKING = {"ledger_id", "video_id", "verdict_seq"}
ADMIN = {"x-api-key": "admin-secret"}


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def live_a_full_life(ledger: Ledger, video_id: str, *, tenant: str = "") -> set[str]:
    """Leave a trace of one video in every table that can hold one; gives its job IDs."""
    hook = "http://127.0.0.1:1/hook"
    request = parse_enqueue({"video_id": video_id, "source": f"/media/{video_id}.mp4", "callback_url": hook})
    job = ledger.submit(Submission(request=request, door="http", key=f"key-{video_id}-{tenant}", tenant=tenant)).ledger_id
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = {"video_id": video_id, "reason_codes": [], "evidence": [{"thumbnail": f"face of {video_id}"}]}
    shadow = ShadowRecord(bundle_set="next", verdict="authentic", p_fake=0.1)
    record = VerdictRecord(content_sha256="c" * 64, bundle_set="b", policy="p", verdict="manipulated", p_fake=0.9, body=body, shadow=shadow)
    ledger.commit_verdict(claim, verdict=record, urls=[hook])
    item = ledger.review_item_of(video_id)
    assert item is not None
    ledger.review_decide(item.verdict_seq, actor="ana", decision="fake", note=f"I know the person in {video_id}")
    ledger.want_explanation(job, seconds=60)
    ledger.put_explanation(job, body={"video_id": video_id}, clip=video_id.encode(), seconds=60)
    again = ledger.submit(
        Submission(request=parse_enqueue({"video_id": video_id, "content_sha256": "d" * 64}), door="queue", tenant=tenant)
    )
    lost = ledger.claim(again.ledger_id, owner="w", lease_seconds=60)
    assert isinstance(lost, Claim)
    ledger.fail(lost, code="DECODE_ERROR", message=f"{video_id} is broken", body={"video_id": video_id}, urls=[hook])
    ledger.bury_message(
        json.dumps({"video_id": video_id, "lane": "warp"}).encode(), door="queue", code="INVALID_MESSAGE", message="no lane"
    )
    return {job, again.ledger_id}


def tables_that_name(ledger: Ledger, *needles: str) -> dict[str, int]:
    """Rows per table in which any cell holds one of the needles as a whole word."""
    found = {}
    with ledger.engine.connect() as connection:
        for table in metadata.sorted_tables:
            cells = [" ".join(str(cell) for cell in row).replace(KEPT, "other") for row in connection.execute(select(table))]
            found[table.name] = sum(any(needle in row for needle in needles) for row in cells)
    return {name: count for name, count in found.items() if count}


def test_the_life_leaves_a_trace_in_every_table_that_can_hold_one(ledger):
    jobs = live_a_full_life(ledger, DOOMED)
    seq = ledger.review_item_of(DOOMED).verdict_seq
    with ledger.engine.connect() as connection:
        filled = {
            table.name
            for table in metadata.sorted_tables
            if set(table.columns.keys()) & LINKING and connection.execute(select(table)).first()
        }
    linked = {table.name for table in metadata.sorted_tables if set(table.columns.keys()) & LINKING}
    assert filled == linked - {"erasure_slips"}, "a new table links to videos: let the life above fill it and the erasure empty it"
    assert seq > 0
    assert len(jobs) == 2


def test_nothing_but_the_audit_log_names_an_erased_video(ledger):
    kept_jobs = live_a_full_life(ledger, KEPT)
    jobs = live_a_full_life(ledger, DOOMED)
    before = tables_that_name(ledger, *kept_jobs)
    erased = ledger.erase_video(DOOMED, actor="key:abcd")
    assert (erased.jobs, erased.verdicts) == (2, 1)
    assert erased.reviews >= 2
    assert tables_that_name(ledger, DOOMED, *jobs) == {"audit_log": 1}
    [entry] = ledger.audit_entries(target=DOOMED)
    assert (entry.actor, entry.action, entry.detail["verdicts"]) == ("key:abcd", "video_erased", 1)
    assert tables_that_name(ledger, *kept_jobs) == before
    assert ledger.review_item_of(KEPT) is not None
    assert ledger.erase_video(DOOMED, actor="key:abcd").is_empty


def celery_shaped(kwargs, *, task="veriframe.unknown"):
    body = base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode()
    headers = {"task": task, "id": "1"}
    return json.dumps({"body": body, "content-type": "application/json", "headers": headers, "properties": {"body_encoding": "base64"}})


def s3_shaped(key):
    return json.dumps({"Records": [{"eventName": 1, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}]})


NAMING = {
    "celery, in base64": celery_shaped({"video_id": DOOMED, "lane": "warp"}),
    "celery, as a path": celery_shaped({"video_id": "", "source": f"/media/{DOOMED}.mp4"}),
    "celery, cut in its body": celery_shaped({"video_id": DOOMED, "lane": "warp", "more": "x" * 900})[:400],
    "celery, in base64 twice": celery_shaped({"wrapped": celery_shaped({"video_id": DOOMED})}),
    "json in json": json.dumps({"message": json.dumps({"video_id": DOOMED})}),
    "escaped": json.dumps({"video_id": DOOMED}).replace("d", "\\u0064"),
    "percent-encoded": s3_shaped(f"uploads%2F{DOOMED}.mp4"),
    "a notification": s3_shaped(f"uploads/{DOOMED}.mp4"),
    "no json": f"please screen {DOOMED}, thanks",
}


@pytest.mark.parametrize("shape", NAMING)
def test_refused_messages_are_found_in_every_spelling(ledger, shape):
    likeness = NAMING[shape].replace(DOOMED, KEPT) if DOOMED in NAMING[shape] else celery_shaped({"video_id": KEPT})
    for number, raw in enumerate((NAMING[shape], likeness, celery_shaped({"video_id": "another"}))):
        ledger.bury_message(raw.encode(), door="queue", code="INVALID_MESSAGE", message=f"refused {number}")
    erased = ledger.erase_video(DOOMED, actor="x")
    assert erased.other == 1
    assert {letter["message"] for letter in ledger.list_dead_letters()} == {"refused 1", "refused 2"}


@pytest.mark.parametrize("shape", NAMING)
def test_a_message_that_was_read_before_the_erasure_is_not_buried_after_it(ledger, shape):
    raw, letter = NAMING[shape].encode(), {"door": "queue", "code": "INVALID_MESSAGE"}
    read_at = time.monotonic()
    ledger.erase_video(DOOMED, actor="x", messages=1)
    assert ledger.bury_message(raw, **letter, message="no", read_at=read_at) is None
    assert ledger.bury_message(b"who knows", **letter, message=f"no lane for {DOOMED}", read_at=read_at) is None
    assert ledger.list_dead_letters() == []
    assert ledger.bury_message(b"who knows", **letter, message=f"no lane for {KEPT}", read_at=read_at) is True
    assert ledger.bury_message(b"who knows", **letter, message=f"no lane for {KEPT}", read_at=read_at) is False
    assert ledger.bury_message(raw, **letter, message="no", read_at=time.monotonic() + 60) is True, "read later: sent again"


def test_a_tenants_erasure_hides_no_message(ledger):
    read_at = time.monotonic()
    ledger.erase_video(DOOMED, tenant="acme", actor="x", messages=1)
    assert ledger.bury_message(DOOMED.encode(), door="queue", code="INVALID_MESSAGE", message="no", read_at=read_at) is True


def test_letters_that_are_buried_during_the_search_are_found(ledger, monkeypatch):
    def bury(number):
        ledger.bury_message(f"{number}: {DOOMED}".encode(), door="queue", code="INVALID_MESSAGE", message="no")

    def search_and_bury(connection, video_id, *, where):
        found = search(connection, video_id, where=where)
        sizes.append(len(found))
        if len(sizes) == 1:
            bury(2)
        return found

    sizes, search = [], erasure._letters_that_name
    monkeypatch.setattr(erasure, "_letters_that_name", search_and_bury)
    bury(1)
    assert ledger.erase_video(DOOMED, actor="x").other == 2
    assert sizes == [1, 1], "the second search, which holds others up, reads only what is new"
    assert ledger.list_dead_letters() == []


def test_an_object_whose_id_is_a_hash_is_found_by_it(ledger):
    key = "Ünplain name.mp4"
    ledger.bury_message(s3_shaped(quote(key)).encode(), door="stream", code="INVALID_MESSAGE", message="no")
    assert ledger.erase_video(video_id_of_object("b", "other.mp4"), actor="x").is_empty
    assert ledger.erase_video(video_id_of_object("b", key), actor="x").other == 1


@pytest.mark.parametrize("key", ["alice/clip.mp4", "a/Ünplain name.mp4"])
def test_an_object_is_found_in_a_letter_without_its_end_and_its_namesake_is_not(ledger, key):
    mine, theirs = (s3_shaped(quote(each)).replace("}}}]}", '}}},{"s3": {"bucket": {"name": "b"') for each in (key, "bob/" + key))
    for raw in (mine, theirs):
        ledger.bury_message(raw.encode(), door="stream", code="INVALID_MESSAGE", message="no")
    assert ledger.erase_video(video_id_of_object("b", key), actor="x").other == 1
    assert [letter["payload"] for letter in ledger.list_dead_letters()] == [theirs]


def test_a_refused_key_that_is_no_text_hides_no_other_letter(ledger):
    key = "Ünplain name.mp4"
    for name in ("\ud800.mp4", key):
        ledger.bury_message(s3_shaped(name).encode(), door="stream", code="INVALID_MESSAGE", message="no")
    assert ledger.erase_video(video_id_of_object("b", key), actor="x").other == 1


@given(st.binary(max_size=200))
def test_no_bytes_make_the_search_fail(raw):
    assert names_video(raw, "vid_1") in (True, False)
    assert names_video(base64.b64encode(b"xyz " + raw + b" vid_1"), "vid_1")


def test_the_review_log_stays_closed_after_an_erasure(ledger):
    live_a_full_life(ledger, DOOMED)
    live_a_full_life(ledger, KEPT)
    ledger.erase_video(DOOMED, actor="x")
    for statement in ("delete from review_log", "update review_log set note = ''"):
        with pytest.raises(DBAPIError, match="append-only"), ledger.engine.begin() as connection:
            connection.execute(text(statement))


def test_another_tenants_video_of_the_same_name_stays(ledger):
    live_a_full_life(ledger, DOOMED, tenant="bolt")
    ledger.submit(Submission(request=parse_enqueue({"video_id": DOOMED}), door="http", tenant="acme"))
    assert ledger.erase_video(DOOMED, tenant="acme", actor="x").jobs == 1
    assert ledger.latest_job(DOOMED, tenant="acme") is None
    assert ledger.latest_job(DOOMED, tenant="bolt") is not None


def test_a_worker_that_holds_the_video_writes_nothing_afterwards(ledger):
    job = ledger.submit(Submission(request=parse_enqueue({"video_id": DOOMED}), door="http")).ledger_id
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    ledger.erase_video(DOOMED, actor="x")
    record = VerdictRecord(content_sha256="c" * 64, bundle_set="b", policy="p", verdict="authentic", p_fake=0.1, body={})
    with pytest.raises(LeaseLostError):
        ledger.commit_verdict(claim, verdict=record, urls=["http://127.0.0.1:1/"])
    assert tables_that_name(ledger, DOOMED, job) == {"audit_log": 1}
    assert ledger.renew("w", ledger_ids=[claim.ledger_id], lease_seconds=60) == {}


def test_a_job_ends_after_its_last_event_and_takes_everything_with_it(ledger):
    """Nothing may be left that no job and no verdict leads to: it could not be found when the video is to be forgotten."""
    live_a_full_life(ledger, DOOMED)
    with ledger.engine.begin() as connection:
        connection.execute(text("delete from dead_letters where ledger_id is null"))
    assert ledger.retire(days=-1) == 0, "its events are still being delivered"
    with ledger.engine.begin() as connection:
        connection.execute(text("update outbox set given_up_at = 1"))
    assert ledger.retire(days=-1) == 2
    left = {"verdicts", "review_items", "review_log", "shadow_verdicts", "explanations"}
    assert set(tables_that_name(ledger, DOOMED)) <= left
    ledger.erase_video(DOOMED, actor="x")
    assert set(tables_that_name(ledger, DOOMED)) == {"audit_log"}


def test_verdicts_have_a_time_to_live(ledger):
    live_a_full_life(ledger, DOOMED)
    assert ledger.retire_verdicts(days=1).verdicts == 0
    with ledger.engine.begin() as connection:
        connection.execute(text("update outbox set delivered_at = 1"))
    ledger.retire(days=-1)
    live_a_full_life(ledger, KEPT)
    with ledger.engine.begin() as connection:
        connection.execute(text("update verdicts set created_at = created_at - 86400 * 400 where video_id = :doomed"), {"doomed": DOOMED})
    assert ledger.retire_verdicts(days=365).verdicts == 1
    assert tables_that_name(ledger, DOOMED) == {}
    assert ledger.review_item_of(KEPT) is not None
    assert ledger.audit_entries(target="verdicts")[0].action == "retired"


def test_a_verdict_that_must_wait_for_its_job_holds_up_no_other(ledger):
    put_verdict(ledger, DOOMED)
    live_a_full_life(ledger, KEPT)
    with ledger.engine.begin() as connection:
        connection.execute(text("update verdicts set created_at = seq"))
        connection.execute(text("delete from jobs where video_id = :kept"), {"kept": KEPT})
    assert ledger.retire_verdicts(days=1, page=1).verdicts == 1
    assert ledger.latest_job(DOOMED).body is not None


def test_retention_goes_on_at_once_while_pages_are_full(ledger, monkeypatch):
    monkeypatch.setattr(janitor, "_RETIRE_PAGE", 2)
    monkeypatch.setattr(janitor, "_RETIRE_AGAIN_SECONDS", 0.0)
    for number in range(5):
        put_verdict(ledger, f"vid_{number}")
    with ledger.engine.begin() as connection:
        connection.execute(text("update jobs set finished_at = 1"))
        connection.execute(text("update verdicts set created_at = 1"))
        connection.execute(text("update outbox set delivered_at = 1"))
    leading = janitor.Janitor(ledger, MemoryDispatcher(), client=None, settings=Settings(), metrics=Metrics(), owner="j")
    left = []
    for _step in range(4):
        leading.step()
        left.append(sum(ledger.count_states().values()))
    assert left == [3, 1, 0, 0], "a page a step, so that the other duties come in between"
    assert ledger.list_verdicts() == []


def test_dead_letters_end_with_jobs(ledger):
    ledger.bury_message(b"who knows", door="queue", code="INVALID_MESSAGE", message="no")
    ledger.retire(days=1)
    assert len(ledger.list_dead_letters()) == 1
    ledger.retire(days=-1)
    assert ledger.list_dead_letters() == []


def test_a_verdict_never_goes_before_its_job(ledger):
    put_verdict(ledger, DOOMED)
    with ledger.engine.begin() as connection:
        connection.execute(text("update verdicts set created_at = 0"))
    assert ledger.retire_verdicts(days=1).verdicts == 0
    assert ledger.latest_job(DOOMED).body is not None
    with pytest.raises(ValueError, match="verdict_retention_days"):
        Settings(retention_days=90, verdict_retention_days=30)


def test_delete_over_http(ledger):
    api = make_caller(ledger, api_keys=KEYS)
    live_a_full_life(ledger, DOOMED)
    assert_typed(api.call("DELETE", f"/v1/videos/{DOOMED}", headers={"x-api-key": "read-secret"}), 403, "FORBIDDEN")
    done = api.call("DELETE", f"/v1/videos/{DOOMED}", headers=ADMIN)
    assert done.status_code == 200
    assert done.json()["removed"]["verdicts"] == 1
    assert_typed(api.get(f"/v1/videos/{DOOMED}", headers=ADMIN), 404, "UNKNOWN_VIDEO")
    assert_typed(api.call("DELETE", f"/v1/videos/{DOOMED}", headers=ADMIN), 404, "UNKNOWN_VIDEO")
    assert_typed(api.call("DELETE", "/v1/videos/..%2Fetc", headers=ADMIN), 404, "NOT_FOUND")
    assert_typed(api.call("DELETE", "/v1/videos/a%00b", headers=ADMIN), 404, "UNKNOWN_VIDEO")
    assert ledger.audit_entries()[0].actor.startswith("key:settings:")


def test_without_a_broker_only_the_ledger_is_asked(ledger):
    live_a_full_life(ledger, DOOMED)
    assert forget_video(ledger, None, DOOMED, actor="x").messages == 0


def test_to_forget_reads_no_table_to_its_end(ledger):
    """Retention holds the only write lock meanwhile: what it takes may not grow with what is on record."""
    put_verdict(ledger, DOOMED)
    with ledger.engine.begin() as connection:
        connection.execute(text("update outbox set delivered_at = 1"))
    sent = []
    event.listen(
        ledger.engine, "before_cursor_execute", lambda _c, _cursor, statement, parameters, *_: sent.append((statement, parameters))
    )
    assert ledger.retire(days=-1) == 1
    assert ledger.retire_verdicts(days=-1).verdicts == 1
    ledger.erase_video(KEPT, actor="x")
    deletes = [(statement, parameters) for statement, parameters in sent if statement.startswith("DELETE")]
    with ledger.engine.connect() as connection:
        plans = {
            str(row.detail)
            for statement, parameters in deletes
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        }
    allowed = ("SCAN login_links", "SCAN tenant_usage", "SCAN erasure_slips")  # short: people who sign in, tenants' last days, empty
    assert [plan for plan in sorted(plans) if plan.startswith("SCAN") and not plan.startswith(allowed)] == []
    assert any("ix_outbox_job" in plan for plan in plans)
