"""Every route the application has refuses missing, wrong, expired and scope-less credentials; a new route is tried by itself."""

from __future__ import annotations

import pytest

from hostile.credentials import PUBLIC, Matrix, doors_of
from workers.ledger import Ledger


@pytest.fixture(scope="module")
def matrix():
    ledger = Ledger.in_memory()
    yield Matrix(ledger)
    ledger.close()


def test_every_closed_door_rejects_every_bad_credential(matrix):
    tries = matrix.tries()
    assert {each.credential for each in tries} == {"missing", "wrong", "expired", "scope-less"}
    assert len({each.door for each in tries}) == len(matrix.doors) > 25
    assert [each for each in tries if not each.rejected] == []


def test_the_right_key_opens_each_door_of_the_api(matrix):
    closed = [door for door in matrix.doors if not door.is_page and not matrix.passes(door)]
    assert closed == []


def test_every_route_of_the_api_says_which_scope_it_wants(matrix):
    wanted = {(door.method, door.path): door.scope for door in matrix.doors if not door.is_page}
    assert None not in wanted.values(), wanted
    assert {scope for (method, _path), scope in wanted.items() if method == "DELETE"} == {"admin"}
    assert {scope for (_method, path), scope in wanted.items() if "review" in path or "explanation" in path} == {"review"}
    assert wanted["POST", "/v1/videos"] == "submit"
    assert wanted["GET", "/v1/videos/{video_id}"] == "read"


def test_a_good_session_opens_the_pages(matrix):
    assert matrix.signed_in() == 200


def test_the_public_list_names_real_routes_only(matrix):
    assert {(door.method, door.path) for door in doors_of(matrix.api.app)} >= PUBLIC


def test_no_public_answer_tells_about_videos(matrix):
    for method, path in sorted(PUBLIC):
        answer = matrix.api.call(method, path.replace("{token}", "guess"))
        assert "vid_1" not in answer.text, path
        assert answer.status_code < 500, path


def test_every_answer_carries_the_headers_that_keep_browsers_out(matrix):
    for door in doors_of(matrix.api.app):
        headers = matrix.api.call(door.method, door.address).headers
        assert headers["x-content-type-options"] == "nosniff", door
        assert headers["x-frame-options"] == "DENY", door
        assert "default-src 'none'" in headers["content-security-policy"], door
        assert "unsafe" not in headers["content-security-policy"], door
        assert headers["referrer-policy"] in ("no-referrer", "same-origin"), door
        assert "server" not in headers, door
