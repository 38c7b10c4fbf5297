"""The ledger's whole protocol on a real Postgres server: the very tests that run on SQLite, with another fixture."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, insert, inspect, text
from sqlalchemy.engine import make_url

from tests.workers.test_ledger import (  # noqa: F401
    test_a_callback_hears_of_a_judgement_that_was_on_record,
    test_a_claim_is_exclusive_and_terminal_states_stay,
    test_a_clock_ahead_expires_no_lease,
    test_a_crash_suspect_goes_to_the_isolate_route,
    test_a_job_that_failed_for_a_passing_reason_is_tried_again_when_it_is_submitted_again,
    test_a_job_that_failed_for_good_or_by_poison_stays_so,
    test_a_job_that_was_requeued_is_not_tried_again_beside_it,
    test_a_malformed_message_is_recorded_once,
    test_a_retry_waits_its_delay_and_a_release_does_not_count,
    test_a_stale_worker_writes_nothing,
    test_an_event_that_is_delivered_again_tries_nothing_again,
    test_an_event_that_was_erased_on_its_way_leaves_no_trace,
    test_batch_with_a_repeated_id_makes_one_job,
    test_due_rows_come_oldest_first_once_per_resend_time,
    test_fifty_threads_with_one_id_make_one_job,
    test_idempotency_key_gives_the_job_back_or_refuses_another_request,
    test_many_who_submit_a_failed_job_again_at_once_make_one_job,
    test_one_leader_at_a_time_by_the_database_clock,
    test_outbox_postpones_and_gives_up_with_a_dead_letter,
    test_outcomes_come_in_the_callers_order,
    test_queue_facts_see_live_rows_only,
    test_renewal_keeps_a_lease_and_tells_what_is_lost,
    test_retention_removes_finished_jobs_and_keeps_verdicts,
    test_same_video_twice_is_one_job,
    test_the_same_judgement_is_published_once,
    test_three_dead_leases_poison_a_video_and_say_so_once,
    test_verdicts_are_listed_by_cursor,
)
from tests.workers.test_queue_facts import (  # noqa: F401
    test_a_video_that_pauses_before_another_try_does_not_wait_for_a_worker,
)
from tests.workers.test_screening import Scripted, verdict
from workers.errors import IdempotencyConflictError, InvalidMessageError, LedgerUnavailableError
from workers.ledger import Ledger, Submission, migrate
from workers.ledger.engine import make_engine
from workers.ledger.schema import jobs, metadata
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.screening import Screening
from workers.settings import Settings
from workers.sources import ConfiguredSources

pytestmark = pytest.mark.integration
NUMBER = iter(range(10_000))


@pytest.fixture
def url(postgres):
    """A fresh database."""
    name = f"test_{next(NUMBER)}"
    admin = create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"create database {name}"))
    admin.dispose()
    return make_url(postgres.url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def ledger(url):
    opened = Ledger.open(url)
    yield opened
    opened.close()


def test_migrations_go_up_and_down_and_match_the_tables(url):
    engine = make_engine(url)
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    migrate.downgrade(engine)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(engine)
    migrate.require_current(engine)
    engine.dispose()


def test_a_plain_postgres_url_is_taken(url):
    ledger = Ledger.open(url.replace("postgresql+psycopg", "postgresql"))
    assert ledger.count_waiting() == 0
    ledger.close()


def test_a_database_that_is_down_is_a_typed_error():
    engine = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(LedgerUnavailableError, match="resumes by itself"):
        Ledger(engine).submit(Submission(request=EnqueueRequest(video_id="a"), door="cli"))
    engine.dispose()


def test_a_number_beyond_64_bits_is_the_callers_mistake(ledger):
    with pytest.raises(InvalidMessageError, match="can store"):
        ledger.list_verdicts(before=2**64)


def test_batches_that_share_videos_wait_for_each_other_in_one_order(ledger):
    def job(number):
        row = {"ledger_id": f"{number:032x}", "video_id": f"v{number}", "door": "cli", "lane": "bulk", "route": "bulk", "state": "QUEUED"}
        return insert(jobs).values(created_at=0.0, due_at=0.0, **row)

    with ThreadPoolExecutor(1) as pool, ledger.engine.begin() as another_batch:
        another_batch.execute(job(1))
        mine = pool.submit(ledger.submit_many, [Submission(request=EnqueueRequest(video_id=name), door="cli") for name in ("v2", "v1")])
        while not another_batch.scalar(text("select count(*) from pg_locks where not granted")):
            time.sleep(0.01)
        another_batch.execute(job(2))  # held by `mine` already, both would wait for ever
        another_batch.commit()
        outcomes = mine.result()
    assert [outcome.ledger_id for outcome in outcomes] == [f"{number:032x}" for number in (2, 1)]


def test_a_batch_has_more_videos_than_a_statement_parameters(ledger):
    batch = [Submission(request=EnqueueRequest(video_id=f"v{number}"), door="stream", key=f"e{number}") for number in range(66_000)]
    assert sum(outcome.created for outcome in ledger.submit_many(batch)) == len(batch)
    assert not any(outcome.created for outcome in ledger.submit_many(batch))


def test_of_two_requests_with_one_key_at_once_one_is_refused(ledger):
    def submit(number, video_id):
        both_are_here.wait()
        asked = Submission(request=EnqueueRequest(video_id=video_id), door="http", key=f"http:{number}", key_sha256=video_id)
        try:
            return ledger.submit(asked).created
        except IdempotencyConflictError:
            return "refused"

    ledger.warm(2)
    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            both_are_here = threading.Barrier(2)
            answers = [pool.submit(submit, number, f"v{number}_{each}") for each in range(2)]
            assert {answer.result() for answer in answers} == {True, "refused"}
    assert ledger.count_waiting() == 10


def test_a_restarted_database_costs_no_request(url, ledger, postgres):
    ledger.submit(Submission(request=EnqueueRequest(video_id="before"), door="cli"))
    admin = create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        name = make_url(url).database
        connection.execute(text("select pg_terminate_backend(pid) from pg_stat_activity where datname = :name"), {"name": name})
    admin.dispose()
    ledger.submit(Submission(request=EnqueueRequest(video_id="after"), door="cli"))
    assert ledger.count_waiting() == 2


def demote(ledger: Ledger) -> None:
    """Make the one pooled connection answer as if its server had become a standby."""
    with ledger.engine.connect() as connection:
        connection.exec_driver_sql("set default_transaction_read_only = on")
        connection.commit()


def test_a_connection_to_a_demoted_primary_is_left_for_the_new_one(ledger):
    demote(ledger)
    with pytest.raises(LedgerUnavailableError, match="read-only"):
        ledger.submit(Submission(request=EnqueueRequest(video_id="during"), door="cli"))
    ledger.submit(Submission(request=EnqueueRequest(video_id="after"), door="cli"))
    assert ledger.count_waiting() == 1


def test_a_verdict_outlives_a_failover(ledger, tmp_path):
    (tmp_path / "vid.mp4").write_bytes(b"bytes")

    class FailsOver(Scripted):
        def screen(self, file, **options):
            demote(ledger)
            return super().screen(file, **{**options, "deadline_seconds": 9})

    settings = Settings(media_template=f"{tmp_path}/{{video_id}}.mp4", media_roots=(tmp_path,), lease_seconds=5)
    sources = ConfiguredSources(settings)
    screening = Screening(ledger=ledger, screener=FailsOver(verdict()), sources=sources, metrics=Metrics(), settings=settings, owner="w1")
    job = ledger.submit(Submission(request=EnqueueRequest(video_id="vid"), door="cli")).ledger_id
    assert screening.run(job, lane="default") == "verdict"


def test_a_standby_is_no_ledger(url, ledger):
    with ledger.engine.connect() as connection:
        connection.exec_driver_sql(f"alter database {make_url(url).database} set default_transaction_read_only = on")
        connection.commit()
    with pytest.raises(LedgerUnavailableError, match="read-only"):
        Ledger.open(url)
    Ledger.open(f"{url}?target_session_attrs=any", create=False).close()


def test_a_silent_server_is_noticed(ledger, url):
    with ledger.engine.connect() as connection, socket.socket(fileno=os.dup(connection.connection.dbapi_connection.fileno())) as wire:
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert connection.scalar(text("show statement_timeout")) == "1min"
    other = make_engine(f"{url}?options=-c%20statement_timeout%3D7s")
    with other.connect() as connection:
        assert connection.scalar(text("show statement_timeout")) == "7s"
    other.dispose()
