"""Connections to the ledger's database and the translation of driver errors into ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool, StaticPool

from ..errors import InvalidMessageError, LedgerError, LedgerFullError, LedgerUnavailableError, SettingsError, WorkerError

BUSY_SECONDS = 30.0
"""How long SQLite waits for another writer: far above any transaction of ours (milliseconds)."""

_POSTGRES_OPTIONS: Final[dict[str, int | str]] = {
    "connect_timeout": 5,
    # a server that went away without a word (failover, a dropped route) is noticed within 20 to 25 seconds, idle or not
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
    "target_session_attrs": "read-write",  # of several hosts the primary; a standby is as good as none
}
_STATEMENT_SECONDS: Final = 60
"""After this a statement gives up on Postgres: far above any of ours, so it waits for a lock or a disk that hangs."""
_READ_ONLY: Final = "25006"
"""SQLSTATE of a write that met a server which became a standby."""


def make_engine(url: str, *, sqlite_synchronous: str = "normal", pool_size: int = 8) -> Engine:
    """Open the ledger's database.

    Args:
        url: `sqlite:///path`, `sqlite://` (in memory, for tests) or `postgresql+psycopg://...`.
        sqlite_synchronous: `normal` or `full`.
        pool_size: connections kept open by this process.

    Raises:
        SettingsError: the URL is no database URL or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            engine = _sqlite_engine(parsed.render_as_string(hide_password=False), database=parsed.database, pool_size=pool_size)
            _prepare_sqlite(engine, synchronous=sqlite_synchronous)
            return engine
        if backend == "postgresql":
            engine = create_engine(
                parsed,
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_pre_ping=True,  # a restarted database must not cost a request
                pool_timeout=10,
                connect_args={name: value for name, value in _POSTGRES_OPTIONS.items() if name not in parsed.query},
            )
            _prepare_postgres(engine)
            return engine
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as err:
        raise SettingsError(f"cannot open the ledger: {err}; use sqlite:///path or postgresql+psycopg://user@host/db") from err
    raise SettingsError(f"the ledger runs on sqlite or postgresql, got {backend!r}")


def _sqlite_engine(url: str, *, database: str | None, pool_size: int) -> Engine:
    options = {"check_same_thread": False, "timeout": BUSY_SECONDS}
    if not database or database == ":memory:":
        return create_engine(url, poolclass=StaticPool, connect_args=options)
    try:
        Path(database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as err:
        raise LedgerUnavailableError(f"cannot make the folder of the ledger {database}: {err.strerror}") from err
    return create_engine(url, poolclass=QueuePool, pool_size=pool_size, max_overflow=pool_size, pool_timeout=30, connect_args=options)


def _prepare_sqlite(engine: Engine, *, synchronous: str) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, by us
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous.upper()}")
        cursor.execute(f"PRAGMA busy_timeout={round(BUSY_SECONDS * 1000)}")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: no transaction can fail half-way because another one wrote in between
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _prepare_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        # our statements are short: compiling one costs more than it can save, and a guess too high at its rows is enough to have it compiled
        connection.execute("SET jit = off")
        # unless the role or the URL says another
        limit = f"set_config('statement_timeout', '{_STATEMENT_SECONDS}s', false)"
        connection.execute(f"SELECT {limit} WHERE current_setting('statement_timeout') = '0'")
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def _on_error(context: ExceptionContext) -> None:
        # a demoted primary answers every ping: only when its connections are closed does the next one look for the new primary
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True


def translated(err: Exception) -> WorkerError:
    """Our error for a driver's error: full, unavailable, a value that no try will store, or a plain ledger error for a bug in a statement."""
    text = str(getattr(err, "orig", err)).lower()
    if "disk is full" in text or "no space left" in text or "could not extend file" in text:
        return LedgerFullError(f"the ledger cannot write, its disk is full: {text:.200}; free some space, nothing accepted was lost")
    if isinstance(err, OperationalError | InterfaceError | PoolTimeoutError) or getattr(err, "connection_invalidated", False):
        return LedgerUnavailableError(f"the ledger cannot be reached or is locked: {text:.200}; start it, work resumes by itself")
    if isinstance(err, DataError):  # a NUL, a number with too many digits: doors refuse those, this is for the one that forgot to
        return InvalidMessageError(f"a value is none that this ledger can store: {text:.200}")
    return LedgerError(f"the ledger refused a statement: {text:.300}")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction; commits at the end, rolls back on any error.

    Raises:
        LedgerUnavailableError, LedgerFullError, LedgerError: instead of the driver's errors.
        InvalidMessageError: a number has more than 64 bits, or a text holds what the database cannot store.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (DBAPIError, PoolTimeoutError) as err:
        raise translated(err) from err
    except OverflowError as err:  # SQLite's integers have 64 bits, Python's have no end
        raise InvalidMessageError("a number is larger than any that this ledger knows") from err


def hold_lock(connection: Connection, name: str, *, shared: bool = False) -> None:
    """Wait for the lock of this name and hold it until the transaction ends. SQLite has one writer at a time anyway.

    Args:
        connection: a write transaction.
        name: of the lock.
        shared: others may hold it too, as long as nobody holds it alone.
    """
    if connection.dialect.name == "postgresql":
        take = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(take(func.hashtextextended(name, 0))))


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One read transaction. Raises as `writing`."""
    try:
        with engine.connect() as raw:
            connection = raw.execution_options(reads=True)
            yield connection
    except (DBAPIError, PoolTimeoutError) as err:
        raise translated(err) from err
    except OverflowError as err:  # SQLite's integers have 64 bits, Python's have no end
        raise InvalidMessageError("a number is larger than any that this ledger knows") from err
