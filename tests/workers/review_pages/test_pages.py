"""The review pages without a browser and without JavaScript: what is shown, done, refused and escaped."""

from __future__ import annotations

import io
import json
import re
import zipfile
from html import unescape

import pytest
import structlog

from review_reader import Person, put, sign_in
from verdict_builders import put_verdict
from workers.errors import LedgerUnavailableError
from workers.ledger import Ledger, Submission
from workers.messages import parse_enqueue


def test_without_scripts_a_video_is_found_decided_and_taken_back(ana, ledger):
    first, second = put(ledger, "vid_1"), put(ledger, "vid_2", peaks=(0.7,))
    queue = ana.get("/").text
    assert queue.index("vid_1") < queue.index("vid_2")
    assert "likely manipulated" in queue
    page = ana.get(f"/videos/vid_1?seq={first}").text
    for expected in ("Face 2", "0.95", "two-thresholds/4", "0123456789ab", "8 of 8 frames, 16 faces", "No pictures."):
        assert expected in page
    done = ana.send(f"/items/{first}/decide", decision="fake", reason="mouth", note="teeth")
    assert done.headers["location"] == f"/review/videos/vid_2?seq={second}&done={first}"
    assert "Undo" in ana.get(f"/videos/vid_2?seq={second}&done={first}").text
    assert ana.send(f"/items/{first}/undo").headers["location"].endswith(f"/videos/vid_1?seq={first}")
    assert ledger.review_item(first).is_open
    ana.send(f"/items/{first}/decide", decision="clean")
    assert ana.send(f"/items/{second}/decide", decision="closed").headers["location"] == f"/review/?done={second}"
    assert "Nothing waits for people" in ana.get("/").text
    log = ana.get("/log").text
    for expected in ("took the decision back", "teeth", "mouth or teeth do not follow the speech", "not manipulated"):
        assert expected in log
    assert ana.get("/log.csv").text.count("\n") == 5  # a head, three decisions, one taken back


def test_two_analysts_on_one_video_make_one_decision(api, ana, ledger):
    ben, seq = sign_in(api, ledger, "ben"), put(ledger)
    assert ana.send(f"/items/{seq}/claim").status_code == 204
    refused = ben.send(f"/items/{seq}/claim")
    assert refused.status_code == 409
    assert "Ana is looking at" in refused.text
    assert "data-claim" not in ben.get("/videos/vid_1").text  # nothing to press
    assert ben.send(f"/items/{seq}/decide", decision="clean").status_code == 409
    ana.send(f"/items/{seq}/decide", decision="fake")
    late = ben.send(f"/items/{seq}/decide", decision="clean")
    assert late.status_code == 409
    assert "decided by ana already" in late.text
    assert ledger.review_item(seq).decision == "fake"


def test_the_second_reader_judges_blind_and_agreement_is_counted(api, ana, ledger):
    seq, ben = put(ledger), sign_in(api, ledger, "ben")
    ana.send(f"/items/{seq}/decide", decision="fake", note="an-opinion")
    assert ana.send(f"/items/{seq}/second").status_code == 303
    page = ben.get("/videos/vid_1").text
    assert "Second reading" in page
    assert "an-opinion" not in page
    assert "waits for another reader" in ana.get("/videos/vid_1").text
    ben.send(f"/items/{seq}/decide", decision="clean")
    assert "an-opinion" in ben.get("/videos/vid_1").text
    table = ana.get("/agreement").text
    assert "videos read twice" in table
    assert "readers differ" in ana.get("/?reading=settle").text


def test_a_second_reader_is_not_told_the_first_ones_decision_as_their_own(api, ana, ledger):
    seq, ben = put(ledger), sign_in(api, ledger, "ben")
    ledger.review_decide(seq, actor="ana", decision="clean", second_share=1.0)
    ben.send(f"/items/{seq}/decide", decision="fake")
    told = {name: flash(person.get(f"/?done={seq}").text) for name, person in (("ana", ana), ("ben", ben))}
    assert told["ben"] == "vid_1: recorded, now waiting for another reader."
    assert told["ana"] == "vid_1: not manipulated, now waiting for another reader."


