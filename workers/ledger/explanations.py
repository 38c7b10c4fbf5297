"""Explanations on demand: asked for by a person, made by a worker, kept for minutes. They show faces, so they are never kept longer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Engine, Float, Index, LargeBinary, String, Table, Text, delete, select, update

from .engine import reading, writing
from .schema import db_now, metadata
from .submissions import insert_or_ignore

WANTED: Final = "WANTED"
READY: Final = "READY"
REFUSED: Final = "REFUSED"

_Seconds = Float(53)
explanations: Final = Table(
    "explanations",
    metadata,
    Column("ledger_id", String(32), primary_key=True),
    Column("state", String(12), nullable=False),
    Column("expires_at", _Seconds, nullable=False),
    Column("body", Text),
    Column("clip", LargeBinary),
    Column("error_code", String(64)),
    Column("error_message", Text),
)
Index("ix_explanations_expiry", explanations.c.expires_at)


@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """One explanation as it stands."""

    ledger_id: str
    state: str
    expires_at: float
    body: dict[str, Any] | None
    has_clip: bool
    error_code: str | None
    error_message: str | None


class Explanations:
    """The part of the ledger that holds explanations."""

    _engine: Engine

    def want_explanation(self, ledger_id: str, *, seconds: float) -> bool:
        """Note that somebody asks; True when a worker has to be told, False while an answer is there or on its way."""
        with writing(self._engine) as connection:
            stale = explanations.c.expires_at < db_now()
            connection.execute(delete(explanations).where(explanations.c.ledger_id == ledger_id, stale | (explanations.c.state == REFUSED)))
            fresh = insert_or_ignore(connection, explanations).values(expires_at=db_now() + seconds).returning(explanations.c.ledger_id)
            return connection.execute(fresh, {"ledger_id": ledger_id, "state": WANTED}).first() is not None

    def put_explanation(self, ledger_id: str, *, body: dict[str, Any], clip: bytes | None, seconds: float) -> None:
        """Keep what a worker made, for `seconds`; nothing happens when nobody asks any more."""
        self._settle(ledger_id, state=READY, body=json.dumps(body, separators=(",", ":")), clip=clip, expires_at=db_now() + seconds)

    def refuse_explanation(self, ledger_id: str, *, code: str, message: str) -> None:
        """Note why there is none."""
        self._settle(ledger_id, state=REFUSED, error_code=code, error_message=message[:2000])

    def _settle(self, ledger_id: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(explanations).where(explanations.c.ledger_id == ledger_id).values(**values))

    def explanation(self, ledger_id: str) -> ExplanationRow | None:
        """What is there for one job and has not expired."""
        wanted = select(explanations, explanations.c.clip.is_not(None).label("has_clip")).where(
            explanations.c.ledger_id == ledger_id, explanations.c.expires_at >= db_now()
        )
        with reading(self._engine) as connection:
            row = connection.execute(wanted).first()
        if row is None:
            return None
        return ExplanationRow(
            ledger_id=row.ledger_id,
            state=row.state,
            expires_at=row.expires_at,
            body=json.loads(row.body) if row.body else None,
            has_clip=bool(row.has_clip),
            error_code=row.error_code,
            error_message=row.error_message,
        )

    def explanation_clip(self, ledger_id: str) -> bytes | None:
        """The annotated clip, MP4."""
        wanted = select(explanations.c.clip).where(explanations.c.ledger_id == ledger_id, explanations.c.expires_at >= db_now())
        with reading(self._engine) as connection:
            found = connection.scalar(wanted)
        return bytes(found) if found is not None else None

    def drop_expired_explanations(self) -> int:
        """Remove what has expired; gives the number."""
        with writing(self._engine) as connection:
            return connection.execute(delete(explanations).where(explanations.c.expires_at < db_now())).rowcount
