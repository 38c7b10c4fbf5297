"""How far two readers of the same video agree, beyond chance (Cohen's kappa), and how far people agree with the machine. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..ledger import LogEntry
from ..ledger.standing import CARRIED, SAMPLING


@dataclass(frozen=True, slots=True)
class Pair:
    """Two readings of one video by two people."""

    verdict_seq: int
    video_id: str
    first: LogEntry
    second: LogEntry

    @property
    def is_labelled(self) -> bool:
        """Whether both gave a label."""
        return "unsure" not in (self.first.decision, self.second.decision)

    @property
    def agrees(self) -> bool:
        """Whether both said the same."""
        return self.first.decision == self.second.decision


@dataclass(frozen=True, slots=True)
class Reader:
    """One reviewer in numbers."""

    name: str
    num_decided: int
    num_undone: int
    num_fake: int
    num_unsure: int
    num_read_twice: int
    """Drawn videos that a second person read as well, where both gave a label."""
    num_agreed: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Everything the page shows."""

    num_pairs: int
    """Videos that were drawn for a second reading, and that both readers gave a label."""
    num_agreed: int
    num_unsure: int
    """Videos read twice of which a reader was unsure: no label, so neither agreement nor difference."""
    kappa: float | None
    """1: always agree; 0: no more than by chance; None: too little to say."""
    differing: tuple[Pair, ...]
    """Newest first."""
    readers: tuple[Reader, ...]


def agreement_of(entries: Sequence[LogEntry]) -> Agreement:
    """Compute agreement from decisions, undos and requests for second readers, oldest first. `closed` is no label and is left out.

    Where a newer verdict took an item's place between two readings, its `carried` lines tell of the first one and the draw. Only
    second readings that were drawn by chance say how far readers agree: those that somebody asked for, or that an unsure reader brought
    about, are of the hard videos.
    """
    undone = {entry.undoes for entry in entries if entry.kind == "undone"}
    said = [e for e in entries if e.decision not in (None, "closed") and e.seq not in undone]
    decided = [entry for entry in said if entry.kind == "decided"]
    # a carried line is either a decision or a request; only requests are chance's
    drawn = {entry.verdict_seq for entry in entries if entry.kind in ("second_asked", CARRIED) and entry.actor == SAMPLING}
    read_twice = _pairs(said)
    pairs = [pair for pair in read_twice if pair.is_labelled and pair.verdict_seq in drawn]
    return Agreement(
        num_pairs=len(pairs),
        num_agreed=sum(pair.agrees for pair in pairs),
        num_unsure=sum(not pair.is_labelled for pair in read_twice),
        kappa=kappa([(pair.first.decision or "", pair.second.decision or "") for pair in pairs]),
        differing=tuple(pair for pair in reversed(read_twice) if pair.is_labelled and not pair.agrees),
        readers=_readers(decided, pairs, undone=Counter(e.actor for e in entries if e.kind == "undone")),
    )


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of paired labels; None without pairs, or when chance alone would agree always."""
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(a == b for a, b in pairs) / count
    firsts, seconds = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    expected = sum(firsts[label] * seconds[label] for label in firsts) / count**2
    return (observed - expected) / (1 - expected) if expected < 1 else None


def _pairs(said: Sequence[LogEntry]) -> list[Pair]:
    """First and second readings of an item; a second one that is carried makes no pair, it did where it was made."""
    firsts: dict[int, LogEntry] = {}
    pairs = []
    for entry in said:
        if entry.reading == "first":
            firsts[entry.verdict_seq] = entry
        elif entry.reading == "second" and entry.kind != CARRIED and entry.verdict_seq in firsts:
            pairs.append(Pair(entry.verdict_seq, entry.video_id, firsts[entry.verdict_seq], entry))
    return pairs


def _readers(decided: Sequence[LogEntry], pairs: Sequence[Pair], *, undone: Counter[str]) -> tuple[Reader, ...]:
    own, fake, unsure, shared, agreed = (Counter[str]() for _ in range(5))
    for entry in decided:
        own[entry.actor] += 1
        fake[entry.actor] += entry.decision == "fake"
        unsure[entry.actor] += entry.decision == "unsure"
    for pair in pairs:
        for name in {pair.first.actor, pair.second.actor}:
            shared[name] += 1
            agreed[name] += pair.agrees
    readers = [
        Reader(
            name=name,
            num_decided=own[name],
            num_undone=undone[name],
            num_fake=fake[name],
            num_unsure=unsure[name],
            num_read_twice=shared[name],
            num_agreed=agreed[name],
        )
        for name in own.keys() | undone.keys()
    ]
    return tuple(sorted(readers, key=lambda reader: (-reader.num_decided, reader.name)))