def flash(page: str) -> str:
    """What the page says of the decision before it."""
    return re.sub(r"<[^>]+>", "", re.search(r'class="flash" role="status">\s*(.+)', page)[1])


def test_an_appeal_reopens_for_somebody_else(api, ana, ledger):
    seq = put(ledger)
    ana.send(f"/items/{seq}/decide", decision="fake")
    ana.send(f"/items/{seq}/appeal", note="it is a parody")
    assert "parody" in sign_in(api, ledger, "ben").get("/videos/vid_1").text
    assert "for another reader" in ana.get("/?reading=appeal").text


def test_the_queue_is_filtered_and_paged(ana, ledger):
    for number in range(45):
        put(ledger, f"vid_{number:02d}", peaks=(0.7 if number % 2 else 0.95,))
    page = ana.get("/").text
    following = unescape(re.search(r'rel="next" href="/review([^"]+)"', page)[1])
    rest = ana.get(following).text
    assert (page.count('class="row '), rest.count('class="row ')) == (40, 5)
    assert ana.get("/?word=suspicious").text.count('class="row suspicious') == 22
    assert ana.get("/?who=mine").text.count('class="row ') == 0
    assert ana.send("/next").headers["location"].startswith("/review/videos/vid_00")
    seqs = [str(item.verdict_seq) for item in ledger.review_queue(limit=3)]
    assert ana.send("/close", seq=seqs).headers["location"] == "/review/?closed=3"


HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}'


def test_hostile_titles_notes_and_searches_are_only_text(ana, ledger):
    request = parse_enqueue({"video_id": "vid_1", "attributes": {"title": HOSTILE}})
    ledger.submit(Submission(request=request, door="http"))
    seq = put_titled(ledger, HOSTILE)
    ana.send(f"/items/{seq}/note", note=HOSTILE)
    for path in ("/", "/videos/vid_h", "/log", "/search?q=" + "%22%3E%3Cscript%3Ealert(2)%3C/script%3E"):
        text = ana.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    assert HOSTILE in unescape(ana.get("/videos/vid_h").text)
    ana.send(f"/items/{seq}/note", note="=cmd()")
    assert ",'=cmd()," in ana.get("/log.csv").text


def put_titled(ledger: Ledger, title: str) -> int:
    put_verdict(ledger, "vid_h")
    item = ledger.review_item_of("vid_h")
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("update review_items set title = ? where verdict_seq = ?", (title, item.verdict_seq))
    return item.verdict_seq


@pytest.mark.parametrize(
    "path", ["/videos/nobody", "/videos/a%20b", "/videos/..%2f..%2fetc", "/nothing", "/videos/vid_1?seq=99", "/?after=x", "/?word=bad"]
)
def test_unknown_addresses_are_a_page_that_says_so(ana, ledger, path):
    put(ledger)
    answer = ana.get(path)
    assert answer.status_code == 404
    assert "Back to the queue" in answer.text


def test_a_video_without_a_verdict_has_a_page(ana, ledger):
    ledger.submit(Submission(request=parse_enqueue({"video_id": "fresh"}), door="http"))
    assert "has no verdict yet" in ana.get("/videos/fresh").text
    job = ledger.submit(Submission(request=parse_enqueue({"video_id": "bad"}), door="http")).ledger_id
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    ledger.fail(claim, code="DECODE_ERROR", message="broken <file>", body={}, urls=[])
    assert "broken &lt;file&gt;" in ana.get("/videos/bad").text


def test_a_verdict_without_faces_has_a_page_and_no_decision(ana, ledger):
    put_verdict(ledger, "empty", peaks=())
    page = ana.get("/videos/empty").text
    assert "No face was found" in page
    assert "No decision needed" in page


