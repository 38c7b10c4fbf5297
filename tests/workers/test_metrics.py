"""The metric set: bounded labels, and series that are there before their first event."""

from __future__ import annotations

from typing import get_args

from prometheus_client.parser import text_string_to_metric_families

from workers import broker, inbox_watch, ingest, metrics
from workers.errors import InvalidMessageError
from workers.ledger.records import Door
from workers.metrics import Metrics


def series(page: Metrics) -> dict[str, list[dict[str, str]]]:
    text, _content_type = page.expose(None)
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_words_that_metrics_repeat_are_those_of_their_owners():
    assert metrics.DISPATCH_LANES == broker.DISPATCH_LANES
    assert get_args(Door) == metrics.DOORS
    assert {InvalidMessageError.code, *(cls.code for cls in InvalidMessageError.__subclasses__())} == set(metrics.REJECTIONS)
    assert inbox_watch.STREAM == ingest.STREAM


def test_a_worker_shows_every_series_that_alerts_watch_before_its_first_video():
    page = Metrics()
    page.prepare_worker(model="set@1", detectors=["blend"], device="cpu")
    found = series(page)
    words = {(labels["verdict"], labels["queue"]) for labels in found["veriframe_videos_processed_total"]}
    assert {word for word, _lane in words} == {"authentic", "suspicious", "manipulated", "inconclusive", "none"}
    assert {labels["reason"] for labels in found["veriframe_video_failures_total"]} == {*metrics.OWN_FAILURES, *metrics.FETCH_FAILURES}
    assert {labels["queue"] for labels in found["veriframe_video_end_to_end_seconds_count"]} == {"urgent", "default", "bulk"}
    assert found["veriframe_faces_scored_total"] == [{"model": "blend"}]


def test_the_control_side_begins_its_counters_at_zero():
    page = Metrics()
    page.prepare_control()
    found = series(page)
    assert len(found["veriframe_videos_enqueued_total"]) == 12
    assert len(found["veriframe_messages_rejected_total"]) == 2 * len(metrics.REJECTIONS)
    assert {labels["code"] for labels in found["veriframe_dead_letters_total"]} == {*metrics.REJECTIONS, "POISONED"}
    assert {labels["outcome"] for labels in found["veriframe_webhook_deliveries_total"]} == {"delivered", "postponed", "given_up"}
    assert not any(name.endswith("_created") for name in found), "a second series per counter that nobody asks for"


def test_build_and_versions_are_told():
    (labels,) = series(Metrics())["veriframe_build_info"]
    assert labels["torch"] != "none"
    assert labels["av"] != "none"
