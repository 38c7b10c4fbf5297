from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect_core.errors import OptionError
from detect_core.video.sample import first_look_of, is_sparse, long_shown, sample_indices, tolerance_seconds


def test_spreads_evenly_over_time_not_over_frames() -> None:
    # Given a second of 100 frames followed by nine seconds of 9 frames
    times = [i / 100 for i in range(100)] + [1.0 + i for i in range(9)]

    chosen = [times[i] for i in sample_indices(8, times_seconds=times)]

    assert sum(t < 1.0 for t in chosen) <= 1
    assert max(chosen) == pytest.approx(8.0, abs=1.0)


@given(
    gaps=st.lists(st.floats(min_value=0.0, max_value=5.0), min_size=1, max_size=80),
    num_frames=st.integers(min_value=1, max_value=100),
)
def test_gives_distinct_ascending_indices_and_never_more_than_there_are(gaps: list[float], num_frames: int) -> None:
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]

    chosen = sample_indices(num_frames, times_seconds=times)

    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(num_frames, len(times))
    assert all(0 <= i < len(times) for i in chosen)


def test_refuses_to_sample_nothing() -> None:
    with pytest.raises(OptionError):
        sample_indices(0, times_seconds=[0.0])


def test_looks_may_move_but_cannot_meet() -> None:
    assert tolerance_seconds(32, span_seconds=32.0) == pytest.approx(0.4)
    assert tolerance_seconds(32, span_seconds=3200.0) == pytest.approx(40.0)
    assert 2 * tolerance_seconds(32, span_seconds=3200.0) < 3200.0 / 32


def test_looks_of_a_long_video_are_sparse() -> None:
    assert is_sparse(32, span_seconds=33.0)
    assert not is_sparse(32, span_seconds=30.0)


@pytest.mark.parametrize(
    ("num_looks", "count", "chosen"), [(32, 8, [2, 6, 10, 14, 18, 22, 26, 30]), (8, 8, list(range(8))), (5, 8, list(range(5))), (20, 8, [1, 4, 7, 10, 13, 16, 19]), (4, None, [0, 1, 2, 3])]
)  # fmt: skip
def test_a_first_look_is_spread_over_the_whole(num_looks: int, count: int | None, chosen: list[int]) -> None:
    assert first_look_of(range(num_looks), count) == chosen


def test_pictures_that_are_gone_at_once_are_not_looked_at() -> None:
    # Given a picture in each second that lasts a tick before the next takes its place
    times = sorted([n / 25 for n in range(250)] + [n + 1e-5 for n in range(10)])

    kept = [times[i] for i in long_shown(times, stratum=10 / 32)]

    assert kept == [time for time in times if time not in range(10)]


@pytest.mark.parametrize("rates", [(25, 25), (10, 100), (1000, 12), (30, 60)])
def test_every_stretch_keeps_pictures_whatever_its_rate(rates: tuple[int, int]) -> None:
    early, late = rates
    times = [n / early for n in range(5 * early)] + [5 + n / late for n in range(5 * late)]

    kept = [times[i] for i in long_shown(times, stratum=10 / 32)]

    assert max(b - a for a, b in pairwise([*kept, 10.0])) < 10 / 32
    if early == late:
        assert kept == times


@given(gaps=st.lists(st.floats(min_value=0.001, max_value=3.0), min_size=1, max_size=60), num_frames=st.integers(min_value=1, max_value=40))
def test_pictures_left_out_never_fill_a_stratum(gaps: list[float], num_frames: int) -> None:
    times = list(accumulate(gaps))
    stratum = (times[-1] - times[0]) / num_frames

    kept = set(long_shown(times, stratum=stratum))

    row = 0.0
    for i, gap in enumerate(gaps[1:]):
        row = 0.0 if i in kept else row + gap
        assert row <= stratum * (1 + 1e-6)
