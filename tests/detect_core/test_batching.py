from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from detect_core.batching import BatchReport, MicroBatcher, Share
from detect_core.errors import DetectorError, ScreeningCancelled


@pytest.fixture
def batcher() -> Iterator[MicroBatcher]:
    made = MicroBatcher()
    yield made
    made.close()


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_results_come_back_in_order(batcher: MicroBatcher) -> None:
    batcher.add_lane("square", lambda items: [item * item for item in items], max_batch=7)

    assert batcher.submit("square", list(range(50)), deadline=soon()) == [i * i for i in range(50)]


def test_batches_are_shared_by_videos() -> None:
    reports: list[BatchReport] = []
    owners: list[set[str]] = []
    running, gate = threading.Event(), threading.Event()

    def run(items: list[tuple[str, int]]) -> list[int]:
        running.set()
        gate.wait(10)
        owners.append({owner for owner, _ in items})
        return [number for _, number in items]

    batcher = MicroBatcher(on_batch=reports.append)
    batcher.add_lane("net", run, max_batch=32)
    plug, *threads = [
        threading.Thread(target=batcher.submit, args=("net", [(owner, i) for i in range(count)]), kwargs={"deadline": soon(30)})
        for owner, count in [("plug", 1), *((owner, 4) for owner in "abcdef")]
    ]
    plug.start()
    assert running.wait(10)
    for thread in threads:
        thread.start()
    given_up = soon()
    while batcher.num_waiting < 24 and time.monotonic() < given_up:
        time.sleep(0.005)
    gate.set()
    for thread in (plug, *threads):
        thread.join()
    batcher.close()

    assert owners == [{"plug"}, set("abcdef")]
    assert [report.num_items for report in reports] == [1, 24]


def test_a_passed_deadline_is_refused_before_the_device_is_asked(batcher: MicroBatcher) -> None:
    ran: list[int] = []
    batcher.add_lane("net", lambda items: ran.extend(items) or items, max_batch=8)

    with pytest.raises(DetectorError, match="deadline"):
        batcher.submit("net", [1], deadline=time.monotonic() - 1)
    assert not ran


def test_one_bad_item_fails_alone(batcher: MicroBatcher) -> None:
    def run(items: list[int]) -> list[int]:
        if 13 in items:
            raise RuntimeError("thirteen")
        return items

    batcher.add_lane("net", run, max_batch=32)
    good: list[list[int]] = []
    neighbours = [threading.Thread(target=lambda n=n: good.append(batcher.submit("net", [n] * 5, deadline=soon()))) for n in range(4)]
    for thread in neighbours:
        thread.start()
    with pytest.raises(DetectorError, match="thirteen"):
        batcher.submit("net", [1, 13, 2], deadline=soon())
    for thread in neighbours:
        thread.join()

    assert sorted(good) == [[n] * 5 for n in range(4)]


