"""The log, its CSV and closing many at once: who sees what, what is left alone, and nothing that a spreadsheet runs."""

from __future__ import annotations

import pytest

from review_reader import put, sign_in
from verdict_builders import put_verdict
from workers.web import history_pages

SECRET = "an-opinion"


def test_the_second_reader_hears_nowhere_what_the_first_one_said(api, ana, ledger):
    seq, ben = put(ledger), sign_in(api, ledger, "ben")
    ledger.review_decide(seq, actor="ana", decision="fake", note=SECRET, second_share=1.0)
    put_verdict(ledger, "vid_1", bundle_set="new@1", asked_sha256="c" * 64)  # the reading goes on with the next verdict of the same bytes
    newest = ledger.review_item_of("vid_1").verdict_seq
    assert newest > seq
    pages = (f"/videos/vid_1?seq={newest}", f"/videos/vid_1?seq={seq}", "/log", "/log.csv", "/videos/vid_1/case.zip")
    for path in pages:
        assert SECRET not in ben.get(path).text
    assert "case.zip" not in ben.get("/videos/vid_1").text
    assert ben.get("/videos/vid_1/case.zip").status_code == 403
    for path in pages[:4]:
        assert SECRET in ana.get(path).text
    ben.send(f"/items/{newest}/decide", decision="fake", note="mine")
    for path in pages[:4]:
        assert SECRET in ben.get(path).text
    assert ben.get("/videos/vid_1/case.zip").status_code == 200


@pytest.mark.parametrize(("waiting", "other"), [("", "alpha"), ("alpha", "")])
def test_what_was_said_of_another_tenants_video_of_the_same_id_is_not_hidden(api, ana, ledger, waiting, other):
    ben, seqs = sign_in(api, ledger, "ben"), {tenant: put(ledger, tenant=tenant) for tenant in (waiting, other)}
    ledger.review_decide(seqs[waiting], actor="ana", decision="fake", note=SECRET, second_share=1.0)
    ledger.review_decide(seqs[other], actor="ana", decision="clean", note="of-the-other")
    page = ben.get(f"/videos/vid_1?seq={seqs[other]}").text
    assert "Decided by" in page
    for shown in (page, ben.get("/log").text, ben.get("/log.csv").text):
        assert "of-the-other" in shown
        assert SECRET not in shown
    assert SECRET not in ben.get(f"/videos/vid_1?seq={seqs[waiting]}").text
    assert [ben.get(f"/videos/vid_1/case.zip?seq={seqs[tenant]}").status_code for tenant in (waiting, other)] == [403, 200]


def test_a_blind_reader_sees_their_own_lines(api, ana, ledger):
    seq, ben = put(ledger), sign_in(api, ledger, "ben")
    ben.send(f"/items/{seq}/note", note="my-own-note")
    ledger.review_decide(seq, actor="ana", decision="fake", note=SECRET, second_share=1.0)
    log = ben.get("/log").text
    assert "my-own-note" in log
    assert SECRET not in log


@pytest.mark.parametrize("name", ["Jane Doe", "ana!"])
def test_the_log_of_a_name_that_nobody_can_have_is_empty(ana, ledger, name):
    ana.send(f"/items/{put(ledger)}/decide", decision="fake")
    assert "Nothing yet" in ana.get("/log", params={"by": name}).text
    assert "vid_1" in ana.get("/log", params={"by": " Ana "}).text
    assert "vid_1" in ana.get("/log", params={"by": " "}).text


def test_the_log_of_chance_is_found_by_its_name(ana, ledger):
    ledger.review_decide(put(ledger), actor="ana", decision="fake", second_share=1.0)
    ledger.review_decide(put(ledger, "vid_2"), actor="ana", decision="fake")
    assert "vid_1" in ana.get("/log", params={"by": "sampling"}).text
    assert "vid_2" not in ana.get("/log", params={"by": "sampling"}).text


def test_the_csv_holds_the_whole_log_and_no_formula(ana, ledger, monkeypatch):
    monkeypatch.setattr(history_pages, "_CSV_PAGE", 2)
    seq = put(ledger)
    for number in range(5):
        ana.send(f"/items/{seq}/note", note=f"note {number}")
    ana.send(f"/items/{seq}/decide", decision="fake", reason='=HYPERLINK("http://x")')
    lines = ana.get("/log.csv").text.splitlines()
    assert len(lines) == 1 + 6
    assert "'=HYPERLINK" in lines[1]


@pytest.mark.parametrize(("limit", "is_cut"), [(3, True), (4, False)])
def test_agreement_says_of_how_many_steps_it_is(ana, ledger, monkeypatch, limit, is_cut):
    monkeypatch.setattr(history_pages, "_NUM_STEPS", limit)
    ledger.review_decide(put(ledger), actor="ana", decision="fake", second_share=1.0)
    carried_to = put(ledger, bundle_set="new@1", asked_sha256="c" * 64)
    ledger.review_decide(carried_to, actor="ben", decision="fake")  # the third step
    page = ana.get("/agreement").text
    assert '<span class="tile-number">1</span><span>drawn videos read twice' in page
    assert (f"the newest {limit} steps" in page) is is_cut


def test_closing_many_leaves_decided_videos_and_unknown_ones_alone(api, ana, ledger):
    appealed, plain = put(ledger, "vid_1"), put(ledger, "vid_2")
    ledger.review_decide(appealed, actor="ana", decision="fake")
    ledger.review_reopen(appealed, actor="support", kind="appealed")
    ben = sign_in(api, ledger, "ben")
    answer = ben.send("/close", seq=["99999", str(appealed), str(plain)])
    assert (answer.status_code, answer.headers["location"]) == (303, "/review/?closed=1&left=2")
    assert "2 left as they are" in ben.get("/?closed=1&left=2").text
    item = ledger.review_item(appealed)
    assert (item.state, item.decision, ledger.review_item(plain).decision) == ("OPEN", "fake", "closed")
