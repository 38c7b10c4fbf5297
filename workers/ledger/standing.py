"""Where a review item stands, computed from its log. Pure: the log is the truth, the item's row is a copy of this for the queue.

    first --decided--> done            first --unsure--> second          done --second asked--> second
    second --agrees, or settles an unsure--> done    second --differs--> settle --> done    done --appealed--> appeal --> done

Nobody reads one item twice; undoing takes one's own newest decision back. Where a newer verdict of the same bytes takes an item's place,
what holds of its log is written again for the next item as `carried`: it stands there too, and nobody counts it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

Decision = Literal["clean", "fake", "unsure", "closed"]
Reading = Literal["first", "second", "settle", "appeal"]
DECISIONS: Final[tuple[Decision, ...]] = ("clean", "fake", "unsure", "closed")
SAMPLING: Final = "sampling"
"""Who asks for the second readings that are drawn by chance."""
LEDGER: Final = "ledger"
"""Who replaces items."""
NO_PERSONS: Final = frozenset({SAMPLING, LEDGER})
"""Names in the log that nobody may sign in under: their lines would count as chance's or the ledger's own."""
CARRIED: Final = "carried"
"""The kind of a line that was written for an earlier verdict and holds here too."""
_ASKED: Final[dict[str, Reading]] = {"second_asked": "second", "appealed": "appeal"}
"""What asks for another reader, and for which reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the review log."""

    seq: int
    at: float
    """Seconds since the epoch by the database's clock."""
    verdict_seq: int
    video_id: str
    actor: str
    kind: str
    """decided, undone, second_asked, appealed, noted, skipped, claimed, released, replaced, carried."""
    reading: str | None = None
    decision: str | None = None
    reason: str | None = None
    note: str | None = None
    undoes: int | None = None
    """The `seq` of the decision that this entry takes back."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an item stands."""

    is_open: bool = True
    reading: Reading = "first"
    """The reading that is wanted, or the one that ended it."""
    decision: str | None = None
    """The decision in force."""
    decided_by: str | None = None
    decided_at: float | None = None
    readers: tuple[str, ...] = ()

    def may_read(self, actor: str) -> bool:
        """Whether this person may decide it."""
        return self.is_open and actor not in self.readers


def standing_of(entries: Sequence[LogEntry]) -> Standing:
    """Replay the log of one item, oldest entry first."""
    standing = Standing()
    for entry in _in_force(entries):
        # a carried entry says what was decided, or else which reading was asked for
        if entry.kind == "decided" or (entry.kind == CARRIED and entry.decision is not None):
            standing = _decided(standing, entry)
            continue
        asked = entry.reading if entry.kind == CARRIED else _ASKED.get(entry.kind)
        if asked == "second" and not standing.is_open and standing.reading == "first":
            standing = replace(standing, is_open=True, reading="second")
        elif asked == "appeal" and not standing.is_open:
            standing = replace(standing, is_open=True, reading="appeal")
    return standing


def carried(entries: Sequence[LogEntry]) -> list[LogEntry]:
    """What of an item's log holds for the next verdict of the same bytes: replayed alone, it stands where the item stood."""
    return [
        replace(entry, kind=CARRIED, reading=_ASKED.get(entry.kind, entry.reading))
        for entry in _in_force(entries)
        if entry.kind in ("decided", CARRIED, *_ASKED)
    ]


def undoable(entries: Sequence[LogEntry], actor: str) -> LogEntry | None:
    """The decision that this person may take back: the newest one in force, when it is theirs and nobody else asked for another look since."""
    for entry in reversed(_in_force(entries)):
        if entry.kind == "appealed" or (entry.kind == "second_asked" and entry.actor not in (SAMPLING, actor)):
            return None
        if entry.kind in ("decided", CARRIED):
            return entry if entry.kind == "decided" and entry.actor == actor else None
    return None


def _in_force(entries: Sequence[LogEntry]) -> list[LogEntry]:
    undone = {entry.undoes for entry in entries if entry.kind == "undone"}
    return [entry for entry in entries if entry.seq not in undone]


def _decided(standing: Standing, entry: LogEntry) -> Standing:
    read = replace(standing, readers=(*standing.readers, entry.actor))
    done = replace(read, is_open=False, decision=entry.decision, decided_by=entry.actor, decided_at=entry.at)
    if standing.reading == "first" and entry.decision == "unsure":
        return replace(done, is_open=True, reading="second")
    if standing.reading == "second" and standing.decision not in ("unsure", entry.decision):
        return replace(read, is_open=True, reading="settle")
    return done
