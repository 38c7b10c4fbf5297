"""Who gets in to the review pages, and until when."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from api_caller import ADMIN_KEY, KEYS, READ_KEY, ApiCaller, make_caller
from review_reader import ALL_KEYS, REVIEW_KEY, SECRET, Person, put, sign_in
from workers.errors import LedgerUnavailableError, SettingsError
from workers.settings import Settings
from workers.up import server_config
from workers.web.auth import key_digest
from workers.web.session import reviewer_name
from workers.web.signed_in import own_path


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


@pytest.mark.parametrize("name", ["sampling", " Ledger "])
def test_nobody_signs_in_under_a_name_whose_lines_no_person_writes(api, name):
    person = Person(api)
    refused = person.call("POST", "/login", data={"name": name, "key": REVIEW_KEY})
    assert (refused.status_code, "is not ledger or sampling" in refused.text) == (422, True)
    assert person.get("/").status_code == 303
