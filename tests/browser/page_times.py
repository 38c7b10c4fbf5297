"""Server time of the pages with many verdicts on record: every page is rendered whole, through the application, without a socket."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from sqlalchemy import Connection, insert

from tests.browser.world import make_control
from tests.chaos.report import Report
from tests.integration.servers import PostgresServer
from verdict_builders import made_body
from workers.ledger import Ledger
from workers.ledger.review_schema import review_items, review_log
from workers.ledger.schema import jobs, verdicts
from workers.settings import Settings
from workers.web.app import create_app

LIMIT_MS = 300
_WORDS = ("suspicious", "manipulated", "suspicious", "inconclusive")
_DECISIONS = ("fake", "clean", "unsure")
_CHUNK = 2000
_REPEATS = 20


def measure(report: Report, *, num_verdicts: int) -> None:
    """Fill a ledger with open verdicts, as if nobody had reviewed for weeks, and a fifth more that were decided; time the pages."""
    with tempfile.TemporaryDirectory() as folder:
        _measure_on(report, f"sqlite:///{folder}/ledger.sqlite3", Path(folder), "SQLite", num_verdicts=num_verdicts)
    if PostgresServer.find_binaries() is None:
        return
    server = PostgresServer().start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _measure_on(report, server.url, Path(folder), "Postgres", num_verdicts=num_verdicts)
    finally:
        server.stop()


def _measure_on(report: Report, url: str, folder: Path, name: str, *, num_verdicts: int) -> None:
    ledger = Ledger.open(url)
    _fill(ledger, num_verdicts)
    app = create_app(make_control(ledger, Settings(state_dir=folder)))
    times = asyncio.run(_times(app, ledger, num_verdicts))
    for page, values in times.items():
        p95 = statistics.quantiles(values, n=20)[-1]
        what = f"{page}, {num_verdicts:,} verdicts waiting, {name}: p95 of {len(values)}"
        report.at_most(what, p95, "ms", LIMIT_MS)
        report.detail.setdefault("median_ms", {})[f"{page}, {name}"] = round(statistics.median(values), 1)
    ledger.close()


async def _times(app: object, ledger: Ledger, num_verdicts: int) -> dict[str, list[float]]:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    some = f"/review/videos/vid_{num_verdicts // 2:07d}"
    pages = {
        "queue page": ["/review/", f"/review/?after={num_verdicts // 2}"],
        "queue page, one word": ["/review/?word=inconclusive", "/review/?word=manipulated&reading=first"],
        "queue page, what I can take": ["/review/?who=free", "/review/?who=mine"],
        "video page without media": [some],
        "search": ["/review/search?q=" + f"{num_verdicts // 3:064x}"],
        "threshold page": ["/review/thresholds?review=0.5&fake=0.7"],
        "log": ["/review/log"],
        "agreement": ["/review/agreement"],
        "list of verdicts, filters that fit": ["/v1/verdicts", "/v1/verdicts?verdict=suspicious&verdict=manipulated&p_fake_min=0.8"],
        "list of verdicts, filters that fit nothing": ["/v1/verdicts?reviewed=yes", "/v1/verdicts?video_id_prefix=x&bundle_set=y"],
    }
    found: dict[str, list[float]] = {}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", follow_redirects=False) as client:
        await client.post(f"/review/login/{ledger.make_login('ana', seconds=600)}")
        for page, paths in pages.items():
            found[page] = []
            for path in paths:
                await client.get(path)  # templates are compiled once per process
            for _ in range(_REPEATS):
                for path in paths:
                    started = time.perf_counter()
                    answer = await client.get(path)
                    found[page].append((time.perf_counter() - started) * 1000)
                    assert answer.status_code in (200, 303), (path, answer.status_code)
                    assert "login" not in answer.headers.get("location", "")
    return found


def _fill(ledger: Ledger, count: int) -> None:
    template = json.dumps(made_body("VIDEO", peaks=(0.7, 0.3, 0.2)).to_json(), separators=(",", ":"))
    with ledger.engine.begin() as connection:
        for chunk in _chunks(count):
            _insert(connection, [_rows(number, template) for number in chunk])
        decided = range(count + 1, count + count // 5 + 1)
        _insert(connection, [_decided(_rows(number, template)) for number in decided])
        connection.execute(insert(review_log), [entry for number in decided for entry in _entries(number)])
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM ANALYZE")  # as autovacuum does by itself after a while


def _insert(connection: Connection, rows: list[tuple[dict, dict, dict]]) -> None:
    for table, place in ((jobs, 0), (verdicts, 1), (review_items, 2)):
        connection.execute(insert(table), [row[place] for row in rows])


def _decided(rows: tuple[dict, dict, dict]) -> tuple[dict, dict, dict]:
    job, verdict, item = rows
    decision = _DECISIONS[item["verdict_seq"] % 3]
    return job, verdict, {**item, "state": "DECIDED", "decision": decision, "decided_by": "ana", "decided_at": item["opened_at"]}


def _entries(number: int) -> list[dict]:
    entry = {"verdict_seq": number, "video_id": f"vid_{number:07d}", "kind": "decided", "at": time.time()}
    first = {**entry, "actor": "ana", "reading": "first", "decision": _DECISIONS[number % 3]}
    return [first] if number % 5 else [first, {**entry, "actor": "ben", "reading": "second", "decision": _DECISIONS[number % 2]}]


def _chunks(count: int) -> Iterator[range]:
    for start in range(1, count + 1, _CHUNK):
        yield range(start, min(start + _CHUNK, count + 1))


def _rows(number: int, template: str) -> tuple[dict, dict, dict]:
    video_id, ledger_id, word = f"vid_{number:07d}", f"{number:032x}", _WORDS[number % len(_WORDS)]
    p_fake = 0.6 + 0.4 * (number * 7919 % 1000) / 1000
    created_at = time.time() - 3600 * 24 * 30 + number
    job = {
        "ledger_id": ledger_id,
        "video_id": video_id,
        "door": "http",
        "lane": "default",
        "route": "default",
        "state": "VERDICT",
        "created_at": created_at,
        "due_at": created_at,
        "finished_at": created_at,
        "verdict_seq": number,
    }
    verdict = {
        "seq": number,
        "ledger_id": ledger_id,
        "video_id": video_id,
        "content_sha256": f"{number:064x}",
        "bundle_set": "default@0123456789ab",
        "policy": "two-thresholds/4",
        "verdict": word,
        "p_fake": p_fake,
        "body": template.replace("VIDEO", video_id),
        "created_at": created_at,
    }
    item = {
        "verdict_seq": number,
        "ledger_id": ledger_id,
        "video_id": video_id,
        "word": word,
        "p_fake": p_fake,
        "reasons": "SCORE_IN_BAND",
        "opened_at": created_at,
        "state": "OPEN",
        "reading": "first",
    }
    return job, verdict, item
