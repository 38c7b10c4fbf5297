"""A receiver of webhooks that does not answer holds up no other, however its address is written."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import text

from workers.ledger import Ledger, migrate, receiver_of
from workers.ledger.engine import make_engine, writing
from workers.ledger.leases import deliver_to


def add(ledger: Ledger, name: str, url: str) -> None:
    with writing(ledger.engine) as connection:
        deliver_to(connection, ledger_id=name, kind="verdict.completed", urls=[url], body_text="{}")


@pytest.mark.parametrize(
    "slow",
    [
        "https://slow.example/hook",
        "https://slow.example",
        "https://slow.example?job={number}",
        "https://SLOW.example:443/hook",
        "https://slow.example#{number}",
        "http://[2001:db8::1]:8080",
    ],
)
def test_a_receiver_is_one_however_its_address_is_written(slow):
    ledger = Ledger.in_memory()
    for number in range(40):
        add(ledger, f"slow_{number}", slow.format(number=number))
    for number in range(5):
        add(ledger, f"fast_{number}", "https://fast.example/hook")
    running: Counter[str] = Counter()
    num_fast = 0
    for _round in range(4):
        for event in ledger.due_events(page=16 - running.total(), hold_seconds=100, running=running, per_receiver=12):
            if "fast" in event.url:
                num_fast += 1  # answers at once
            else:
                running[receiver_of(event.url)] += 1
    assert num_fast == 5
    assert list(running.values()) == [12]
    ledger.close()


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("HTTPS://Hooks.Example/x/?y", "https://hooks.example:443"),
        ("http://hooks.example:8080", "http://hooks.example:8080"),
        ("https://hooks.example:port/", "https://hooks.example:port/"),
    ],
)
def test_the_spelling_of_a_receiver(url, receiver):
    assert receiver_of(url) == receiver


def test_events_that_wait_during_an_upgrade_get_their_receiver(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    migrate.upgrade(engine, revision="0006")
    columns = "event_id, ledger_id, kind, url, payload, created_at, next_try_at, delivered_at"
    with engine.begin() as connection:
        for name, ended in (("waits", "null"), ("ended", "1")):
            values = f"'{name}', '{name}', 'verdict.completed', 'https://hooks.example/{name}', '{{}}', 0, 0, {ended}"
            connection.execute(text(f"insert into outbox ({columns}) values ({values})"))
    migrate.upgrade(engine)
    with engine.connect() as connection:
        rows = connection.execute(text("select event_id, receiver from outbox order by event_id")).all()
    assert [tuple(row) for row in rows] == [("ended", ""), ("waits", "https://hooks.example:443")]
    engine.dispose()
