"""The broker's address moves to another server while connections to the old one, a replica now, are open."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.chaos.proxy import Proxy
from tests.integration.servers import RedisServer, missing
from workers.broker import RedisDispatcher, connect, dispatch_queue
from workers.errors import SettingsError

pytestmark = pytest.mark.integration


def test_connections_follow_the_address_to_the_new_primary(tmp_path):
    if RedisServer.binary() is None:
        missing("redis-server")
    servers = []
    try:
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            servers.append(RedisServer(tmp_path / name).start())
        old, new = servers
        with closing(Proxy(old.port)) as proxy, closing(connect(f"redis://127.0.0.1:{proxy.port}/0")) as client:
            dispatcher = RedisDispatcher(client, bound=8)
            dispatcher.send([("a", "bulk")])
            proxy.turn_to(new.port)
            with closing(connect(old.url)) as direct:
                direct.replicaof("127.0.0.1", new.port)
            dispatcher.send([("b", "bulk"), ("c", "bulk")])  # a pipeline of writes, and a single one
            dispatcher.check()
            with closing(connect(new.url)) as direct:
                assert direct.llen(dispatch_queue("bulk")) == 2
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize("url", ["redis://user:S3cr/et@host:6379/0", "rediss://user:S3cr/et@host/0", "S3cr://x"])
def test_what_is_said_of_a_wrong_address_quotes_no_password(url):
    with pytest.raises(SettingsError, match="%2F") as refused:
        connect(url)
    assert "S3cr" not in str(refused.value)
    assert refused.value.__suppress_context__, "a trace would show what the first error says"