def test_out_of_memory_halves_the_batch(batcher: MicroBatcher) -> None:
    sizes: list[int] = []

    def run(items: list[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise MemoryError
        return items

    batcher.add_lane("net", run, max_batch=8)

    assert batcher.submit("net", list(range(8)), deadline=soon()) == list(range(8))
    assert max(sizes) > 2


def test_a_huge_submission_does_not_starve_a_small_one_in_another_lane(batcher: MicroBatcher) -> None:
    def slow(items: list[int]) -> list[int]:
        time.sleep(0.01)
        return items

    batcher.add_lane("flood", slow, max_batch=4)
    batcher.add_lane("small", slow, max_batch=4)
    flood = threading.Thread(target=batcher.submit, args=("flood", list(range(800))), kwargs={"deadline": soon(30)})
    flood.start()
    time.sleep(0.1)
    # items of the flood enqueued before the small one go first, but nothing that comes later
    started = time.monotonic()
    batcher.submit("small", [1], deadline=soon())
    waited = time.monotonic() - started
    flood.join()

    assert waited < 2.5


def held_up(batcher: MicroBatcher) -> tuple[threading.Event, list[list[str]]]:
    """A lane "net" whose first batch is running until the event is set, and the batches that it ran."""
    go, busy, batches = threading.Event(), threading.Event(), []

    def run(items: list[str]) -> list[str]:
        batches.append(list(items))
        busy.set()
        assert go.wait(30)
        return items

    batcher.add_lane("net", run, max_batch=4)
    batcher.start("net", ["first"], deadline=soon(60))
    assert busy.wait(30)
    return go, batches


def test_what_a_cancelled_screening_queued_is_not_run(batcher: MicroBatcher) -> None:
    go, batches = held_up(batcher)
    cancel = threading.Event()
    batcher.start("net", ["cancelled"] * 6, deadline=soon(60), cancel=cancel)
    other = batcher.start("net", ["other"], deadline=soon(60), cancel=threading.Event())
    cancel.set()
    go.set()
    other()

    assert batches == [["first"], ["other"]]


def test_what_was_queued_is_not_run_after_its_deadline(batcher: MicroBatcher) -> None:
    go, batches = held_up(batcher)
    late = batcher.start("net", ["late"] * 6, deadline=soon(0.1))
    other = batcher.start("net", ["other"], deadline=soon(60))
    time.sleep(0.2)
    go.set()
    other()

    assert batches == [["first"], ["other"]]
    with pytest.raises(DetectorError, match="deadline"):
        late()


def test_what_was_abandoned_is_not_run(batcher: MicroBatcher) -> None:
    go, batches = held_up(batcher)
    batcher.start("net", ["abandoned"] * 6, deadline=soon(60)).abandon()
    other = batcher.start("net", ["other"], deadline=soon(60))
    go.set()
    other()

    assert batches == [["first"], ["other"]]


def test_a_video_that_had_more_of_the_device_waits_and_does_not_make_the_batches_of_others_longer(batcher: MicroBatcher) -> None:
    go, batches = held_up(batcher)
    crowd = batcher.start("net", ["crowd"] * 6, deadline=soon(60), share=Share(seconds=1e6))
    small = batcher.start("net", ["small"] * 2, deadline=soon(60), share=Share())
    go.set()
    crowd(), small()

    assert batches == [["first"], ["small"] * 2, ["crowd"] * 4, ["crowd"] * 2]


def test_a_heavy_video_has_short_batches_and_rests_while_another_is_screened(batcher: MicroBatcher) -> None:
    spans: list[tuple[int, float, float]] = []

    def run(items: list[int]) -> list[int]:
        started = time.monotonic()
        time.sleep(0.02 * len(items))
        spans.append((len(items), started, time.monotonic()))
        return items

    batcher.add_lane("net", run, max_batch=8)
    share, other = Share(had_seconds=10), Share()
    batcher.submit("net", [0], deadline=soon(60), share=other)
    spans.clear()

    # When one item at a time is all that it may have at first, and as many as fit into a twentieth of a second then
    batcher.submit("net", list(range(5)), deadline=soon(60), share=share)
    assert [count for count, _, _ in spans] == [1, 2, 2]
    for (_, started, ended), (_, begun, _) in pairwise(spans):
        assert begun - ended >= 1.9 * (ended - started)

    # Then alone it gets whole batches at once
    del other
    spans.clear()
    batcher.submit("net", list(range(16)), deadline=soon(60), share=share)
    assert [count for count, _, _ in spans] == [8, 8]
    assert spans[1][1] - spans[0][2] < 0.1


def test_an_ordinary_video_does_not_wait_for_the_rest_of_a_heavy_one(batcher: MicroBatcher) -> None:
    batcher.add_lane("net", lambda items: items, max_batch=8)
    other, heavy = Share(), Share(had_seconds=10, rests_until=time.monotonic() + 30)
    crowd = batcher.start("net", ["crowd"], deadline=soon(60), share=heavy)

    assert batcher.submit("net", ["small"], deadline=soon(5), share=other) == ["small"]
    heavy.rests_until = 0.0
    batcher.submit("net", ["small"], deadline=soon(5), share=other)
    assert crowd() == ["crowd"]


def test_beside_a_heavy_video_an_ordinary_one_gets_most_of_the_device(batcher: MicroBatcher) -> None:
    order: list[str] = []

    def run(items: list[str]) -> list[str]:
        time.sleep(0.004)
        order.extend(items)
        return items

    batcher.add_lane("net", run, max_batch=1)
    crowd = batcher.start("net", ["crowd"] * 60, deadline=soon(60), share=Share(had_seconds=10))
    batcher.submit("net", ["small"] * 40, deadline=soon(60), share=Share())
    until_then = order.count("crowd")
    crowd()

    assert 5 <= until_then <= 20  # a half would be 40
    assert order.count("crowd") == 60


def test_videos_that_had_the_same_share_their_batches_oldest_first(batcher: MicroBatcher) -> None:
    go, batches = held_up(batcher)
    waits = [batcher.start("net", [name] * 2, deadline=soon(60), share=Share()) for name in ("a", "b", "c")]
    go.set()
    for wait in waits:
        wait()

    assert batches == [["first"], ["a", "a", "b", "b"], ["c", "c"]]


def test_newcomers_without_end_do_not_starve_a_video_that_had_its_share(batcher: MicroBatcher) -> None:
    order: list[str] = []

    def run(items: list[str]) -> list[str]:
        order.extend(items)
        time.sleep(0.005)
        return items

    batcher.add_lane("net", run, max_batch=1)
    stop = threading.Event()

    def keep_coming() -> None:
        while not stop.is_set():
            batcher.submit("net", ["new"], deadline=soon(60), share=Share())

    threads = [threading.Thread(target=keep_coming) for _ in range(3)]
    for thread in threads:
        thread.start()
    batcher.submit("net", ["crowd"] * 3, deadline=soon(60), share=Share(seconds=0.05))
    stop.set()
    for thread in threads:
        thread.join()

    assert order.count("crowd") == 3


def test_many_small_videos_wait_no_longer_than_the_work_that_was_there_before_them() -> None:
    order: list[int] = []

    def run(items: list[int]) -> list[int]:
        order.extend(items)
        time.sleep(0.002)
        return items

    batcher = MicroBatcher(max_waiting=64)
    batcher.add_lane("net", run, max_batch=4)
    videos = [threading.Thread(target=batcher.submit, args=("net", [video] * 8), kwargs={"deadline": soon(30)}) for video in range(40)]
    for thread in videos:
        thread.start()
    for thread in videos:
        thread.join()
    batcher.close()

    assert sorted(order) == sorted(video for video in range(40) for _ in range(8))


def test_the_deadline_and_the_cancel_event_end_the_wait(batcher: MicroBatcher) -> None:
    release = threading.Event()
    batcher.add_lane("stuck", lambda items: [release.wait(10) for _ in items], max_batch=1)

    with pytest.raises(DetectorError, match="deadline"):
        batcher.submit("stuck", [1], deadline=soon(0.2))
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(ScreeningCancelled):
        batcher.submit("stuck", [1], deadline=soon(), cancel=cancel)
    assert batcher.busy_seconds > 0.2
    release.set()


def test_waiting_items_are_bounded() -> None:
    release = threading.Event()
    batcher = MicroBatcher(max_waiting=10)
    batcher.add_lane("stuck", lambda items: [release.wait(10) for _ in items], max_batch=1)
    thread = threading.Thread(target=batcher.submit, args=("stuck", list(range(100))), kwargs={"deadline": soon(30)})
    thread.start()
    time.sleep(0.3)

    assert batcher.num_waiting <= 10
    release.set()
    thread.join()
    batcher.close()


def test_one_crowd_leaves_room_for_the_others_to_ask() -> None:
    batcher = MicroBatcher(max_waiting=64)
    go, batches = held_up(batcher)
    crowd = threading.Thread(target=batcher.submit, args=("net", ["crowd"] * 200), kwargs={"deadline": soon(30), "share": Share(seconds=1)})
    crowd.start()
    given_up = soon()
    while batcher.num_waiting < 8 and time.monotonic() < given_up:
        time.sleep(0.005)
    time.sleep(0.05)
    assert batcher.num_waiting == 8  # an eighth

    other = batcher.start("net", ["other"] * 4, deadline=soon(5), share=Share())
    go.set()
    other()
    crowd.join()
    batcher.close()

    assert batches[1] == ["other"] * 4
    assert sum(batch.count("crowd") for batch in batches) == 200


def test_a_wrong_number_of_results_is_an_error(batcher: MicroBatcher) -> None:
    batcher.add_lane("net", lambda items: items[1:], max_batch=8)

    with pytest.raises(DetectorError, match="results"):
        batcher.submit("net", [1], deadline=soon())


def test_closing_frees_those_who_wait() -> None:
    release = threading.Event()
    batcher = MicroBatcher()
    batcher.add_lane("slow", lambda items: [release.wait(1) for _ in items], max_batch=1)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            batcher.submit("slow", [1, 2, 3], deadline=soon())
        except DetectorError as err:
            errors.append(err)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    batcher.close()
    thread.join(timeout=5)

    assert not thread.is_alive()
    assert len(errors) == 1
