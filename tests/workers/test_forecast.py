"""The prediction of work: learned from ended videos, applied to sums of what producers know."""

from __future__ import annotations

import random

import pytest

from workers.broker import MemoryDispatcher
from workers.forecast import DEFAULT_SECONDS, MIN_SAMPLES, CostModel, MediaCost, MediaSums, fit
from workers.gauges import QueueGauges
from workers.janitor import Janitor
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages.enqueue import parse_enqueue
from workers.metrics import Metrics
from workers.settings import Settings


def costs(num: int, *, noise: float = 0.0, seed: int = 1) -> list[MediaCost]:
    """0.4 s, 20 ms a second, 0.5 s a megapixel and 0.3 s a face."""
    rng = random.Random(seed)
    made = []
    for _ in range(num):
        duration, size, faces = rng.uniform(2, 300), rng.choice([0.3, 0.9, 2.1, 8.3]), rng.choice([0, 1, 2, 8])
        work = 0.4 + 0.02 * duration + 0.5 * size + 0.3 * faces
        made.append(MediaCost(duration, size, faces, work * rng.uniform(1 - noise, 1 + noise)))
    return made


def sums(videos: list[MediaCost]) -> MediaSums:
    n = len(videos)
    return MediaSums(
        num_videos=n,
        duration_seconds=sum(v.duration_seconds for v in videos),
        num_with_duration=n,
        megapixels=sum(v.megapixels for v in videos),
        num_with_megapixels=n,
        num_faces=sum(v.num_faces for v in videos),
        num_with_faces=n,
    )


def test_prices_are_found_again_and_apply_to_a_backlog_that_differs_from_the_past():
    model = fit(costs(60))
    assert (model.base_seconds, model.per_second, model.per_megapixel, model.per_face) == pytest.approx((0.4, 0.02, 0.5, 0.3))
    long_ones = [video for video in costs(300, seed=2) if video.duration_seconds > 250]
    assert model.predict(sums(long_ones)) == pytest.approx(sum(video.work_seconds for video in long_ones))


def test_noise_moves_a_prediction_of_many_videos_little():
    fresh = costs(200, noise=0.5, seed=3)
    assert fit(costs(200, noise=0.5)).predict(sums(fresh)) == pytest.approx(sum(video.work_seconds for video in fresh), rel=0.15)


def test_what_a_producer_does_not_say_counts_as_the_mean():
    past = costs(60)
    mean = sum(video.work_seconds for video in past) / len(past)
    assert fit(past).predict(MediaSums(num_videos=10)) == pytest.approx(10 * mean)
    assert CostModel().predict(MediaSums(num_videos=10)) == 10 * DEFAULT_SECONDS


def test_few_videos_teach_the_mean_only_and_no_price_is_negative():
    few = fit(costs(MIN_SAMPLES - 1))
    assert (few.per_second, few.per_megapixel, few.per_face) == (0, 0, 0)
    falling = [MediaCost(duration, 1.0, 1.0, 20.0 - duration / 10) for duration in range(100)]
    model = fit(falling)
    assert model.per_second == 0
    assert model.base_seconds == pytest.approx(sum(c.work_seconds for c in falling) / 100)
    dear = fit([MediaCost(duration, 1.0, 1.0, max(0.0, duration - 50.0)) for duration in range(100)])
    assert min(dear.base_seconds, dear.per_second) >= 0


def test_a_running_video_has_work_left_until_it_ends():
    running = MediaSums(num_videos=2, elapsed_seconds=45.0)
    assert CostModel().left(running) == 15.0
    assert CostModel().left(MediaSums(num_videos=2, elapsed_seconds=4500.0)) == 6.0


def submit(ledger: Ledger, video_id: str, **media: float) -> str:
    request = parse_enqueue({"video_id": video_id, "lane": "bulk", **({"media": media} if media else {})})
    return ledger.submit(Submission(request=request, door="cli")).ledger_id


def end(ledger: Ledger, job: str, *, cost: MediaCost) -> None:
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = {
        "video": {"width": 1000, "height": round(cost.megapixels * 1000), "duration": cost.duration_seconds},
        "sampling": {"faces": round(cost.num_faces * 8), "decoded": 8},
        "timing_ms": {"total": cost.work_seconds * 1000},
    }
    record = VerdictRecord(content_sha256=job, bundle_set="b", policy="p", verdict="authentic", p_fake=0.1, body=body)
    ledger.commit_verdict(claim, verdict=record, urls=[])


