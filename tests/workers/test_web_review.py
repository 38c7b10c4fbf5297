"""The review pages without a browser and without JavaScript: who gets in, what is shown, what is refused, what is escaped."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import shutil
import zipfile
from html import unescape

import httpx
import pytest
import structlog

from api_caller import ADMIN_KEY, KEYS, READ_KEY, ApiCaller, make_caller
from verdict_builders import put_verdict
from workers.errors import LedgerUnavailableError, SettingsError
from workers.ledger import Ledger, Submission
from workers.messages import parse_enqueue
from workers.settings import Settings
from workers.up import server_config
from workers.web.auth import key_digest
from workers.web.session import reviewer_name
from workers.web.signed_in import own_path

REVIEW_KEY = "review-secret"
ALL_KEYS = (*KEYS, f"review:{hashlib.sha256(REVIEW_KEY.encode()).hexdigest()}")
SECRET = "s" * 40


class Person:
    """Somebody with a cookie jar and no scripts."""

    def __init__(self, api: ApiCaller) -> None:
        self.api, self.cookies = api, httpx.Cookies()

    def call(self, method: str, path: str, **options) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.api.transport(), base_url="http://localhost", cookies=self.cookies) as client:
                answer = await client.request(method, "/review" + path, **options)
                self.cookies = client.cookies
                return answer

        return asyncio.run(send())

    def get(self, path: str, **options) -> httpx.Response:
        return self.call("GET", path, **options)

    def send(self, path: str, *, csrf: str | None = None, **fields) -> httpx.Response:
        """Send a form as the page would, with the token that stands in the pages."""
        if csrf is None:
            csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get("/preferences").text)[1]
        return self.call("POST", path, data={"csrf": csrf, **fields})


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory):
    """The file of a fresh ledger: making one takes longer than a test."""
    path = tmp_path_factory.mktemp("empty") / "ledger.sqlite3"
    Ledger.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def ledger(empty_ledger, tmp_path):
    copy = shutil.copy(empty_ledger, tmp_path / "ledger.sqlite3")
    opened = Ledger.open(f"sqlite:///{copy}")
    yield opened
    opened.close()


@pytest.fixture
def api(ledger, tmp_path):
    return make_caller(
        ledger, state_dir=tmp_path, media_roots=(tmp_path,), media_template=f"{tmp_path}/{{video_id}}.mp4", api_keys=ALL_KEYS
    )


def sign_in(api: ApiCaller, ledger: Ledger, name: str = "ana") -> Person:
    person = Person(api)
    answer = person.call("POST", f"/login/{ledger.make_login(name, seconds=60)}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/review/")
    return person


@pytest.fixture
def ana(api, ledger):
    return sign_in(api, ledger)


def item_of(ledger: Ledger, video_id: str) -> int:
    return ledger.review_item_of(video_id).verdict_seq


# --- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/videos/vid_1", "/log", "/log.csv", "/agreement", "/thresholds", "/search?q=a", "/preferences"])
def test_every_page_sends_a_stranger_to_the_login_and_back(api, path):
    answer = Person(api).get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/review/login?next=%2Freview%2F")
    fragment = Person(api).get(path, headers={"hx-request": "true"})
    assert (fragment.status_code, fragment.headers["hx-redirect"][:15]) == (401, "/review/login?n")


def test_a_login_link_is_looked_at_as_often_as_you_like_and_used_once(api, ledger):
    token = ledger.make_login("ana", seconds=60)
    person = Person(api)
    assert person.get(f"/login/{token}").status_code == 200
    assert person.get(f"/login/{token}").status_code == 200
    assert person.call("POST", f"/login/{token}").status_code == 303
    assert person.get("/").status_code == 200
    again = Person(api).call("POST", f"/login/{token}")
    assert again.status_code == 403
    assert [(entry.actor, entry.action, entry.detail) for entry in ledger.audit_entries()] == [
        ("reviewer:ana", "signed_in", {"by": "link"})
    ]
    assert "was used or is too old" in again.text


def test_a_key_of_the_right_scope_opens_the_door_and_leaves_a_line(api, ledger):
    person = Person(api)
    for key, status in ((READ_KEY, 403), ("guess", 403), (REVIEW_KEY, 303), (ADMIN_KEY, 303)):
        assert person.call("POST", "/login", data={"name": "Ana", "key": key}).status_code == status
    assert person.call("POST", "/login", data={"name": "a<b>", "key": REVIEW_KEY}).status_code == 422
    assert person.call("POST", "/login", data={"name": "ana", "key": ADMIN_KEY}, headers={"origin": "http://evil"}).status_code == 403
    assert [entry.actor for entry in ledger.audit_entries()] == ["reviewer:ana", "reviewer:ana"]
    assert ledger.audit_entries()[0].detail["by"].startswith("key:")


def test_the_cookie_is_closed_to_scripts_and_a_changed_one_is_no_session(api, ledger):
    person = Person(api)
    answer = person.call("POST", f"/login/{ledger.make_login('ana', seconds=60)}")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    value = person.cookies["veriframe_session"]
    person.cookies = httpx.Cookies({"veriframe_session": value[:-2] + ("AA" if value[-2:] != "AA" else "BB")})
    assert person.get("/").status_code == 303


@pytest.mark.parametrize(
    ("trusted", "proxy", "is_secure"),
    [
        (("127.0.0.1", "::1"), "127.0.0.1", True),
        (("127.0.0.1", "::1"), "10.1.2.3", False),
        (("10.1.0.0/16",), "10.1.2.3", True),
        (("10.1.0.0/16",), "10.2.2.3", False),
        (("*",), "10.2.2.3", True),
    ],
)
def test_the_cookie_is_secure_when_a_trusted_proxy_took_the_request_by_https(api, ledger, trusted, proxy, is_secure):
    config = server_config(api.app, settings=Settings(trusted_proxies=trusted))
    config.load()

    async def sign_in_behind_it() -> httpx.Response:
        transport = httpx.ASGITransport(app=config.loaded_app, client=(proxy, 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers={"x-forwarded-proto": "https"}) as client:
            return await client.post(f"/review/login/{ledger.make_login('ana', seconds=60)}")

    assert ("Secure" in asyncio.run(sign_in_behind_it()).headers["set-cookie"]) is is_secure


def key_session(api: ApiCaller, key: str) -> Person:
    person = Person(api)
    assert person.call("POST", "/login", data={"name": "ana", "key": key}).status_code == 303
    return person


def test_a_session_ends_with_the_key_that_opened_it_and_no_other(api, ledger):
    for key_id in ("lost", "kept"):
        ledger.add_key(key_id=key_id, digest=key_digest(key_id), name=key_id, scopes=["review"], actor="test")
    by_lost, by_kept, by_setting, by_link = (
        *(key_session(api, key) for key in ("lost", "kept", REVIEW_KEY)),
        sign_in(api, ledger),
    )
    seq = put(ledger)
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', by_lost.get("/preferences").text)[1]
    ledger.revoke_key("lost", actor="test")
    assert [person.get("/").status_code for person in (by_lost, by_kept, by_setting, by_link)] == [303, 200, 200, 200]
    assert by_lost.send(f"/items/{seq}/decide", csrf=csrf, decision="fake").headers["location"].startswith("/review/login")
    assert ledger.review_item(seq).is_open


def test_a_key_that_was_taken_out_of_the_settings_leaves_no_session(ledger, tmp_path):
    person = key_session(make_caller(ledger, state_dir=tmp_path, web_secret=SECRET, api_keys=ALL_KEYS), REVIEW_KEY)
    person.api = make_caller(ledger, state_dir=tmp_path, web_secret=SECRET, api_keys=KEYS)
    assert person.get("/").status_code == 303


def test_a_ledger_that_cannot_say_whether_the_key_lives_is_said(api, ledger, monkeypatch):
    ledger.add_key(key_id="kept", digest=key_digest("kept"), name="kept", scopes=["review"], actor="test")
    person = key_session(api, "kept")

    def down(_key_id):
        raise LedgerUnavailableError("no")

    monkeypatch.setattr(ledger, "key_named", down)
    answer = person.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Nothing was lost" in answer.text


def test_a_session_ends_and_a_decision_after_that_is_not_taken(ledger, tmp_path):
    seq = put(ledger)
    api = make_caller(ledger, state_dir=tmp_path, session_hours=1e-9)
    person = sign_in(api, ledger)
    assert person.get("/").status_code == 303
    assert (
        person.call("POST", f"/items/{seq}/decide", data={"decision": "fake", "csrf": "x"}).headers["location"].startswith("/review/login")
    )
    assert ledger.review_item(seq).is_open


def test_sessions_of_another_secret_do_not_count(ledger, tmp_path):
    person = sign_in(make_caller(ledger, state_dir=tmp_path, web_secret=SECRET), ledger)
    person.api = make_caller(ledger, state_dir=tmp_path, web_secret="t" * 40)
    assert person.get("/").status_code == 303
    person.api = make_caller(ledger, state_dir=tmp_path, web_secret=SECRET)
    assert person.get("/").status_code == 200
    with pytest.raises(SettingsError, match="VERIFRAME_WEB_SECRET"):
        make_caller(ledger, state_dir=tmp_path, web_secret="short")


def test_signing_out_ends_it(ana):
    assert ana.send("/logout").headers["location"] == "/review/login"
    assert ana.get("/").status_code == 303


@pytest.mark.parametrize(("headers", "csrf"), [({}, ""), ({}, "0" * 32), ({"origin": "http://evil.test"}, None)])
def test_a_forged_form_changes_nothing(ana, ledger, headers, csrf):
    seq = put(ledger)
    token = re.search(r'name="csrf" value="([0-9a-f]+)"', ana.get("/preferences").text)[1]
    data = {"decision": "fake", "csrf": token if csrf is None else csrf}
    assert ana.call("POST", f"/items/{seq}/decide", data=data, headers=headers).status_code == 403
    assert ledger.review_item(seq).is_open


@pytest.mark.parametrize("text", ["//evil.test", "https://evil.test", "/review/\\evil", "/v1/verdicts", "", None, "/review//\nx"])
def test_a_login_leads_nowhere_else(text):
    assert own_path(text) == "/"


@pytest.mark.parametrize(
    ("text", "name"), [(" Ana ", "ana"), ("ana@x.org", "ana@x.org"), ("", None), ("a b", None), ("|ana|", None), ("é", None)]
)
def test_names_have_one_form(text, name):
    assert reviewer_name(text) == name


# --- what is shown and done ------------------------------------------------------------------------------------------


def put(ledger: Ledger, video_id: str = "vid_1", **options) -> int:
    put_verdict(ledger, video_id, **options)
    return item_of(ledger, video_id)


def test_without_scripts_a_video_is_found_decided_and_taken_back(ana, ledger):
    first, second = put(ledger, "vid_1"), put(ledger, "vid_2", peaks=(0.7,))
    queue = ana.get("/").text
    assert queue.index("vid_1") < queue.index("vid_2")
    assert "likely manipulated" in queue
    page = ana.get(f"/videos/vid_1?seq={first}").text
    for expected in ("Face 2", "0.95", "two-thresholds/3", "0123456789ab", "8 of 8 frames, 16 faces", "No pictures."):
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


# --- media -----------------------------------------------------------------------------------------------------------


def test_the_video_is_served_in_ranges_and_only_from_its_folder(ana, ledger, tmp_path):
    (tmp_path / "vid_1.mp4").write_bytes(bytes(range(256)) * 40)
    put(ledger)
    whole = ana.get("/videos/vid_1/media")
    assert (whole.status_code, len(whole.content), whole.headers["content-type"]) == (200, 10_240, "video/mp4")
    part = ana.get("/videos/vid_1/media", headers={"range": "bytes=256-260"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, bytes(range(5)), "bytes 256-260/10240")
    assert ana.get("/videos/vid_1/media", headers={"range": "bytes=99999-"}).status_code == 416
    assert "sandbox" in part.headers["content-security-policy"]
    assert Person(ana.api).get("/videos/vid_1/media").status_code == 303
    (tmp_path / "vid_1.mp4").unlink()
    assert ana.get("/videos/vid_1/media").status_code == 404
    assert "no longer there" in ana.get("/videos/vid_1").text


@pytest.mark.parametrize("source", ["s3://bucket/key.mp4", "https://host/clip.mp4", "file:///etc/passwd", "/etc/passwd"])
def test_sources_out_of_reach_are_not_opened(ana, ledger, source):
    put(ledger, source=source)
    assert ana.get("/videos/vid_1/media").status_code == 404
    assert "another store" in ana.get("/videos/vid_1").text


@pytest.mark.parametrize("source", ["http://[::1", "//[x", "file://{media}/a%00b"])
def test_a_video_whose_source_is_no_location_has_a_page_as_others(ana, ledger, tmp_path, source):
    put(ledger, source=source.replace("{media}", str(tmp_path)))
    assert ana.get("/videos/vid_1").status_code == 200
    assert ana.get("/videos/vid_1/media").status_code == 404


def test_a_link_in_the_media_folder_is_not_followed(ana, ledger, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside.mp4"
    outside.write_bytes(b"secret")
    (tmp_path / "vid_1.mp4").symlink_to(outside)
    put(ledger)
    assert ana.get("/videos/vid_1/media").status_code == 404
    outside.unlink()


def test_heat_maps_are_asked_for_shown_when_ready_and_refused_in_words(ana, ledger):
    seq = put(ledger)
    asked = ana.send(f"/videos/vid_1/heatmap?seq={seq}")
    assert "A worker is making the heat-maps" in asked.text
    assert "tries=2" in ana.get(f"/videos/vid_1/heatmap?seq={seq}&tries=1").text
    assert "No worker has answered" in ana.get(f"/videos/vid_1/heatmap?seq={seq}&tries=90").text
    job_id = ledger.review_item(seq).ledger_id
    moment = {"t": 3.0, "track": 2, "detector": "blend", "score": 0.9, "pictures": {"grad_cam": "AAAA", "<b>": "BBBB"}}
    ledger.put_explanation(job_id, body={"moments": [moment], "clip": {"bytes": 4}}, clip=b"clip", seconds=60)
    ready = ana.get(f"/videos/vid_1/heatmap?seq={seq}").text
    assert 'src="data:image/jpeg;base64,AAAA"' in ready
    assert "<b>" not in ready
    assert ana.get(f"/videos/vid_1/heatmap/clip?seq={seq}").content == b"clip"
    assert ana.get("/videos/nobody/heatmap").status_code == 404
    assert Person(ana.api).get(f"/videos/vid_1/heatmap?seq={seq}").status_code == 303


def test_the_case_file_of_an_appeal_is_a_link_away(ana, ledger):
    seq = put(ledger)
    assert f"/review/videos/vid_1/case.zip?seq={seq}" in ana.get("/videos/vid_1").text
    answer = ana.get(f"/videos/vid_1/case.zip?seq={seq}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as case:
        assert any(name.endswith("verdict.json") for name in case.namelist())
    assert Person(ana.api).get("/videos/vid_1/case.zip").status_code == 303


def test_heat_maps_can_be_switched_off(ledger, tmp_path):
    seq, person = put(ledger), sign_in(make_caller(ledger, state_dir=tmp_path, explanation_seconds=0), ledger)
    assert "switched off here" in person.send(f"/videos/vid_1/heatmap?seq={seq}").text
