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
"""The revision this build needs; a test holds it against the migration files.

The first digit is the generation. Within one, revisions only add (tables that name no video, columns with a default, indexes), so that
older builds go on during a roll-out and after a rollback. A revision that they could not work with begins the next, `1001`.
"""

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
        return _revision(connection)


def upgrade(engine: Engine, *, revision: str = "head") -> None:
    """Bring the database up. Safe when several processes start at once: one migrates, the others wait.

    Raises:
        LedgerSchemaError: a newer build's schema that this one cannot work with.
    """
    if not _is_older(current(engine)):
        return
    from alembic import command

    with writing(engine) as connection:
        _prepare(connection)
        if _is_older(_revision(connection)):  # a newer build may have been first
            command.upgrade(alembic_config(connection), revision)


def downgrade(engine: Engine, *, revision: str = "base") -> None:
    """Take the database down to a revision.

    Raises:
        LedgerSchemaError: a newer build made its schema, or there is no such revision below.
    """
    from alembic import command
    from alembic.util import CommandError

    try:
        with writing(engine) as connection:
            _prepare(connection)
            command.downgrade(alembic_config(connection), revision)
    except CommandError as err:
        have = current(engine)
        raise LedgerSchemaError(
            f"cannot take the ledger from schema {have or 'none'} to {revision!r:.40}: use the image that made {have}, and a revision below"
        ) from err


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_TABLE):
        return None
    found = connection.scalar(text(f"select version_num from {_TABLE}"))
    return str(found) if found is not None else None


def _is_older(have: str | None) -> bool:
    """Whether a schema must be brought up to this build's; a newer one of the same generation only adds to it and serves as well.

    Raises:
        LedgerSchemaError: it is of a later generation.
    """
    if have is None or have < HEAD:
        return True
    if have[0] != HEAD[0]:
        raise LedgerSchemaError(
            f"the ledger has schema {have}, newer than this build, which knows {HEAD}: run the newer image, "
            f"or take the ledger back with it: `veriframe migrate --to {HEAD}`"
        )
    return False


def _prepare(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("set local statement_timeout = 0"))  # waiting for another one's migration and building an index take long
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})


def require_current(engine: Engine) -> None:
    """Refuse a database whose schema this build cannot work with.

    Raises:
        LedgerSchemaError: with both revisions and what to do.
    """
    have = current(engine)
    if _is_older(have):
        raise LedgerSchemaError(f"the ledger has schema {have or 'none'}, this build needs {HEAD}: run `veriframe migrate`")
