"""What metrics cost: counted on real calls, and a scrape of a hundred label sets is one page."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.scaling.measure import series_of_a_worker
from tests.scaling.metrics_cost import LABEL_SETS, counted, full_page, scrape_seconds
from workers.metrics import Metrics


def test_calls_are_counted_and_the_library_is_left_as_it_was():
    metrics = Metrics()
    with counted() as calls:
        metrics.processing_seconds.labels(queue="default").observe(1.0)
        metrics.frames_decoded.inc(3)
        metrics.worker_ready.set(1)
    metrics.frames_decoded.inc(3)
    assert dict(calls) == {"labels": 1, "observe": 1, "inc": 1, "set": 1}


def test_the_full_page_holds_its_label_sets_and_can_be_scraped():
    metrics = full_page(LABEL_SETS)
    text, _content_type = metrics.expose(None)
    [family] = [each for each in text_string_to_metric_families(text.decode()) if each.name == "veriframe_stage_duration_seconds"]
    assert sum(sample.name.endswith("_count") for sample in family.samples) == LABEL_SETS
    wall, cpu = scrape_seconds(metrics, times=3)
    assert wall > 0
    assert cpu > 0


def test_a_worker_stays_far_below_what_one_prometheus_holds_per_target():
    assert 200 < series_of_a_worker() < 2000
