"""Human review in the ledger: who waits, who holds, who decided, and that the log cannot be rewritten."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from verdict_builders import put_verdict
from workers.errors import ReviewConflictError, UnknownReviewError
from workers.ledger import Ledger, LogEntry, Submission, VerdictRecord
from workers.ledger.review_queries import FoundVideo
from workers.ledger.standing import Standing, standing_of, undoable
from workers.messages import parse_enqueue


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def opened_item(ledger: Ledger, video_id: str = "vid_1", **options) -> int:
    put_verdict(ledger, video_id, **options)
    item = ledger.review_item_of(video_id)
    assert item is not None
    return item.verdict_seq


def test_only_verdicts_that_need_people_wait_oldest_first(ledger):
    for video_id, peaks in (("fake", (0.95,)), ("clean", (0.1,)), ("band", (0.7,)), ("empty", ())):
        put_verdict(ledger, video_id, peaks=peaks)
    waiting = ledger.review_queue()
    assert [item.video_id for item in waiting] == ["fake", "band"]  # nobody decides on a video without a face
    assert [item.video_id for item in ledger.review_queue(after=waiting[0].verdict_seq)] == ["band"]
    assert [item.video_id for item in ledger.review_queue(word="suspicious")] == ["band"]
    assert ledger.review_counts() == {("manipulated", "first"): 1, ("suspicious", "first"): 1}


def test_a_newer_verdict_replaces_an_undecided_item(ledger):
    first = opened_item(ledger)
    request = parse_enqueue({"video_id": "vid_1", "content_sha256": "d" * 64})
    job = ledger.submit(Submission(request=request, door="http")).ledger_id
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    body = {"video_id": "vid_1", "reason_codes": ["SCORE_IN_BAND"], "attributes": {"title": "a <b>title</b>"}}
    record = VerdictRecord(content_sha256="d" * 64, bundle_set="b", policy="p", verdict="suspicious", p_fake=0.7, body=body)
    assert ledger.commit_verdict(claim, verdict=record, urls=[])
    [waiting] = ledger.review_queue()
    assert (waiting.word, waiting.title, waiting.reasons) == ("suspicious", "a <b>title</b>", ("SCORE_IN_BAND",))
    assert ledger.review_item(first).state == "REPLACED"
    with pytest.raises(ReviewConflictError, match="newer verdict"):
        ledger.review_decide(first, actor="ana", decision="fake")


def test_one_person_holds_an_item_at_a_time(ledger):
    seq = opened_item(ledger)
    assert ledger.review_claim(seq, actor="ana", seconds=60).claimed_by == "ana"
    assert ledger.review_claim(seq, actor="ana", seconds=60).claimed_by == "ana"  # renewed, logged once
    with pytest.raises(ReviewConflictError, match="ana is looking at"):
        ledger.review_claim(seq, actor="ben", seconds=60)
    with pytest.raises(ReviewConflictError, match="ana"):
        ledger.review_decide(seq, actor="ben", decision="fake")
    assert ledger.review_queue(hide_from="ben") == []
    assert [item.verdict_seq for item in ledger.review_queue(claimed_by="ana")] == [seq]
    ledger.review_release(seq, actor="ben")  # not his: nothing happens
    ledger.review_release(seq, actor="ana")
    assert ledger.review_claim(seq, actor="ben", seconds=60).claimed_by == "ben"
    assert [entry.kind for entry in ledger.review_entries(seq)] == ["claimed", "released", "claimed"]


def test_a_claim_that_ran_out_binds_nobody(ledger):
    seq = opened_item(ledger)
    ledger.review_claim(seq, actor="ana", seconds=-1)
    assert ledger.review_decide(seq, actor="ben", decision="clean").decided_by == "ben"


def test_a_decision_is_made_once_and_can_be_taken_back_by_its_maker_only(ledger):
    seq = opened_item(ledger)
    done = ledger.review_decide(seq, actor="ana", decision="fake", reason="mouth", note="  edges  ")
    assert (done.state, done.decision, done.decided_by, done.claimed_by) == ("DECIDED", "fake", "ana", None)
    assert ledger.review_queue() == []
    with pytest.raises(ReviewConflictError, match="decided by ana"):
        ledger.review_decide(seq, actor="ben", decision="clean")
    with pytest.raises(ReviewConflictError, match="no decision of ben"):
        ledger.review_undo(seq, actor="ben", hold_seconds=60)
    back = ledger.review_undo(seq, actor="ana", hold_seconds=60)
    assert (back.state, back.decision, back.readers, back.claimed_by) == ("OPEN", None, (), "ana")
    assert ledger.review_decide(seq, actor="ana", decision="clean").decision == "clean"
    entries = ledger.review_entries(seq)
    assert [(entry.kind, entry.decision, entry.note) for entry in entries] == [
        ("decided", "fake", "edges"),
        ("undone", None, None),
        ("decided", "clean", None),
    ]


def test_many_hands_at_once_make_one_decision(ledger):
    seq = opened_item(ledger)
    outcomes, start = [], threading.Barrier(6)

    def decide(name: str) -> None:
        start.wait()
        try:
            ledger.review_decide(seq, actor=name, decision="fake")
            outcomes.append(name)
        except ReviewConflictError:
            pass

    threads = [threading.Thread(target=decide, args=(f"reader-{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert len([entry for entry in ledger.review_entries(seq) if entry.kind == "decided"]) == 1


def test_a_second_reader_is_another_person_and_a_difference_goes_to_a_third(ledger):
    seq = opened_item(ledger)
    waiting = ledger.review_decide(seq, actor="ana", decision="fake", second_share=1.0)
    assert (waiting.state, waiting.reading, waiting.decision) == ("OPEN", "second", "fake")
    with pytest.raises(ReviewConflictError, match="another person"):
        ledger.review_decide(seq, actor="ana", decision="fake")
    assert ledger.review_queue(hide_from="ana") == []
    differs = ledger.review_decide(seq, actor="ben", decision="clean")
    assert (differs.state, differs.reading) == ("OPEN", "settle")
    settled = ledger.review_decide(seq, actor="cleo", decision="clean")
    assert (settled.state, settled.decision, settled.readers) == ("DECIDED", "clean", ("ana", "ben", "cleo"))


def test_an_appeal_is_read_by_somebody_else(ledger):
    seq = opened_item(ledger)
    with pytest.raises(ReviewConflictError, match="waits for a decision already"):
        ledger.review_reopen(seq, actor="ana", kind="appealed")
    ledger.review_decide(seq, actor="ana", decision="fake")
    appealed = ledger.review_reopen(seq, actor="ana", kind="appealed", note="the uploader says it is real")
    assert (appealed.reading, appealed.decision, appealed.may_read("ana")) == ("appeal", "fake", False)
    assert ledger.review_decide(seq, actor="ben", decision="clean").decision == "clean"


def test_the_log_cannot_be_rewritten(ledger):
    seq = opened_item(ledger)
    ledger.review_decide(seq, actor="ana", decision="fake")
    for statement in ("update review_log set decision = 'clean'", "delete from review_log"):
        with pytest.raises(DBAPIError, match="append-only"), ledger.engine.begin() as connection:
            connection.execute(text(statement))
    assert [entry.decision for entry in ledger.review_entries(seq)] == ["fake"]


def test_unknown_items_are_refused(ledger):
    with pytest.raises(UnknownReviewError):
        ledger.review_decide(99, actor="ana", decision="fake")
    with pytest.raises(UnknownReviewError):
        ledger.review_note(99, actor="ana", note="x")
    assert ledger.review_item_of("nobody") is None


def test_videos_are_found_by_id_job_and_hash(ledger):
    job = put_verdict(ledger, "vid_1", content_sha256="ab12cd34" + "0" * 56)
    for text_ in ("vid_1", job, "ab12cd34", "AB12CD34" + "0" * 56):
        assert ledger.find_videos(text_) == [FoundVideo("vid_1", 0)]
    for text_ in ("vid", "ab12", "ff12cd34", "' or 1=1 --", "%"):
        assert ledger.find_videos(text_) == []


def test_a_tenants_video_is_not_mixed_up_with_the_houses_of_the_same_id(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.1,))
    job_id = put_verdict(ledger, "vid_1", peaks=(0.95,), content_sha256="ab12cd34" + "0" * 56, tenant="acme")
    (item,) = ledger.review_queue()
    for text_ in (job_id, "ab12cd34"):
        assert ledger.find_videos(text_) == [FoundVideo("vid_1", item.verdict_seq)]
    assert [each.word for each in ledger.verdict_revisions("vid_1")] == ["authentic"]
    assert [each.word for each in ledger.verdict_revisions("vid_1", verdict_seq=item.verdict_seq)] == ["manipulated"]


def test_what_would_change_is_counted(ledger):
    for number, peak in enumerate((0.1, 0.5, 0.65, 0.7, 0.9)):
        put_verdict(ledger, f"v{number}", peaks=(peak,))
    item = ledger.review_item_of("v4")
    ledger.review_decide(item.verdict_seq, actor="ana", decision="clean")
    [(name, count)] = ledger.bundle_sets()
    assert count == 5
    rows = {
        (row.word, row.decision): (row.num_below, row.num_between, row.num_above)
        for row in ledger.scored_words(name, review=0.4, fake=0.68)
    }
    assert rows == {
        ("authentic", None): (1, 1, 0),
        ("suspicious", None): (0, 1, 1),
        ("manipulated", None): (0, 0, 1),
        ("manipulated", "clean"): (0, 0, 1),
    }
    assert sum(ledger.score_histogram(name, num_bins=10)) == 5


def test_a_login_link_works_once_and_not_too_late(ledger):
    token = ledger.make_login("ana", seconds=60)
    assert ledger.use_login(token) == "ana"
    assert ledger.use_login(token) is None
    assert ledger.use_login(ledger.make_login("ana", seconds=-1)) is None
    assert ledger.use_login("guess") is None


def entry(seq: int, kind: str, actor: str = "ana", decision: str | None = None, undoes: int | None = None) -> LogEntry:
    return LogEntry(seq=seq, at=float(seq), verdict_seq=1, video_id="v", actor=actor, kind=kind, decision=decision, undoes=undoes)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], Standing()),
        ([entry(1, "decided", decision="unsure")], Standing(True, "second", "unsure", "ana", 1.0, ("ana",))),
        (
            [entry(1, "decided", decision="unsure"), entry(2, "decided", "ben", "fake")],
            Standing(False, "second", "fake", "ben", 2.0, ("ana", "ben")),
        ),
        ([entry(1, "decided", decision="closed")], Standing(False, "first", "closed", "ana", 1.0, ("ana",))),
        # asking for a second reader of something undecided, or twice, changes nothing
        ([entry(1, "second_asked"), entry(2, "noted")], Standing()),
        ([entry(1, "decided", decision="fake"), entry(2, "undone", undoes=1), entry(3, "second_asked")], Standing()),
    ],
)
def test_an_item_stands_where_its_log_says(entries, expected):
    assert standing_of(entries) == expected


def test_nobody_takes_back_what_was_appealed():
    decided = [entry(1, "decided", decision="fake")]
    assert undoable(decided, "ana") == decided[0]
    assert undoable([*decided, entry(2, "appealed", "ben")], "ana") is None
    assert undoable([], "ana") is None


def test_pages_never_walk_the_whole_history(ledger):
    put_verdict(ledger, "vid_1")
    sent = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        sent.append((statement, parameters))

    event.listen(ledger.engine, "before_cursor_execute", note)
    ledger.verdict_of("vid_1")
    ledger.verdict_revisions("vid_1")
    ledger.review_item_of("vid_1")
    ledger.review_queue(word="suspicious")
    ledger.review_counts()
    ledger.scored_words("default@0123456789ab", review=0.5, fake=0.7)
    event.remove(ledger.engine, "before_cursor_execute", note)
    with ledger.engine.connect() as connection:
        plans = [
            " ".join(str(row[3]) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters))
            for statement, parameters in sent
            if not statement.startswith("BEGIN")
        ]
    revision, revisions, item, queue, counts, everything, decided = plans
    assert "video_id=?" in revision
    assert "video_id=?" in revisions
    assert "ix_review_video" in item
    assert "ix_review_open" in queue
    assert "COVERING INDEX ix_review_open_word" in counts
    assert "COVERING INDEX ix_verdicts_score" in everything
    assert decided.startswith("SCAN review_items")  # of the decided ones only the number is looked up
