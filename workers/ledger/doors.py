"""Who may come in and how much: API keys, limits and usage per tenant, and the audit log that remembers who changed what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, insert, literal, select, update

from ..errors import UnknownKeyError
from .door_schema import api_keys, audit_log, tenant_limits
from .engine import reading, writing
from .schema import db_now
from .submissions import insert_or_ignore

DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One API key; the key itself is not on record, only its hash."""

    key_id: str
    name: str
    tenant: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    state: str
    """`active`, `expired` or `revoked`, by the database's clock."""


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant may take. None: the settings decide."""

    requests_per_minute: int | None = None
    videos_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log."""

    seq: int
    at: float
    """Seconds since the epoch by the database's clock."""
    actor: str
    tenant: str
    action: str
    target: str
    detail: Mapping[str, Any]


def record_audit(
    connection: Connection, *, actor: str, action: str, target: str, tenant: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Append to the audit log, in the caller's transaction: what was done and the note of it stand or fall together."""
    row = {"actor": actor[:80], "tenant": tenant, "action": action, "target": target[:200], "detail": json.dumps(dict(detail or {}))}
    connection.execute(insert(audit_log).values(at=db_now(), **row))


class Doors:
    """The part of the ledger that keys, limits and audits live in."""

    _engine: Engine

    def add_key(
        self, *, key_id: str, digest: str, name: str, scopes: Sequence[str], tenant: str = "", days: float | None = None, actor: str
    ) -> None:
        """Keep a new key's hash.

        Args:
            key_id: public name of the key, 1-16 characters.
            digest: SHA-256 of the key in hex.
            name: what it is for.
            scopes: what it may do.
            tenant: whose it is.
            days: life time; None: until it is revoked.
            actor: who made it.
        """
        row = {"key_id": key_id, "digest": digest, "name": name, "tenant": tenant, "scopes": ",".join(sorted(scopes))}
        until = None if days is None else db_now() + literal(days * DAY_SECONDS)
        with writing(self._engine) as connection:
            connection.execute(insert(api_keys).values(created_at=db_now(), expires_at=until, **row))
            detail = {"name": name, "scopes": row["scopes"], "days": days}
            record_audit(connection, actor=actor, action="key_made", target=key_id, tenant=tenant, detail=detail)

    def revoke_key(self, key_id: str, *, actor: str) -> None:
        """End a key now.

        Raises:
            UnknownKeyError: there is no such living key.
        """
        with writing(self._engine) as connection:
            ended = update(api_keys).where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=db_now())
            tenant = connection.scalar(ended.returning(api_keys.c.tenant))
            if tenant is None:
                raise UnknownKeyError(f"no living key {key_id!r:.40}: `veriframe keys list` shows them")
            record_audit(connection, actor=actor, action="key_revoked", target=key_id, tenant=tenant)

    def list_keys(self) -> list[KeyRow]:
        """Every key ever made, newest first."""
        statement = select(api_keys, db_now().label("now")).order_by(api_keys.c.created_at.desc(), api_keys.c.key_id)
        with reading(self._engine) as connection:
            return [_key(row) for row in connection.execute(statement)]

    def find_key(self, digest: str) -> KeyRow | None:
        """The key with this hash, whatever its state."""
        return self._key_where(api_keys.c.digest == digest)

    def key_named(self, key_id: str) -> KeyRow | None:
        """The key with this public name, whatever its state."""
        return self._key_where(api_keys.c.key_id == key_id)

    def _key_where(self, condition: ColumnElement[bool]) -> KeyRow | None:
        with reading(self._engine) as connection:
            row = connection.execute(select(api_keys, db_now().label("now")).where(condition)).first()
        return _key(row) if row is not None else None

    def has_keys(self) -> bool:
        """Whether a key was ever made here: from then on nobody comes in without one, even when all have ended."""
        with reading(self._engine) as connection:
            return connection.scalar(select(api_keys.c.key_id).limit(1)) is not None

    def set_limits(self, tenant: str, limits: TenantLimits, *, actor: str) -> None:
        """Set what one tenant may take."""
        values = {"requests_per_minute": limits.requests_per_minute, "videos_per_day": limits.videos_per_day}
        with writing(self._engine) as connection:
            connection.execute(insert_or_ignore(connection, tenant_limits), {"tenant": tenant, **values})
            connection.execute(update(tenant_limits).where(tenant_limits.c.tenant == tenant).values(**values))
            record_audit(connection, actor=actor, action="limits_set", target=tenant or "default", tenant=tenant, detail=values)

    def limits_of(self, tenant: str) -> TenantLimits:
        """What one tenant may take."""
        with reading(self._engine) as connection:
            row = connection.execute(select(tenant_limits).where(tenant_limits.c.tenant == tenant)).first()
        return TenantLimits(row.requests_per_minute, row.videos_per_day) if row is not None else TenantLimits()

    def audit(self, *, actor: str, action: str, target: str, tenant: str = "", detail: Mapping[str, Any] | None = None) -> None:
        """Append one line to the audit log."""
        with writing(self._engine) as connection:
            record_audit(connection, actor=actor, action=action, target=target, tenant=tenant, detail=detail)

    def audit_entries(self, *, target: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """The newest lines of the audit log."""
        statement = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
        if target is not None:
            statement = statement.where(audit_log.c.target == target)
        with reading(self._engine) as connection:
            return [
                AuditEntry(row.seq, row.at, row.actor, row.tenant, row.action, row.target, json.loads(row.detail))
                for row in connection.execute(statement)
            ]


def _key(row: Any) -> KeyRow:
    state = "revoked" if row.revoked_at is not None else "expired" if row.expires_at is not None and row.expires_at <= row.now else "active"
    return KeyRow(
        key_id=row.key_id,
        name=row.name,
        tenant=row.tenant,
        scopes=tuple(row.scopes.split(",")),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        state=state,
    )
