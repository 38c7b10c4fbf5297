"""Requests are counted by route template, so that no caller can make a new series."""

from __future__ import annotations

from api_caller import make_caller
from workers.ledger import Ledger


def test_requests_are_counted_by_template_and_never_by_path(tmp_path):
    ledger = Ledger.in_memory()
    api = make_caller(ledger, state_dir=tmp_path)
    for path in ("/v1/videos/secret_1", "/v1/videos/secret_2", "/nothing/secret_3", "/review/videos/secret_4", "/review/static/keys.js"):
        api.get(path)
    api.post("/v1/videos", json={"video_id": "a"})
    text = api.get("/metrics").text
    assert 'veriframe_http_requests_total{method="GET",route="/v1/videos/{video_id}",status="404"} 2.0' in text
    assert 'veriframe_http_requests_total{method="POST",route="/v1/videos",status="202"} 1.0' in text
    assert "secret_" not in text
    ledger.close()


def test_methods_that_nobody_knows_are_counted_as_one(tmp_path):
    ledger = Ledger.in_memory()
    api = make_caller(ledger, state_dir=tmp_path)
    for number in range(3):
        api.call(f"MADE-UP-{number}", "/livez")
    text = api.get("/metrics").text
    assert 'method="other"' in text
    assert "MADE-UP" not in text
    ledger.close()
