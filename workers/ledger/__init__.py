"""The ledger: the truth about every accepted video. SQLite or Postgres behind one interface.

States: `QUEUED -> LEASED -> VERDICT | FAILED | POISONED`; `LEASED -> QUEUED` when a lease runs out, a try is repeated or a
worker drains. Terminal states never change. The broker only carries hints; losing any of them delays a video, never loses it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from sqlalchemy import Engine

from . import migrate
from .deliveries import Deliveries
from .doors import AuditEntry, Doors, KeyRow, TenantLimits
from .engine import make_engine, reading
from .erasure import Erased, Erasure
from .explanations import ExplanationRow, Explanations
from .labels import LabelledVerdict, Labels
from .leases import Leases
from .media import MediaFacts
from .queries import Queries
from .receivers import receiver_of
from .records import (
    Claim,
    ClaimRefused,
    Door,
    DueJob,
    ExpiredLease,
    JobRow,
    OutboxEvent,
    QueueFacts,
    ShadowRecord,
    Submission,
    Submitted,
    VerdictRecord,
    VerdictRow,
)
from .review_facts import ReviewFacts
from .review_queries import ReviewItem
from .reviews import Reviews
from .revisions import ArchivedVerdict, Revisions
from .shadows import ShadowPair, Shadows
from .standing import LogEntry
from .submissions import Submissions
from .upkeep import Upkeep
from .verdict_list import VerdictFilter


class Ledger(
    Submissions,
    Leases,
    Upkeep,
    MediaFacts,
    ReviewFacts,
    Deliveries,
    Queries,
    Reviews,
    Explanations,
    Shadows,
    Revisions,
    Labels,
    Doors,
    Erasure,
):
    """All of the ledger on one database. Thread-safe; every method is its own transaction.

    Every method raises `LedgerUnavailableError` when the database is down, locked for long or full.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The database behind this ledger."""
        return self._engine

    @classmethod
    def open(cls, url: str, *, sqlite_synchronous: str = "normal", create: bool = True, pool_size: int = 8) -> Self:
        """Open a ledger and bring its tables to this build's schema.

        Args:
            url: SQLAlchemy URL, `sqlite:///path` or `postgresql+psycopg://...`.
            sqlite_synchronous: `normal` or `full`.
            create: run pending migrations; otherwise a schema that differs is refused.
            pool_size: connections kept open.

        Raises:
            SettingsError: the URL cannot work.
            LedgerSchemaError: the database has another revision and `create` is False.
            LedgerUnavailableError: the database is down or full.
        """
        engine = make_engine(url, sqlite_synchronous=sqlite_synchronous, pool_size=pool_size)
        if create:
            migrate.upgrade(engine)
        else:
            migrate.require_current(engine)
        return cls(engine)

    @classmethod
    def in_memory(cls) -> Self:
        """A ledger that lives in this process only, for tests."""
        return cls.open("sqlite://")

    def warm(self, num_connections: int) -> None:
        """Open connections before there is work: a database that refuses them is noticed at start, and none is opened later."""
        with ExitStack() as held:
            for _ in range(num_connections):
                held.enter_context(reading(self._engine))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


__all__ = [
    "ArchivedVerdict",
    "AuditEntry",
    "Claim",
    "ClaimRefused",
    "Door",
    "DueJob",
    "Erased",
    "ExpiredLease",
    "ExplanationRow",
    "JobRow",
    "KeyRow",
    "LabelledVerdict",
    "Ledger",
    "LogEntry",
    "OutboxEvent",
    "QueueFacts",
    "ReviewItem",
    "ShadowPair",
    "ShadowRecord",
    "Submission",
    "Submitted",
    "TenantLimits",
    "VerdictFilter",
    "VerdictRecord",
    "VerdictRow",
    "receiver_of",
]
