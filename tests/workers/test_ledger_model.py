"""The ledger against a model: any interleaving of submits, claims, crashes, stale writes and janitors keeps the promises."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

sys.path.insert(0, str(Path(__file__).parents[2]))  # the history checker of the chaos runs

from tests.chaos.history import broken_promises
from workers.errors import LeaseLostError
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import EnqueueRequest

MAX_CRASHES = 3


class LedgerMachine(RuleBasedStateMachine):
    """What is allowed is kept beside the ledger in plain dictionaries and compared after every step."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger.in_memory()
        self.jobs: dict[str, str] = {}
        self.holder: dict[str, Claim | None] = {}
        self.crashes: dict[str, int] = {}
        self.passing: set[str] = set()
        self.state: dict[str, str] = {}
        self.contents: dict[tuple[str, str], int] = {}

    def teardown(self) -> None:
        self.ledger.close()

    @rule(video=st.integers(0, 4))
    def submit(self, video: int) -> None:
        name = f"v{video}"
        outcome = self.ledger.submit(Submission(request=EnqueueRequest(video_id=name), door="cli"))
        known = self.jobs.get(name)
        assert outcome.created == (known is None or known in self.passing)
        assert outcome.created or outcome.ledger_id == known
        self.jobs[name] = outcome.ledger_id
        assert outcome.state == self.state.setdefault(outcome.ledger_id, "QUEUED")

    @rule(target=claims, video=st.integers(0, 4), worker=st.sampled_from("abc"))
    def claim(self, video: int, worker: str):
        job = self.jobs.get(f"v{video}", "f" * 32)
        got = self.ledger.claim(job, owner=worker, lease_seconds=1000)
        assert isinstance(got, Claim) == (self.state.get(job) == "QUEUED")
        if isinstance(got, Claim):
            self.state[job], self.holder[job] = "LEASED", got
            return got
        return None

    def _write(self, claim: Claim | None, write, state: str) -> None:
        if claim is None:
            return
        held = self.holder.get(claim.ledger_id)
        mine = held is not None and (held.owner, held.fence) == (claim.owner, claim.fence)
        try:
            write(claim)
        except LeaseLostError:
            assert not mine
        else:
            assert mine
            self.state[claim.ledger_id], self.holder[claim.ledger_id] = state, None

    @rule(claim=claims, content=st.sampled_from("xy"))
    def commit(self, claim: Claim | None, content: str) -> None:
        def write(held: Claim) -> None:
            record = VerdictRecord(content_sha256=content * 64, bundle_set="b", policy="p", verdict="authentic", p_fake=0.5, body={})
            is_new = self.ledger.commit_verdict(held, verdict=record, urls=["http://h.example"])
            key = (held.video_id, content)
            assert is_new == (key not in self.contents)
            self.contents[key] = self.contents.get(key, 0) + 1

        self._write(claim, write, "VERDICT")

    @rule(claim=claims, code=st.sampled_from(["NOT_MEDIA", "FETCH_TIMEOUT"]))
    def fail(self, claim: Claim | None, code: str) -> None:
        def write(held: Claim) -> None:
            self.ledger.fail(held, code=code, message="m", body={}, urls=[])
            if code == "FETCH_TIMEOUT":
                self.passing.add(held.ledger_id)

        self._write(claim, write, "FAILED")

    @rule(claim=claims)
    def retry(self, claim: Claim | None) -> None:
        self._write(claim, lambda held: self.ledger.retry(held, code="X", message="m", delay_seconds=0), "QUEUED")

    @rule(claim=claims)
    def release(self, claim: Claim | None) -> None:
        self._write(claim, self.ledger.release, "QUEUED")

    @rule(video=st.integers(0, 4))
    def worker_dies_and_its_lease_runs_out(self, video: int) -> None:
        job = self.jobs.get(f"v{video}")
        if job is None or self.state[job] != "LEASED":
            return
        with self.ledger.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET lease_until = 0 WHERE ledger_id = ?", (job,))

    @rule()
    def janitor(self) -> None:
        for lease in self.ledger.expire_leases(max_crashes=MAX_CRASHES, page=10, urls=[], poison_body=lambda _row: {}):
            self.crashes[lease.ledger_id] = self.crashes.get(lease.ledger_id, 0) + 1
            assert lease.state == ("POISONED" if self.crashes[lease.ledger_id] >= MAX_CRASHES else "QUEUED")
            self.state[lease.ledger_id], self.holder[lease.ledger_id] = lease.state, None

    @rule(worker=st.sampled_from("abc"))
    def heartbeat(self, worker: str) -> None:
        held = {job: c.fence for job, c in self.holder.items() if c is not None and c.owner == worker and self.state[job] == "LEASED"}
        assert self.ledger.renew(worker, ledger_ids=list(self.jobs.values()), lease_seconds=1000) == held

    @rule()
    def dispatch(self) -> None:
        for route in ("default", "isolate"):
            for due in self.ledger.take_due(route=route, page=10, resend_seconds=0):
                assert self.state[due.ledger_id] == "QUEUED"

    @invariant()
    def states_agree(self) -> None:
        for job, state in self.state.items():
            row = self.ledger.job(job)
            assert row is not None
            assert row.state == state

    @invariant()
    def promises_hold(self) -> None:
        finished = [job for job, state in self.state.items() if state not in ("QUEUED", "LEASED")]
        assert broken_promises(self.ledger.history(), accepted=finished) == []


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestAnyInterleavingKeepsThePromises = LedgerMachine.TestCase
