"""How far readers agree is computed from second readings that chance drew, and from labels only."""

from __future__ import annotations

import random

import pytest

from verdict_builders import put_verdict
from workers.ledger import Ledger, LogEntry
from workers.web.agreement import Agreement, agreement_of, kappa


def said(log: list[LogEntry], video: int, actor: str, decision: str, reading: str = "first") -> None:
    log.append(entry(log, video, actor, "decided", reading=reading, decision=decision))


def asked(log: list[LogEntry], video: int, actor: str = "sampling") -> None:
    log.append(entry(log, video, actor, "second_asked"))


def entry(log: list[LogEntry], video: int, actor: str, kind: str, **facts) -> LogEntry:
    return LogEntry(seq=len(log) + 1, at=0.0, verdict_seq=video, video_id=f"v{video}", actor=actor, kind=kind, **facts)


def test_readers_who_never_contradict_each_other_agree_however_often_they_are_unsure():
    dice, log = random.Random(5), []
    for video in range(1000):
        word = dice.choice(["clean", "fake"])
        if dice.random() < 0.2:
            said(log, video, "ana", "unsure")
            said(log, video, "ben", word, "second")
        else:
            said(log, video, "ana", word)
            if dice.random() < 0.05:
                asked(log, video)
                said(log, video, "ben", "unsure" if dice.random() < 0.2 else word, "second")
    found = agreement_of(log)
    assert found.kappa == pytest.approx(1.0)
    assert found.num_agreed == found.num_pairs > 20
    assert found.num_unsure > 150
    assert found.differing == ()


def test_second_readings_that_somebody_asked_for_are_listed_and_not_counted():
    log: list[LogEntry] = []
    said(log, 1, "ana", "fake")
    asked(log, 1, "cleo")
    said(log, 1, "ben", "clean", "second")
    said(log, 2, "ana", "fake")
    asked(log, 2)
    said(log, 2, "ben", "fake", "second")
    found = agreement_of(log)
    assert (found.num_pairs, found.num_agreed) == (1, 1)
    assert [pair.video_id for pair in found.differing] == ["v1"]
    assert {reader.name: reader.num_read_twice for reader in found.readers} == {"ana": 1, "ben": 1}


def test_the_ledger_gives_what_agreement_is_computed_from():
    ledger = Ledger.in_memory()
    put_verdict(ledger, "v", peaks=(0.95,))
    seq = ledger.review_item_of("v").verdict_seq
    ledger.review_decide(seq, actor="ana", decision="fake", second_share=1.0)
    ledger.review_decide(seq, actor="ben", decision="clean")
    found: Agreement = agreement_of(ledger.review_decisions(limit=10))
    ledger.close()
    assert (found.num_pairs, found.num_agreed) == (1, 0)


@pytest.mark.parametrize("second_share", [1.0, 0.0])
def test_a_pair_counts_wherever_a_newer_verdict_took_the_items_place(second_share):
    ledger = Ledger.in_memory()
    put_verdict(ledger, "v", peaks=(0.95,))
    first = ledger.review_item_of("v").verdict_seq
    ledger.review_decide(first, actor="ana", decision="fake", second_share=second_share)
    if not second_share:
        ledger.review_reopen(first, actor="cleo", kind="second_asked")
    for bundle_set in ("new@1", "newer@1"):  # twice on its way between the two readings
        put_verdict(ledger, "v", asked_sha256="c" * 64, bundle_set=bundle_set, peaks=(0.95,))
        ledger.retire(days=-1)
    second = ledger.review_item_of("v").verdict_seq
    ledger.review_decide(second, actor="ben", decision="clean")
    put_verdict(ledger, "v", asked_sha256="c" * 64, bundle_set="newest@1", peaks=(0.95,))  # and once after them
    last = ledger.review_item_of("v").verdict_seq
    ledger.review_decide(last, actor="dan", decision="fake")
    assert first < second < last
    found = agreement_of(ledger.review_decisions(limit=2))  # ben's and dan's: what was carried is no step of its own
    ledger.close()
    assert (found.num_pairs, found.num_agreed) == (int(second_share), 0)
    assert [(pair.verdict_seq, pair.first.actor, pair.second.actor) for pair in found.differing] == [(second, "ana", "ben")]
    assert {reader.name: reader.num_decided for reader in found.readers} == {"ben": 1, "dan": 1}, "what is carried was decided once"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], None),
        ([("fake", "fake")], None),
        ([("fake", "fake"), ("clean", "clean")], 1.0),
        ([("fake", "clean"), ("clean", "fake")], -1.0),
        ([("fake", "fake"), ("fake", "clean"), ("clean", "fake"), ("clean", "clean")], 0.0),
    ],
)
def test_kappa(pairs, expected):
    assert kappa(pairs) == expected
