"""The list of verdicts: every filter, pages that lose and repeat nothing, tenants apart, bad values named, the client's side of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, update

from api_caller import KEYS, assert_typed, make_caller
from verdict_builders import put_verdict
from workers.client import ApiError, VeriframeClient
from workers.ledger import Ledger, Submission, VerdictFilter, VerdictRecord
from workers.ledger.schema import verdicts
from workers.messages import parse_enqueue
from workers.web.auth import key_digest

from .test_client import InProcess

NINE = datetime(2026, 11, 20, 9, tzinfo=UTC).timestamp()
OTHER_SET = "second@ffff00001111"


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


@pytest.fixture
def filled(ledger):
    """For tests that add to it."""
    return fill(ledger)


@pytest.fixture(scope="module")
def archive():
    """For tests that only read."""
    opened = Ledger.in_memory()
    yield fill(opened)
    opened.close()


@pytest.fixture(scope="module")
def api(archive):
    return make_caller(archive)


def fill(ledger: Ledger) -> Ledger:
    """a0 to a5 and b6 to b9, an hour apart from nine o'clock on, with scores 0.05, 0.15 ... 0.95; b9 is of another bundle set."""
    for number in range(10):
        name = "a" if number < 6 else "b"
        made_by = OTHER_SET if number == 9 else "default@0123456789ab"
        put_verdict(ledger, f"{name}{number}", peaks=(0.05 + number / 10,), content_sha256=f"{number:064x}", bundle_set=made_by)
    put_verdict(ledger, "a_none", peaks=(), content_sha256="e" * 64)
    with ledger.engine.begin() as connection:
        for number in range(11):
            connection.execute(update(verdicts).where(verdicts.c.seq == number + 1).values(created_at=NINE + 3600 * number))
    return ledger


def names(ledger: Ledger, **options) -> list[str]:
    return [row.body["video_id"] for row in ledger.list_verdicts(VerdictFilter(**options))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["a_none", "b9", "b8", "b7", "b6", "a5", "a4", "a3", "a2", "a1", "a0"]),
        ({"words": ("manipulated",)}, ["b9", "b8"]),
        ({"words": ("suspicious", "manipulated")}, ["b9", "b8", "b7", "b6"]),
        ({"words": ("inconclusive",)}, ["a_none"]),
        ({"created_from": NINE + 3 * 3600, "created_to": NINE + 5 * 3600}, ["a4", "a3"]),
        ({"p_fake_min": 0.55, "p_fake_max": 0.75}, ["b7", "b6", "a5"]),
        ({"p_fake_max": 1.0}, ["b9", "b8", "b7", "b6", "a5", "a4", "a3", "a2", "a1", "a0"]),
        ({"video_id_prefix": "a"}, ["a_none", "a5", "a4", "a3", "a2", "a1", "a0"]),
        ({"video_id_prefix": "a_"}, ["a_none"]),  # no wildcard
        ({"video_id_prefix": "A"}, []),
        ({"video_id": "a3"}, ["a3"]),
        ({"video_id": "a"}, []),
        ({"content_sha256": f"{7:064x}"}, ["b7"]),
        ({"content_sha256": f"{7:064x}", "words": ("authentic",)}, []),
        ({"bundle_set": OTHER_SET}, ["b9"]),
        ({"bundle_set": "second"}, ["b9"]),
        ({"bundle_set": "ffff00001111"}, ["b9"]),
        ({"bundle_set": "sec"}, []),
        ({"words": ("authentic", "suspicious"), "video_id_prefix": "b", "created_to": NINE + 7 * 3600}, ["b6"]),
        ({"tenant": "acme"}, []),
    ],
)
def test_every_filter_holds_alone_and_with_others(archive, options, expected):
    assert names(archive, **options) == expected


def test_what_people_decided_on_is_apart_from_what_waits_and_what_nobody_needs_to_see(filled):
    waiting = {item.video_id: item.verdict_seq for item in filled.review_queue()}
    filled.review_decide(waiting["b8"], actor="ana", decision="fake")
    filled.review_decide(waiting["b6"], actor="ana", decision="clean", second_share=1.0)  # waits for its second reader
    assert names(filled, is_reviewed=True) == ["b8"]
    assert names(filled, is_reviewed=False, words=("suspicious", "manipulated")) == ["b9", "b7", "b6"]


@pytest.mark.parametrize("options", [{}, {"words": ("authentic", "manipulated")}, {"video_id_prefix": "a"}, {"p_fake_min": 0.3}])
@pytest.mark.parametrize("size", [1, 3])
def test_pages_lose_nothing_and_repeat_nothing(archive, options, size):
    wanted, seen, cursor = VerdictFilter(**options), [], None
    while page := archive.list_verdicts(wanted, before=cursor, limit=size):
        seen += [row.body["video_id"] for row in page]
        cursor = page[-1].seq
    assert seen == names(archive, **options)


def test_a_verdict_that_was_erased_between_two_pages_ends_no_list(filled):
    first = filled.list_verdicts(limit=4)
    last = first[-1].body["video_id"]
    filled.erase_video(last, actor="test")
    assert [row.body["video_id"] for row in filled.list_verdicts(before=first[-1].seq)] == ["b6", "a5", "a4", "a3", "a2", "a1", "a0"]


def test_all_revisions_of_one_video_are_listed(filled):
    request = parse_enqueue({"video_id": "a3", "content_sha256": "d" * 64})
    claim = filled.claim(filled.submit(Submission(request=request, door="http")).ledger_id, owner="w", lease_seconds=60)
    body = {"verdict": "manipulated"}
    again = VerdictRecord(content_sha256="d" * 64, bundle_set="b", policy="p", verdict="manipulated", p_fake=0.95, body=body)
    assert filled.commit_verdict(claim, verdict=again, urls=[])
    assert [row.body["verdict"] for row in filled.list_verdicts(VerdictFilter(video_id="a3"))] == ["manipulated", "authentic"]


