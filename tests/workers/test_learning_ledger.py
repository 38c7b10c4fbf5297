"""Explanations that expire, shadow opinions beside verdicts, revisions that never overwrite: the ledger's side of each."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

from verdict_builders import made_body, put_verdict
from workers.ledger import Claim, Ledger, ShadowRecord, Submission, VerdictRecord
from workers.ledger.explanations import REFUSED, WANTED, explanations
from workers.ledger.schema import jobs, outbox, verdicts
from workers.messages import parse_enqueue

NEW, OTHER = "new@aaaaaaaaaaaa", "other@bbbbbbbbbbbb"


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def age(ledger, table, **values):
    with ledger.engine.begin() as connection:
        connection.execute(update(table).values(**values))


def test_an_explanation_is_asked_for_once_made_once_and_gone_when_it_expires(ledger):
    assert ledger.explanation("a" * 32) is None
    assert ledger.want_explanation("a" * 32, seconds=60)
    assert not ledger.want_explanation("a" * 32, seconds=60), "a worker was told already"
    assert ledger.explanation("a" * 32).state == WANTED

    ledger.put_explanation("a" * 32, body={"moments": [1]}, clip=b"mp4", seconds=60)
    found = ledger.explanation("a" * 32)
    assert (found.state, found.body, found.has_clip) == ("READY", {"moments": [1]}, True)
    assert ledger.explanation_clip("a" * 32) == b"mp4"
    assert not ledger.want_explanation("a" * 32, seconds=60), "the answer is there"
    assert ledger.drop_expired_explanations() == 0

    age(ledger, explanations, expires_at=1.0)
    assert ledger.explanation("a" * 32) is None
    assert ledger.explanation_clip("a" * 32) is None
    assert ledger.drop_expired_explanations() == 1
    assert ledger.want_explanation("a" * 32, seconds=60)


def test_a_refused_explanation_may_be_asked_for_again_and_nobody_keeps_what_nobody_wants(ledger):
    ledger.want_explanation("a" * 32, seconds=60)
    ledger.refuse_explanation("a" * 32, code="FETCH_NOT_FOUND", message="gone")
    assert (ledger.explanation("a" * 32).state, ledger.explanation("a" * 32).error_code) == (REFUSED, "FETCH_NOT_FOUND")
    assert ledger.want_explanation("a" * 32, seconds=60)
    ledger.put_explanation("b" * 32, body={}, clip=None, seconds=60)
    assert ledger.explanation("b" * 32) is None


def commit_with_shadow(ledger, video_id, *, word, shadow_word, share):
    request = parse_enqueue({"video_id": video_id})
    job_id = ledger.submit(Submission(request=request, door="http")).ledger_id
    claim = ledger.claim(job_id, owner="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = made_body(video_id, job_id=job_id, word=word).to_json()
    shadow = ShadowRecord(bundle_set=NEW, verdict=shadow_word, p_fake=0.5, review_share=share)
    record = VerdictRecord(content_sha256="c" * 64, bundle_set="default@0", policy="p", verdict=word, p_fake=0.3, body=body, shadow=shadow)
    assert ledger.commit_verdict(claim, verdict=record, urls=[])


def test_a_shadow_is_kept_beside_the_verdict_and_its_disagreements_are_sampled_into_review(ledger):
    commit_with_shadow(ledger, "same", word="authentic", shadow_word="authentic", share=1.0)
    commit_with_shadow(ledger, "differs", word="authentic", shadow_word="manipulated", share=1.0)
    commit_with_shadow(ledger, "unsampled", word="authentic", shadow_word="manipulated", share=0.0)

    pairs = {pair.video_id: pair for pair in ledger.shadow_pairs(NEW)}
    assert set(pairs) == {"same", "differs", "unsampled"}
    assert (pairs["differs"].verdict, pairs["differs"].shadow_verdict, pairs["differs"].shadow_p_fake) == ("authentic", "manipulated", 0.5)
    assert list(ledger.shadow_pairs(OTHER)) == []
    assert [name for name, pair in pairs.items() if pair.went_to_people is True] == ["differs"]
    waiting = ledger.review_queue()
    assert [(item.video_id, item.reasons) for item in waiting] == [("differs", ("SHADOW_DISAGREES",))]
    assert ledger.latest_job("differs").body["verdict"] == "authentic", "a shadow never changes the verdict"


def revision_of(old, *, word, bundle_set=NEW):
    body = made_body(old.video_id, job_id=old.ledger_id, word=word, bundle_set=bundle_set).to_json()
    body = {**body, "revision": old.revision + 1, "supersedes": old.seq}
    return VerdictRecord(content_sha256=old.content_sha256, bundle_set=bundle_set, policy="p", verdict=word, p_fake=0.9, body=body)


def test_a_revision_stands_beside_the_old_verdict_and_becomes_the_newest(ledger):
    job_id = put_verdict(ledger, "vid_1", peaks=(0.2,), source="file:///media/vid_1.mp4")
    (old,) = ledger.archive(not_by=NEW)
    assert (old.video_id, old.source, old.revision, old.verdict) == ("vid_1", "file:///media/vid_1.mp4", 1, "authentic")

    assert ledger.revise(old, verdict=revision_of(old, word="manipulated"), urls=["https://example.org/hook"])

    body = ledger.latest_job("vid_1").body
    assert (body["verdict"], body["revision"], body["supersedes"]) == ("manipulated", 2, old.seq)
    with ledger.engine.begin() as connection:
        rows = connection.execute(select(verdicts).order_by(verdicts.c.seq)).all()
        assert [(row.revision, row.supersedes, row.verdict) for row in rows] == [(1, None, "authentic"), (2, old.seq, "manipulated")]
        assert json.loads(rows[0].body) == old.body, "the old verdict is untouched"
        assert [row.kind for row in connection.execute(select(outbox))] == ["verdict.revised"]
        assert connection.scalar(select(jobs.c.state)) == "VERDICT"
    assert list(ledger.archive(not_by=NEW)) == []
    assert [item.video_id for item in ledger.review_queue()] == ["vid_1"]
    assert not ledger.revise(old, verdict=revision_of(old, word="manipulated"), urls=[]), "the same judgement twice is one"
    assert ledger.job(job_id).body["revision"] == 2


def test_each_revision_that_flips_is_told_once_and_others_are_not(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.2,))
    for bundle_set, word in ((NEW, "authentic"), (OTHER, "suspicious"), ("third@cccccccccccc", "authentic")):
        (old,) = ledger.archive(not_by=bundle_set)
        assert ledger.revise(old, verdict=revision_of(old, word=word, bundle_set=bundle_set), urls=["https://example.org/hook"])
    with ledger.engine.begin() as connection:
        assert len(set(connection.scalars(select(outbox.c.event_id)))) == 2


def test_a_video_that_was_forgotten_meanwhile_gets_no_revision(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.2,))
    (old,) = ledger.archive(not_by=NEW)
    ledger.erase_video("vid_1", actor="test")

    assert not ledger.revise(old, verdict=revision_of(old, word="manipulated"), urls=["https://example.org/hook"])

    assert ledger.verdicts_of("vid_1") == []
    assert ledger.review_queue() == []
    with ledger.engine.begin() as connection:
        assert connection.execute(select(outbox)).all() == []


def test_a_version_that_was_judged_meanwhile_stays_the_newest(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.2,))
    (old,) = ledger.archive(not_by=NEW)
    put_verdict(ledger, "vid_1", peaks=(0.95,), content_sha256="d" * 64, asked_sha256="d" * 64)

    assert not ledger.revise(old, verdict=revision_of(old, word="suspicious"), urls=[])

    assert [(item.video_id, item.word) for item in ledger.review_queue()] == [("vid_1", "manipulated")]


def test_every_job_of_the_same_bytes_gets_the_revision(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.2,))
    (old,) = ledger.archive(not_by=NEW)
    second = put_verdict(ledger, "vid_1", peaks=(0.2,), asked_sha256="c" * 64)
    assert len(ledger.verdicts_of("vid_1")) == 1, "the second job points at the first one's verdict"

    assert ledger.revise(old, verdict=revision_of(old, word="manipulated"), urls=[])

    assert ledger.job(second).body["verdict"] == "manipulated"
    assert ledger.latest_job("vid_1").body["verdict"] == "manipulated"


def test_a_decided_item_is_not_asked_again_unless_the_word_changes(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.95,))
    (item,) = ledger.review_queue()
    ledger.review_decide(item.verdict_seq, actor="anna", decision="fake")
    (old,) = ledger.archive(not_by=NEW)
    ledger.revise(old, verdict=revision_of(old, word="manipulated"), urls=[])
    assert ledger.review_queue() == []
    (old,) = ledger.archive(not_by=OTHER)
    ledger.revise(old, verdict=revision_of(old, word="suspicious", bundle_set=OTHER), urls=[])
    assert [item.word for item in ledger.review_queue()] == ["suspicious"]
