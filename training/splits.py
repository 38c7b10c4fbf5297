"""Train, valid and test without a shared person, video or near-duplicate; the same every time."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .errors import DataError, LeakError
from .layouts import Item

SHARES: Final = {"train": 0.75, "valid": 0.10, "test": 0.15}
_ONE_LUMP: Final = 0.5
"""When one connected set of people holds more than this share of all files, people are split and mixed files left out."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """Items with a split, the group that each belongs to, and what could not be placed."""

    items: tuple[Item, ...]
    groups: tuple[str, ...]
    """Whoever shares a group shares a split."""
    unused: tuple[tuple[str, str], ...]
    """(file, why) of items that stand between two splits."""
    filled: int = 0
    """Items outside the splits that the data set gives to others, placed here."""


def assign(
    items: Sequence[Item], near: Sequence[tuple[int, int]], *, seed: int = 0, drop_leaks: bool = False, labels: Sequence[int] = (0, 1)
) -> Assigned:
    """Give every item a split.

    Splits that the data set gives are kept and checked; items without one join the split of what they are connected with.
    Otherwise connected items (same identity, near-duplicates) go to one split; where nearly everything is connected, as in
    Celeb-DF where everyone is swapped with everyone, identities are split; items of two splits and the training side of
    near-duplicates are left out, and said so.

    Args:
        items: to be placed.
        near: index pairs of near-duplicates.
        seed: another one gives other splits.
        drop_leaks: leave out training items that share something with a held-out one, instead of refusing.
        labels: classes that every split must hold.

    Raises:
        LeakError: given splits share an identity or a near-duplicate.
        DataError: a class would be missing in a split.
    """
    if all(item.split for item in items):
        out = _checked(items, near, drop_leaks=drop_leaks)
    elif any(item.split for item in items):
        out = _filled(items, near, seed, drop_leaks=drop_leaks)
    else:
        out = _placed(items, near, seed)
    counts = Counter((item.split, item.label) for item in out.items)
    missing = [f"{split} {'fake' if label else 'real'}" for split in SHARES for label in labels if not counts[split, label]]
    if missing:
        given = all(item.split for item in items)
        remedy = "the data set gives these splits, build with --resplit" if given else "give more people, or another --seed"
        raise DataError(f"after splitting there is no {', no '.join(missing)} file; {remedy}")
    return out


def _filled(items: Sequence[Item], near: Sequence[tuple[int, int]], seed: int, *, drop_leaks: bool) -> Assigned:
    """Given splits stay; the other items join what they are connected with, and those connected with none are placed alone."""
    roots = _components(items, near)
    given: dict[str, set[str]] = defaultdict(set)
    for item, root in zip(items, roots, strict=True):
        if item.split:
            given[root].add(item.split)
    kept, free, unused = [], [], []
    for i, (item, root) in enumerate(zip(items, roots, strict=True)):
        if item.split or len(given[root]) == 1:
            kept.append(i)
        elif given[root]:
            unused.append((item.file, f"has no split and is connected with files of {' and '.join(sorted(given[root]))}"))
        else:
            free.append(i)
    held = [replace(items[i], split=items[i].split or min(given[roots[i]])) for i in kept]
    first = _checked(held, _among(kept, near), drop_leaks=drop_leaks)
    rest = _placed([items[i] for i in free], _among(free, near), seed) if free else Assigned((), (), ())
    return Assigned(
        first.items + rest.items,
        first.groups + rest.groups,
        (*first.unused, *rest.unused, *unused),
        filled=sum(not items[i].split for i in kept) + len(rest.items),
    )


def _among(chosen: Sequence[int], near: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs with both ends in `chosen`, as positions there."""
    position = {i: k for k, i in enumerate(chosen)}
    return [(position[i], position[j]) for i, j in near if i in position and j in position]


def _placed(items: Sequence[Item], near: Sequence[tuple[int, int]], seed: int) -> Assigned:
    roots = _components(items, near)
    largest = Counter(roots).most_common(1)[0][1]
    mixed = any(len(item.identities) > 1 for item in items)
    if mixed and largest > _ONE_LUMP * len(items) and len(items) > 3:
        return _by_identity(items, near, seed)
    return _by_component(items, roots, seed)