def test_a_page_is_read_from_the_index_and_only_its_own_bodies_are_looked_up(ledger):
    sent: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        sent.append((statement, parameters))

    event.listen(ledger.engine, "before_cursor_execute", note)
    ledger.list_verdicts(VerdictFilter(words=("suspicious",), created_from=1.0, p_fake_min=0.5, video_id_prefix="a", bundle_set="b"))
    ledger.list_verdicts(VerdictFilter(video_id="a", words=("suspicious",), created_from=1.0))
    ledger.list_verdicts(VerdictFilter(content_sha256="a", words=("suspicious",), created_from=1.0))
    ledger.list_verdicts(VerdictFilter(is_reviewed=True))
    event.remove(ledger.engine, "before_cursor_execute", note)
    with ledger.engine.connect() as connection:
        plans = [
            " ".join(str(row[3]) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters))
            for statement, parameters in sent
            if not statement.startswith("BEGIN")
        ]
    walked, by_name, by_content, reviewed = plans
    assert "COVERING INDEX ix_verdicts_list (tenant=? AND verdict=? AND created_at>?" in walked
    assert "tenant=? AND video_id=?" in by_name
    assert "ix_verdicts_content (content_sha256=?)" in by_content
    assert reviewed.count("COVERING INDEX ix_verdicts_list") == 4
    assert reviewed.count("review_items_1 (verdict_seq=?)") == 4
    assert not any("SCAN verdicts" in plan for plan in plans)


def test_the_api_takes_the_filters_and_gives_a_tenant_its_own_only(filled):
    api = make_caller(filled, api_keys=KEYS)
    filled.add_key(key_id="k", digest=key_digest("acme-key"), name="k", scopes=["read", "submit"], tenant="acme", days=None, actor="test")
    house, acme = {"x-api-key": "read-secret"}, {"x-api-key": "acme-key"}
    params = {"verdict": ["manipulated", "suspicious"], "created_from": "2026-11-20T16:00:00+01:00", "p_fake_max": "0.9", "reviewed": "no"}
    page = api.get("/v1/verdicts", params={**params, "limit": 2}, headers=house).json()
    assert [body["video_id"] for body in page["verdicts"]] == ["b8", "b7"]
    rest = api.get("/v1/verdicts", params={**params, "cursor": page["next_cursor"]}, headers=house).json()
    assert ([body["video_id"] for body in rest["verdicts"]], rest["next_cursor"]) == (["b6"], None)
    for filters in ({}, {"video_id": "a3"}, {"content_sha256": f"{7:064x}"}, {"video_id_prefix": "a"}, {"cursor": 9}):
        assert api.get("/v1/verdicts", params=filters, headers=acme).json() == {"verdicts": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"verdict": "fake"}, "verdict"),
        ({"verdit": "suspicious"}, "verdit"),
        ({"created_from": "yesterday"}, "created_from"),
        ({"created_from": "0"}, "created_from"),
        ({"created_to": "1763629200"}, "created_to"),
        ({"created_from": "2026-11-20T09:00:00"}, "timezone"),
        ({"created_from": "2026-11-21T09:00:00Z", "created_to": "2026-11-20T09:00:00Z"}, "created_to"),
        ({"p_fake_min": "2"}, "p_fake_min"),
        ({"p_fake_min": "nan"}, "p_fake_min"),
        ({"p_fake_min": "0.9", "p_fake_max": "0.1"}, "p_fake_max"),
        ({"video_id": "../x"}, "video_id"),
        ({"video_id_prefix": "a\n"}, "video_id_prefix"),
        ({"content_sha256": "C" * 64}, "content_sha256"),
        ({"bundle_set": "a b"}, "bundle_set"),
        ({"reviewed": "maybe"}, "reviewed"),
        ({"cursor": "0"}, "cursor"),
        ({"cursor": str(2**70)}, "less than or equal"),
        ({"limit": "501"}, "limit"),
    ],
)
def test_a_bad_filter_is_refused_by_name(api, params, named):
    answer = api.get("/v1/verdicts", params=params)
    assert_typed(answer, 422, "INVALID_MESSAGE")
    assert named in answer.json()["message"]


def test_openapi_names_every_filter_and_the_shape_of_a_page(api):
    operation = api.get("/openapi.json").json()["paths"]["/v1/verdicts"]["get"]
    given = {parameter["name"] for parameter in operation["parameters"]}
    assert given >= {"cursor", "limit", "verdict", "created_from", "created_to", "p_fake_min", "p_fake_max", "reviewed"}
    assert given >= {"video_id", "video_id_prefix", "content_sha256", "bundle_set"}
    assert "VerdictPage" in json.dumps(operation["responses"]["200"])


def test_the_client_names_them_alike(api):
    with VeriframeClient("http://localhost", transport=InProcess(api)) as client:
        from_four = datetime.fromtimestamp(NINE + 7 * 3600, UTC)
        found = client.verdicts(verdict=["suspicious", "manipulated"], created_from=from_four, reviewed=False, page=1)
        assert [each.video_id for each in found] == ["b9", "b8", "b7"]
        assert [each.video_id for each in client.verdicts(p_fake_min=0.5, p_fake_max=0.7, video_id_prefix="b")] == ["b6"]
        assert [each.video_id for each in client.verdicts(bundle_set="second", content_sha256=f"{9:064x}", video_id="b9")] == ["b9"]
        with pytest.raises(ApiError, match="p_fake_min") as caught:
            list(client.verdicts(p_fake_min=3))
        assert (caught.value.api_code, caught.value.status) == ("INVALID_MESSAGE", 422)
