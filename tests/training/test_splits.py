"""Splits share nobody and no picture, stay the same, and keep what a data set gives."""

import pytest

from training.errors import DataError, LeakError
from training.layouts import Item
from training.splits import assign


def test_connected_people_stay_on_one_side():
    items = [Item(f"r{i}", 0, "s", "", (f"p{i}",)) for i in range(60)]
    items += [Item(f"f{i}", 1, "s", "g", (f"p{i}", f"p{i ^ 1}")) for i in range(60)]
    placed = assign(items, [])
    split_of = {}
    for item in placed.items:
        for person in item.identities:
            assert split_of.setdefault(person, item.split) == item.split
    shares = [sum(i.split == s for i in placed.items) / 120 for s in ("train", "valid", "test")]
    assert shares == pytest.approx([0.75, 0.10, 0.15], abs=0.05)
    assert assign(items, []).items == placed.items
    assert assign(items, [], seed=1).items != placed.items


def test_where_everyone_is_swapped_with_everyone_people_are_split_and_mixed_files_left_out():
    items = [Item(f"r{i}", 0, "s", "", (f"p{i}",)) for i in range(40)]
    items += [Item(f"f{i}-{j}", 1, "s", "g", (f"p{i}", f"p{j}")) for i in range(40) for j in range(40) if i != j]
    placed = assign(items, [])
    people = {s: {p for i in placed.items if i.split == s for p in i.identities} for s in ("train", "valid", "test")}
    assert not people["train"] & people["test"]
    assert not people["train"] & people["valid"]
    assert len(placed.items) + len(placed.unused) == len(items)
    assert len(placed.unused) > 100


def test_a_person_and_all_fakes_of_the_person_are_one_group_where_people_are_split():
    # Given that intervals draw whole groups, then the fakes of one person with others are no people of their own.
    placed = assign(swapped_with_everyone(), [])
    for item, group in zip(placed.items, placed.groups, strict=True):
        assert group == item.identities[0]
    split_of = {}
    for item, group in zip(placed.items, placed.groups, strict=True):
        assert split_of.setdefault(group, item.split) == item.split


def test_given_splits_that_leak_are_refused_or_the_training_side_left_out():
    items = [
        Item(f"{s}{k}{i}", k, "d", "g" if k else "", (f"{s}{k}{i}",), s) for s in ("train", "valid", "test") for k in (0, 1) for i in (0, 1)
    ]
    assert len(assign(items, []).items) == 12
    train, test = 0, 8
    with pytest.raises(LeakError, match="nearly the same picture"):
        assign(items, [(train, test)])
    placed = assign(items, [(train, test)], drop_leaks=True)
    assert [file for file, _ in placed.unused] == ["train00"]
    assert len(placed.items) == 11


def test_given_splits_stay_when_some_files_lie_outside_them():
    given = [
        Item(f"{s}{k}{i}", k, "d", "g" if k else "", (f"{s}{i}",), s) for s in ("train", "valid", "test") for k in (0, 1) for i in (0, 1)
    ]
    other = Item("other", 0, "d", "", ("nobody",))
    fake = Item("fake", 1, "d", "g", ("test0", "new"))
    same = Item("same", 1, "d", "g", ("alone",))
    bridge = Item("bridge", 1, "d", "g", ("train1", "valid1"))
    placed = assign([*given, other, fake, same], [(0, 14)])
    split_of = {item.file: item.split for item in placed.items}
    assert [split_of[item.file] for item in given] == [item.split for item in given]
    assert split_of["fake"] == "test"  # it shows a person of the test split
    assert split_of["same"] == "train"  # it is nearly the same picture as the first one
    assert split_of["other"] in ("train", "valid", "test")
    assert placed.filled == 3
    placed = assign([*given, bridge], [])
    assert (len(placed.items), placed.filled) == (12, 0)
    assert placed.unused == (("bridge", "has no split and is connected with files of train and valid"),)


def test_a_class_that_splitting_lost_is_named():
    items = [Item("r", 0, "s", "", ("a",)), Item("f", 1, "s", "g", ("b",))]
    with pytest.raises(DataError, match="after splitting there is no"):
        assign(items, [])


def test_a_split_that_the_data_set_does_not_give_is_named_with_the_way_out():
    items = [Item(f"{s}{k}", k, "d", "g" if k else "", (f"{s}{k}",), s) for s in ("train", "test") for k in (0, 1)]
    with pytest.raises(DataError, match=r"no valid real, no valid fake file; the data set gives these splits, build with --resplit"):
        assign(items, [])


def swapped_with_everyone(count=40):
    items = [Item(f"r{i}", 0, "s", "", (f"p{i}",)) for i in range(count)]
    return items + [Item(f"f{i}-{j}", 1, "s", "g", (f"p{i}", f"p{j}")) for i in range(count) for j in range(count) if i != j]


def test_near_duplicates_of_two_people_do_not_stand_in_two_splits():
    # Given people who are split one by one, and a picture of one that is also there under the name of another.
    items = swapped_with_everyone()
    split_of = {item.file: item.split for item in assign(items, []).items}
    train, test, valid = (next(i for i in range(40) if split_of[f"r{i}"] == split) for split in ("train", "test", "valid"))
    placed = assign(items, [(train, test), (valid, test)])
    kept = {item.file for item in placed.items}
    assert f"r{test}" in kept
    assert not {f"r{train}", f"r{valid}"} & kept
    assert (f"r{train}", f"nearly the same picture as r{test} (test)") in placed.unused


def test_of_what_three_splits_share_only_the_test_side_stays():
    items = [
        Item(f"{s}{k}{i}", k, "d", "g" if k else "", (f"{s}{k}{i}",), s) for s in ("train", "valid", "test") for k in (0, 1) for i in (0, 1)
    ]
    train, valid, test = 0, 4, 8
    # The validation file shares something with training first, and only then with the test split.
    placed = assign(items, [(train, valid), (valid, test)], drop_leaks=True)
    assert dict(placed.unused) == {
        "train00": "nearly the same picture as valid00 (valid)",
        "valid00": "nearly the same picture as test00 (test)",
    }
    # A file name that says test does not make a validation file leak into the test split.
    items[train] = Item("latest.png", 0, "d", "", ("train00",), "train")
    placed = assign(items, [(train, valid)], drop_leaks=True)
    assert [file for file, _ in placed.unused] == ["latest.png"]
