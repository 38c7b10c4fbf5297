"""Claims and scans cost the same with many finished rows; `python -m tests.integration.claim_curve` prints the curve up to a million."""

from __future__ import annotations

import re

import pytest

from tests.integration.claim_curve import curve

pytestmark = pytest.mark.integration


def test_claims_stay_fast_on_sqlite(tmp_path):
    small, large = curve(lambda rows: f"sqlite:///{tmp_path / f'{rows}.sqlite3'}", [1_000, 50_000])
    assert large["claim_ms"] < max(5.0, small["claim_ms"] * 5)
    assert large["expiry_scan_ms"] < max(5.0, small["expiry_scan_ms"] * 5)
    due = next(plan for statement, plan in large["plans"].items() if statement.startswith("SELECT jobs.ledger_id"))
    assert "COVERING INDEX ix_jobs_due" in due


def test_claims_stay_fast_on_postgres(postgres):
    import sqlalchemy

    def url_of(rows: int) -> str:
        admin = sqlalchemy.create_engine(postgres.url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"create database curve_{rows}")
        admin.dispose()
        return postgres.url.replace("/postgres", f"/curve_{rows}")

    small, large = curve(url_of, [1_000, 50_000])
    assert large["claim_ms"] < max(8.0, small["claim_ms"] * 5)
    due = next(plan for statement, plan in large["plans"].items() if statement.startswith("SELECT jobs.ledger_id"))
    assert "Index Only Scan using ix_jobs_due" in due
    assert re.search(r"Index Cond: [^/]*due_at <=", due), due  # otherwise an idle look walks every waiting row