@pytest.mark.parametrize(
    "gone", [("tracks", "segments", "evidence"), ("tracks", "segments", "evidence", "sampling", "video", "models", "attributes")]
)
def test_a_verdict_without_evidence_is_shown_and_decided(ana, ledger, gone):
    """As an older build, or a repaired ledger, may hold it: a word and a number, and nothing that they rest on."""
    seq = put(ledger)
    body = {name: value for name, value in ledger.verdict_of("vid_1").body.items() if name not in gone}
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("update verdicts set body = ? where seq = ?", (json.dumps(body), seq))
    page = ana.get("/videos/vid_1")
    assert page.status_code == 200
    assert "0.95" in page.text
    assert "Worst moments" not in page.text
    assert ana.get("/videos/vid_1/evidence.json").json()["tracks"] == []
    assert zipfile.is_zipfile(io.BytesIO(ana.get("/videos/vid_1/case.zip").content))
    assert ana.send(f"/items/{seq}/decide", decision="unsure").status_code == 303
    assert ledger.review_item(seq).decision == "unsure" or ledger.review_item(seq).reading == "second"


def test_search_leads_to_the_video(ana, ledger):
    job = put_verdict(ledger, "vid_1", content_sha256="ab" * 32)
    for text in ("vid_1", job, "abababab"):
        assert ana.get("/search", params={"q": text}).headers["location"] == "/review/videos/vid_1"
    assert "Nothing on record" in ana.get("/search?q=nobody").text


@pytest.mark.parametrize("text", ["a%00b", "%00"])
def test_a_search_with_a_nul_finds_nothing(ana, text):
    assert ana.get(f"/search?q={text}").status_code == 200


@pytest.mark.parametrize("path", ["/?after={n}", "/?done={n}", "/log?before={n}", "/videos/vid_1?seq={n}", "/videos/vid_1?done={n}"])
def test_a_number_that_no_ledger_holds_is_in_no_address(ana, ledger, path):
    put(ledger)
    assert ana.get(path.format(n=2**63)).status_code == 404
    assert ana.get(path.format(n=2**63 - 1)).status_code in (200, 404)


@pytest.mark.parametrize(
    ("path", "fields"), [("/items/{n}/decide", {"decision": "fake"}), ("/items/{n}/claim", {}), ("/next", {"after": "{n}"})]
)
def test_a_number_that_no_ledger_holds_is_in_no_form(ana, path, fields):
    number = str(2**63)
    sent = {name: value.format(n=number) for name, value in fields.items()}
    assert ana.send(path.format(n=number), **sent).status_code == 422


def test_what_would_change_is_shown_and_nonsense_is_not(ana, ledger):
    assert "No scored verdicts yet" in ana.get("/thresholds").text
    for number, peak in enumerate((0.1, 0.65, 0.7, 0.9)):
        put_verdict(ledger, f"v{number}", peaks=(peak,))
    page = ana.get("/thresholds?review=0.5&fake=0.68").text
    assert "verdicts that flip" in page
    assert re.search(r'verdicts that flip</span><span class="tile-number">1<', page)
    assert ana.get("/thresholds?review=2").status_code == 404
    assert ana.get("/thresholds?review=nan").status_code == 404


def test_preferences_are_kept_and_nonsense_in_the_cookie_is_not(ana, ledger):
    put(ledger)
    assert ana.send("/preferences", blur="1", theme="dark").status_code == 303
    page = ana.get("/videos/vid_1").text
    assert 'data-theme="dark"' in page
    assert 'data-keys="off"' in page
    assert "is-blurred" in page
    ana.cookies.set("veriframe_view", "theme=%22%3E%3Cscript&blur=yes", path="/review")
    assert 'data-theme="auto"' in ana.get("/").text


def test_a_ledger_that_is_down_is_said_and_nothing_leaks(ana, ledger, monkeypatch):
    def down(**_options) -> None:
        raise LedgerUnavailableError("postgresql://secret@host is down")

    monkeypatch.setattr(ledger, "review_queue", down)
    answer = ana.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "secret" not in answer.text

    def bug(**_options) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(ledger, "review_queue", bug)
    with structlog.testing.capture_logs() as logged:
        answer = ana.get("/")
    assert [line["event"] for line in logged] == ["unexpected"]
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_every_answer_forbids_scripts_of_others(ana):
    for answer in (ana.get("/"), ana.get("/nothing"), ana.get("/static/keys.js"), Person(ana.api).get("/login")):
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
    assert " style=" not in ana.get("/").text
    assert "<script>" not in ana.get("/").text


def test_a_form_has_a_size(ana):
    assert ana.call("POST", "/login", content=b"x" * 200_000).status_code == 413