def test_the_gauge_is_the_predicted_time_of_what_waits_and_runs():
    ledger, metrics = Ledger.in_memory(), Metrics()

    def work(gauges: QueueGauges) -> float:
        gauges.set_all()
        return metrics.registry.get_sample_value("veriframe_queue_work_seconds", {"queue": "bulk"})

    submit(ledger, "unknown")
    assert work(QueueGauges(ledger, client=None, metrics=metrics)) == DEFAULT_SECONDS
    for i, cost in enumerate(costs(40)):
        end(ledger, submit(ledger, f"past-{i}"), cost=cost)
    ledger.fail(ledger.claim(submit(ledger, "gone"), owner="w", lease_seconds=60), code="INTERNAL", message="m", body={}, urls=[])
    submit(ledger, "long", duration_seconds=3600.0, width=1920, height=1080, num_faces=2)
    learned = QueueGauges(ledger, client=None, metrics=metrics)
    before = work(learned)
    mean = sum(cost.work_seconds for cost in costs(40)) / 40
    assert before == pytest.approx(mean + 0.4 + 0.02 * 3600 + 0.5 * 2.0736 + 0.3 * 2, rel=0.01)
    ledger.claim(submit(ledger, "running", duration_seconds=100.0), owner="w", lease_seconds=60)
    assert work(QueueGauges(ledger, client=None, metrics=metrics)) > before + 1.0, "a running video is work that is left"
    ledger.close()


def test_a_long_backlog_is_added_up_rarely_a_short_one_at_every_look(monkeypatch):
    ledger = Ledger.in_memory()
    now = [1000.0]
    monkeypatch.setattr("workers.gauges.time.monotonic", lambda: now[0])
    real, asked = ledger.media_sums, []

    def slow() -> object:
        asked.append(now[0])
        now[0] += 1.0  # as a million waiting rows would take
        return real()

    monkeypatch.setattr(ledger, "media_sums", slow)
    gauges = QueueGauges(ledger, client=None, metrics=Metrics())
    for _ in range(20):
        gauges.set_all()
        now[0] += 5.0
    assert 2 <= len(asked) <= 3
    ledger.close()


def test_the_leading_janitor_sets_it():
    ledger, metrics = Ledger.in_memory(), Metrics()
    submit(ledger, "a")
    janitor = Janitor(ledger, MemoryDispatcher(), client=None, settings=Settings(), metrics=metrics, owner="j")
    janitor.step()
    assert metrics.registry.get_sample_value("veriframe_queue_work_seconds", {"queue": "bulk"}) == DEFAULT_SECONDS
    ledger.close()


@pytest.mark.parametrize("media", [{"duration_seconds": -1}, {"width": 0}, {"num_faces": "many"}, {"length": 3}])
def test_a_hint_that_makes_no_sense_is_refused(media):
    from workers.errors import InvalidMessageError

    with pytest.raises(InvalidMessageError, match="media"):
        parse_enqueue({"video_id": "a", "media": media})


def test_the_review_queue_is_gauged_and_decisions_are_counted_once():
    ledger, metrics = Ledger.in_memory(), Metrics()
    gauges = QueueGauges(ledger, client=None, metrics=metrics)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    claim = ledger.claim(submit(ledger, "doubtful"), owner="w", lease_seconds=60)
    assert isinstance(claim, Claim)
    record = VerdictRecord(content_sha256="0" * 64, bundle_set="b", policy="p", verdict="suspicious", p_fake=0.6, body={"reason_codes": []})
    ledger.commit_verdict(claim, verdict=record, urls=[])
    gauges._set_reviews()
    assert value("veriframe_review_queue_length") == 1
    assert value("veriframe_review_queue_oldest_age_seconds") >= 0
    with ledger.engine.connect() as connection:
        seq = connection.exec_driver_sql("select verdict_seq from review_items").scalar_one()
    ledger.review_decide(seq, actor="ann", decision="fake")
    for _ in range(2):
        gauges._set_reviews()
    assert value("veriframe_review_queue_length") == 0
    assert value("veriframe_review_queue_oldest_age_seconds") == 0
    assert value("veriframe_verdict_reviews_total", decision="fake", verdict="suspicious") == 1
    ledger.close()
