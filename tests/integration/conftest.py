"""Fixtures for tests that need real servers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests.chaos` and `tests.integration` are shared code, not installed

from tests.integration import servers  # noqa: E402


@pytest.fixture(scope="session")
def postgres():
    """A real Postgres server."""
    if servers.PostgresServer.find_binaries() is None:
        servers.missing("postgresql")
    server = servers.PostgresServer().start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(tmp_path):
    """A real redis-server."""
    if servers.RedisServer.binary() is None:
        servers.missing("redis-server")
    folder = tmp_path / "redis"
    folder.mkdir()
    server = servers.RedisServer(folder).start()
    yield server
    server.stop()
