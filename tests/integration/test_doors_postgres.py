"""Keys, limits and erasures on Postgres: the same promises as on SQLite."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.integration.test_ledger_postgres import ledger, url  # noqa: F401
from tests.workers.test_doors import (  # noqa: F401
    test_a_key_is_on_record_only_as_a_hash,
    test_a_nul_in_an_address_names_nothing,
    test_a_nul_in_what_a_reviewer_writes_is_left_out,
    test_a_number_that_no_ledger_holds_is_the_callers_mistake,
    test_a_quota_counts_new_videos_only_and_all_or_none,
    test_a_tenants_own_limit_wins,
    test_each_tenant_has_a_quota_and_a_batch_fits_whole_or_not_at_all,
    test_keys_end_by_time_and_by_hand,
    test_tenants_never_see_each_other,
    test_the_audit_log_cannot_be_rewritten,
    test_the_largest_number_is_only_not_there,
)
from tests.workers.test_erasure import (  # noqa: F401
    test_a_job_ends_after_its_last_event_and_takes_everything_with_it,
    test_a_worker_that_holds_the_video_writes_nothing_afterwards,
    test_another_tenants_video_of_the_same_name_stays,
    test_dead_letters_end_with_jobs,
    test_letters_that_are_buried_during_the_search_are_found,
    test_nothing_but_the_audit_log_names_an_erased_video,
    test_refused_messages_are_found_in_every_spelling,
    test_the_review_log_stays_closed_after_an_erasure,
    test_verdicts_have_a_time_to_live,
)
from workers.errors import InvalidMessageError
from workers.ledger import Submission
from workers.ledger.doors import record_audit
from workers.ledger.engine import hold_lock
from workers.ledger.submissions import FORGETTING, VIDEO_ERASED, erased_since
from workers.messages import parse_enqueue

pytestmark = pytest.mark.integration


def test_a_nul_would_hold_up_its_batch_so_none_comes_that_far(ledger):  # noqa: F811
    good, bad = parse_enqueue({"video_id": "good"}), parse_enqueue({"video_id": "bad"}).model_copy(update={"source": "a\0b"})
    with pytest.raises(InvalidMessageError, match="can store"):  # what a message past the door would do to its neighbours
        ledger.submit_many([Submission(request=good, door="queue"), Submission(request=bad, door="queue")])
    assert ledger.latest_job("good") is None
    ledger.submit_many([Submission(request=good, door="queue", trace_id="00-\0")])
    assert ledger.latest_job("good").trace_id is None


def test_a_message_waits_for_the_end_of_forgetting_and_is_then_not_taken_in(ledger):  # noqa: F811
    message = Submission(request=parse_enqueue({"video_id": "vid_1"}), door="queue", read_at=time.monotonic())
    with ThreadPoolExecutor(1) as pool, ledger.engine.begin() as forgetting:
        hold_lock(forgetting, FORGETTING)
        taken_in = pool.submit(ledger.submit_many, [message])
        while not forgetting.scalar(text("select count(*) from pg_locks where not granted")):
            time.sleep(0.01)
        record_audit(forgetting, actor="test", action=VIDEO_ERASED, target="vid_1")
        forgetting.commit()
        [outcome] = taken_in.result()
    assert outcome.forgotten
    assert ledger.latest_job("vid_1") is None
    [outcome] = ledger.submit_many([replace(message, read_at=time.monotonic() + 60)])
    assert outcome.created, "read after it was forgotten: sent again"


def test_a_refused_message_waits_for_the_end_of_forgetting_and_is_then_not_buried(ledger):  # noqa: F811
    letter = {"door": "queue", "code": "INVALID_MESSAGE", "message": "no"}
    read_at = time.monotonic()
    with ThreadPoolExecutor(1) as pool, ledger.engine.begin() as forgetting:
        hold_lock(forgetting, FORGETTING)
        buried = pool.submit(ledger.bury_message, b"about vid_1", **letter, read_at=read_at)
        while not forgetting.scalar(text("select count(*) from pg_locks where not granted")):
            time.sleep(0.01)
        record_audit(forgetting, actor="test", action=VIDEO_ERASED, target="vid_1")
        forgetting.commit()
        assert buried.result() is None
    assert ledger.list_dead_letters() == []


def test_a_tenants_video_is_forgotten_while_messages_are_taken_in(ledger):  # noqa: F811
    ledger.submit(Submission(request=parse_enqueue({"video_id": "vid_1"}), door="http", tenant="acme"))
    with ThreadPoolExecutor(1) as pool, ledger.engine.begin() as taking_in:
        hold_lock(taking_in, FORGETTING, shared=True)
        forgotten = pool.submit(ledger.erase_video, "vid_1", tenant="acme", actor="test")
        assert wait([forgotten], timeout=10).done, "queue and stream know no tenants: it waited for a message that cannot be about it"
    assert forgotten.result().jobs == 1


def test_refused_messages_read_no_more_of_the_audit_log_than_its_end(ledger):  # noqa: F811
    old = "insert into audit_log (at, actor, action, target) select n, 'a', 'video_erased', 'v' || n from generate_series(1, 50000) n"
    with ledger.engine.begin() as connection:
        connection.execute(text(old))
    with ledger.engine.begin() as connection:
        connection.execute(text("analyze audit_log"))
    ledger.bury_message(b"x", door="queue", code="INVALID_MESSAGE", message="no", read_at=time.monotonic())
    with ledger.engine.begin() as connection:
        asked = erased_since(connection, time.monotonic()).compile(connection, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.execute(text(f"explain {asked}")).scalars())
    assert "Seq Scan" not in plan, plan
