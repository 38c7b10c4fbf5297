"""Schema revisions of the ledger, by alembic: up, down, and a check at start.

Alembic is only imported when there is something to migrate: every process checks, few migrate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, inspect, text

from ..errors import LedgerSchemaError
from .engine import reading, writing

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "0007"
"""The revision this build needs; a test holds it against the migration files."""

_LOCK_NUMBER: Final = 7_283_115_001  # any constant: names the Postgres advisory lock of our migrations
_TABLE: Final = "alembic_version"


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for our migration files, on one connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def current(engine: Engine) -> str | None:
    """The revision the database has; None when it is empty."""
    with reading(engine) as connection:
        if not inspect(connection).has_table(_TABLE):
            return None
        found = connection.scalar(text(f"select version_num from {_TABLE}"))
        return str(found) if found is not None else None


def upgrade(engine: Engine, *, revision: str = "head") -> None:
    """Bring the database up. Safe when several processes start at once: one migrates, the others wait."""
    if revision == "head" and current(engine) == HEAD:
        return
    from alembic import command

    with writing(engine) as connection:
        _prepare(connection)
        command.upgrade(alembic_config(connection), revision)


def downgrade(engine: Engine, *, revision: str = "base") -> None:
    """Take the database down to a revision."""
    from alembic import command

    with writing(engine) as connection:
        _prepare(connection)
        command.downgrade(alembic_config(connection), revision)


def _prepare(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("set local statement_timeout = 0"))  # waiting for another one's migration and building an index take long
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})


def require_current(engine: Engine) -> None:
    """Refuse a database with another schema than this build's.

    Raises:
        LedgerSchemaError: with both revisions and what to do.
    """
    have = current(engine)
    if have != HEAD:
        raise LedgerSchemaError(f"the ledger has schema {have or 'none'}, this build needs {HEAD}: run `veriframe migrate`")
