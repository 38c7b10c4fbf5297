"""Tables of the doors: API keys, what a tenant may take and has taken, the append-only audit log, and slips for erasures."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text

from .schema import metadata, verdicts

_Seconds = Float(53)
_RowId = BigInteger().with_variant(Integer, "sqlite")

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the key: the key itself is shown once and kept nowhere
    Column("name", String(64), nullable=False),
    Column("tenant", String(64), nullable=False, server_default=""),
    Column("scopes", String(64), nullable=False),
    Column("created_at", _Seconds, nullable=False),
    Column("expires_at", _Seconds),
    Column("revoked_at", _Seconds),
)

tenant_limits: Final = Table(
    "tenant_limits",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("requests_per_minute", Integer),
    Column("videos_per_day", Integer),
)

tenant_usage: Final = Table(
    "tenant_usage",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since the epoch, UTC
    Column("videos", Integer, nullable=False),
)

audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("seq", _RowId, primary_key=True, autoincrement=True),
    Column("at", _Seconds, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("tenant", String(64), nullable=False, server_default=""),
    Column("action", String(32), nullable=False),
    Column("target", String(200), nullable=False),
    Column("detail", Text, nullable=False, server_default="{}"),
    sqlite_autoincrement=True,
)
Index("ix_audit_target", audit_log.c.target)

erasure_slips: Final = Table(
    "erasure_slips",
    metadata,
    Column("verdict_seq", BigInteger, primary_key=True, autoincrement=False),
)
"""The review log lets go only of rows that have a slip here, and a slip lives no longer than the transaction that erases."""

Index("ix_verdicts_created", verdicts.c.created_at)
