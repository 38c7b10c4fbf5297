"""How fast are claims with a million rows? `python -m tests.integration.claim_curve [--rows 1000 100000 1000000] [--postgres]`.

Rows: 90 % finished, 10 % waiting. Per size: milliseconds per claim, per dispatch page, per expiry scan, per renewal, and the plans.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event

from tests.integration.servers import PostgresServer
from workers.ledger import Claim, Ledger

COLUMNS = "ledger_id, video_id, source_version, attributes, door, lane, route, state, created_at, due_at, finished_at"
SHAPE = """
  {hex}, 'v' || n, '', '{{}}', 'cli', 'default', 'default',
  case when n = n / 10 * 10 then 'QUEUED' else 'VERDICT' end, n * 1.0, n * 1.0, case when n = n / 10 * 10 then null else n * 1.0 end
"""


def fill(ledger: Ledger, rows: int) -> None:
    """Put rows in by one statement, straight into the table."""
    with ledger.engine.begin() as connection:
        if ledger.engine.dialect.name == "sqlite":
            shape = SHAPE.format(hex="printf('%032x', n)")
            connection.exec_driver_sql(
                f"with recursive c(n) as (select 1 union all select n + 1 from c where n < {rows}) insert into jobs ({COLUMNS}) select {shape} from c"
            )
        else:
            shape = SHAPE.format(hex="lpad(to_hex(n), 32, '0')")
            connection.exec_driver_sql(f"insert into jobs ({COLUMNS}) select {shape} from generate_series(1, {rows}) n")
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze jobs" if ledger.engine.dialect.name != "sqlite" else "analyze")


def milliseconds(call: Callable[[], Any], *, times: int) -> float:
    """Median of several calls."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return sorted(spent)[len(spent) // 2] * 1000


def measure(ledger: Ledger, rows: int) -> dict[str, float]:
    """The calls of a busy minute on one size."""
    waiting = iter(range(10, rows + 1, 10))
    held: list[str] = []

    def claim() -> None:
        got = ledger.claim(f"{next(waiting):032x}", owner="w", lease_seconds=600)
        assert isinstance(got, Claim)
        held.append(got.ledger_id)

    return {
        "rows": rows,
        "claim_ms": milliseconds(claim, times=50),
        "dispatch_page_ms": milliseconds(lambda: ledger.take_due(route="default", page=50, resend_seconds=0), times=9),
        "expiry_scan_ms": milliseconds(lambda: ledger.expire_leases(max_crashes=3, page=50, urls=[], poison_body=lambda _r: {}), times=9),
        "renew_ms": milliseconds(lambda: ledger.renew("w", ledger_ids=held, lease_seconds=600), times=9),
        "count_waiting_ms": milliseconds(ledger.count_waiting, times=5),
    }


def plans(ledger: Ledger) -> dict[str, str]:
    """The real plans of the scans, as the database explains the statements that were really sent."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        sent.append((statement, parameters))

    event.listen(ledger.engine, "before_cursor_execute", note)
    ledger.take_due(route="default", page=50, resend_seconds=0)
    ledger.claim("f" * 32, owner="w", lease_seconds=1)
    event.remove(ledger.engine, "before_cursor_execute", note)
    explain = "explain query plan " if ledger.engine.dialect.name == "sqlite" else "explain "
    found = {}
    with ledger.engine.connect() as connection:
        for statement, parameters in sent:
            if not statement.startswith("BEGIN"):
                rows = connection.exec_driver_sql(explain + statement, parameters).all()
                found[" ".join(statement.split())[:40]] = " / ".join(str(row[-1]).strip() for row in rows)
    return found


def curve(url_of: Callable[[int], str], sizes: list[int]) -> list[dict[str, Any]]:
    results = []
    for rows in sizes:
        ledger = Ledger.open(url_of(rows))
        fill(ledger, rows)
        results.append({**measure(ledger, rows), "plans": plans(ledger)})
        ledger.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    if options.postgres:
        server = PostgresServer().start()
        try:
            import sqlalchemy

            def url_of(rows: int) -> str:
                admin = sqlalchemy.create_engine(server.url, isolation_level="AUTOCOMMIT")
                with admin.connect() as connection:
                    connection.exec_driver_sql(f"create database rows_{rows}")
                admin.dispose()
                return server.url.replace("/postgres", f"/rows_{rows}")

            show(curve(url_of, options.rows))
        finally:
            server.stop()
        return
    with tempfile.TemporaryDirectory(prefix="veriframe-curve-") as folder:
        show(curve(lambda rows: f"sqlite:///{Path(folder) / f'{rows}.sqlite3'}", options.rows))


def show(results: list[dict[str, Any]]) -> None:
    for result in results:
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items() if k != "plans"}))
    print(json.dumps(results[-1]["plans"], indent=1))


if __name__ == "__main__":
    main()