def _components(items: Sequence[Item], near: Sequence[tuple[int, int]]) -> list[str]:
    """Name of the connected component of every item."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(one: str, other: str) -> None:
        low, high = sorted((find(one), find(other)))
        parent[high] = low

    for item in items:
        for identity in item.identities:
            join(item.identities[0], identity)
    for i, j in near:
        join(items[i].identities[0], items[j].identities[0])
    return [find(item.identities[0]) for item in items]


def _by_component(items: Sequence[Item], roots: Sequence[str], seed: int) -> Assigned:
    """Components in the order of their hash, each to the split that lacks most of what it holds."""
    holds: dict[str, Counter[int]] = defaultdict(Counter)
    for item, root in zip(items, roots, strict=True):
        holds[root][item.label] += 1
    total = Counter(item.label for item in items)
    given = {split: Counter[int]() for split in SHARES}
    chosen: dict[str, str] = {}
    order = sorted(holds, key=lambda root: (-sum(holds[root].values()) // 10, _hash(f"{seed} {root}")))
    for root in order:

        def lack(split: str, root: str = root) -> float:
            return sum((SHARES[split] - given[split][label] / total[label]) * count / SHARES[split] for label, count in holds[root].items())

        best = max(SHARES, key=lack)
        chosen[root] = best
        given[best].update(holds[root])
    placed = tuple(replace(item, split=chosen[root]) for item, root in zip(items, roots, strict=True))
    return Assigned(placed, tuple(roots), ())


def _by_identity(items: Sequence[Item], near: Sequence[tuple[int, int]], seed: int) -> Assigned:
    people = sorted({identity for item in items for identity in item.identities}, key=lambda name: _hash(f"{seed} {name}"))
    bounds = {"test": SHARES["test"], "valid": SHARES["test"] + SHARES["valid"], "train": 1.0}
    split_of = {name: next(s for s, b in bounds.items() if (i + 0.5) / len(people) < b) for i, name in enumerate(people)}
    placed, kept, unused = [], [], []
    for i, item in enumerate(items):
        splits = sorted({split_of[name] for name in item.identities})
        if len(splits) > 1:
            unused.append((item.file, f"shows people of {' and '.join(splits)}"))
        else:
            placed.append(replace(item, split=splits[0]))
            kept.append(i)
    # By the first person, not by the pair: intervals must not take one person's fakes for independent. All who are tied together would be one group.
    out = _without_leaks(placed, [item.identities[0] for item in placed], _leaks(placed, _among(kept, near)))
    return replace(out, unused=(*out.unused, *unused))


def _checked(items: Sequence[Item], near: Sequence[tuple[int, int]], *, drop_leaks: bool) -> Assigned:
    leaks = _leaks(items, near)
    if leaks and not drop_leaks:
        first = min(leaks)
        why = next(iter(leaks[first].values()))
        raise LeakError(
            f"the given splits leak: {len(leaks)} files, first {items[first].file} ({items[first].split}): {why}; "
            "build with --drop-leaks to leave the training side out, or with --resplit to split again"
        )
    return _without_leaks(items, [item.identities[0] for item in items], leaks)


def _leaks(items: Sequence[Item], near: Sequence[tuple[int, int]]) -> dict[int, dict[str, str]]:
    """Item -> other split that shares a person or a picture with it -> what they share."""
    seen: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for identity in item.identities:
            seen[identity].add(item.split)
    leaks: dict[int, dict[str, str]] = defaultdict(dict)
    for i, item in enumerate(items):
        for name in item.identities:
            for split in seen[name] - {item.split}:
                leaks[i].setdefault(split, f"identity {name} stands in {' and '.join(sorted(seen[name]))}")
    for pair in near:
        for i, j in (pair, pair[::-1]):
            if items[i].split != items[j].split:
                leaks[i].setdefault(items[j].split, f"nearly the same picture as {items[j].file} ({items[j].split})")
    return leaks


def _without_leaks(items: Sequence[Item], groups: Sequence[str], leaks: Mapping[int, Mapping[str, str]]) -> Assigned:
    """Of what two splits share, only the one that is further from training stays."""
    order = list(SHARES)
    dropped = {}
    for i, others in leaks.items():
        furthest = max(others, key=order.index)
        if order.index(items[i].split) < order.index(furthest):
            dropped[i] = others[furthest]
    kept = [i for i in range(len(items)) if i not in dropped]
    return Assigned(
        tuple(items[i] for i in kept),
        tuple(groups[i] for i in kept),
        tuple((items[i].file, dropped[i]) for i in sorted(dropped)),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
