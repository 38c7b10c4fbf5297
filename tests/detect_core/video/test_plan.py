from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect_core.video.plan import PacketFact, cheap_neighbours, costs_beside_others, costs_from_key, plan_runs


def group(first_pts: int, *, length: int) -> list[PacketFact]:
    """A closed group: key, then alternating reference and unreferenced pictures."""
    return [PacketFact(pts=first_pts + i, is_key=i == 0, is_discardable=i % 2 == 1) for i in range(length)]


PACKETS = group(0, length=10) + group(10, length=10) + group(20, length=10)


def test_groups_without_a_wanted_frame_are_not_decoded() -> None:
    runs = plan_runs(PACKETS, wanted=[22])

    assert [run.numbers for run in runs] == [(20, 22)]


def test_unreferenced_pictures_are_dropped_unless_wanted() -> None:
    (run,) = plan_runs(PACKETS, wanted=[5])

    assert run.numbers == (0, 2, 4, 5)
    assert run.wanted_pts == {5}


def test_frames_of_one_group_share_one_run() -> None:
    runs = plan_runs(PACKETS, wanted=[12, 14, 28])

    assert [run.numbers[0] for run in runs] == [10, 20]
    assert runs[0].wanted_pts == {12, 14}


def test_a_leading_picture_is_decoded_from_the_group_before_its_key() -> None:
    # Given an open group: the picture after the second key (in decode order) is shown before it
    packets = [PacketFact(0, True, False), PacketFact(3, False, False), PacketFact(10, True, False), PacketFact(8, False, True)]

    (run,) = plan_runs(packets, wanted=[3])

    assert run.numbers == (0, 1, 2, 3)


def test_a_leading_picture_wanted_beside_its_key_and_an_earlier_one_has_all_that_it_needs() -> None:
    packets = [
        PacketFact(0, True, False),
        PacketFact(2, False, False),
        PacketFact(1, False, True),
        PacketFact(5, True, False),
        PacketFact(3, False, True),
        PacketFact(4, False, True),
    ]

    (run,) = plan_runs(packets, wanted=[1, 3, 4])

    assert run.numbers == (0, 1, 3, 4)
    assert run.wanted_pts == {2, 5, 3}


@pytest.mark.parametrize(
    ("whole_from", "numbers"), [(0, [range(26)]), (14, [(0, 2), range(10, 26)]), (10, [range(26)]), (26, [(0, 2), (20, 22, 24, 25)])]
)
def test_nothing_is_left_out_from_the_key_before_what_cannot_be_trusted(whole_from: int, numbers: list[Sequence[int]]) -> None:
    runs = plan_runs(PACKETS, wanted=[2, 25], whole_from=whole_from)

    assert [run.numbers for run in runs] == [tuple(each) for each in numbers]


def test_a_second_try_begins_a_group_earlier_and_leaves_nothing_out() -> None:
    (run,) = plan_runs(PACKETS, wanted=[25], is_generous=True)

    assert run.numbers == tuple(range(10, 26))


@given(st.sets(st.integers(min_value=0, max_value=29), min_size=1))
def test_every_run_starts_at_a_key_and_holds_every_reference_up_to_its_last_frame(wanted: set[int]) -> None:
    runs = plan_runs(PACKETS, wanted=wanted)

    assert set().union(*(run.wanted_pts for run in runs)) == {PACKETS[n].pts for n in wanted}
    for run in runs:
        assert PACKETS[run.numbers[0]].is_key
        needed = {n for n in range(run.numbers[0], run.numbers[-1] + 1) if not PACKETS[n].is_discardable}
        assert needed <= set(run.numbers)


def test_a_look_moves_to_the_key_within_its_tolerance_else_as_near_to_it_as_it_may() -> None:
    assert cheap_neighbours(PACKETS, wanted=[4, 13, 27], tolerance=4, costs=costs_from_key(PACKETS)) == [0, 10, 24]
    assert cheap_neighbours(PACKETS, wanted=[4, 13, 27], tolerance=0, costs=costs_from_key(PACKETS)) == [4, 13, 27]


def test_where_looks_lie_close_one_moves_to_the_nearest_picture_that_is_decoded_anyway() -> None:
    assert cheap_neighbours(PACKETS, wanted=[4, 13, 27], tolerance=4, costs=costs_beside_others(PACKETS)) == [4, 12, 26]


def test_a_leading_picture_costs_the_group_before_its_key_as_well() -> None:
    packets = [PacketFact(0, True, False), PacketFact(3, False, False), PacketFact(10, True, False), PacketFact(8, False, True)]

    assert cheap_neighbours(packets, wanted=[3], tolerance=2, costs=costs_from_key(packets)) == [2]
    assert cheap_neighbours(packets, wanted=[3], tolerance=1, costs=costs_from_key(packets)) == [3]


@given(st.sets(st.integers(min_value=0, max_value=29), min_size=1), st.integers(min_value=0, max_value=12))
def test_moved_looks_stay_distinct_within_tolerance_and_never_cost_more(wanted: set[int], tolerance: int) -> None:
    before = sorted(wanted)
    after = cheap_neighbours(PACKETS, wanted=before, tolerance=tolerance, costs=costs_from_key(PACKETS))

    assert len(set(after)) == len(before)
    for old, new in zip(before, after, strict=True):
        assert abs(PACKETS[old].pts - PACKETS[new].pts) <= tolerance
        assert len(plan_runs(PACKETS, wanted=[new])[0].numbers) <= len(plan_runs(PACKETS, wanted=[old])[0].numbers)
