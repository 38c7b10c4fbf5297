"""The way to the broker: what is open is said or refused, and the shipped ACL gives each role what it needs and nothing more."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.chaos.world import raw_message
from tests.integration.servers import RedisServer, free_port, missing
from workers.allowance import Limiter
from workers.broker import RedisDispatcher, access_problems, check_access, connect, require_no_eviction
from workers.errors import BrokerPolicyError
from workers.forget import forget_video
from workers.ingest import Ingest
from workers.intake import Intake
from workers.ledger import Ledger
from workers.ledger.schema import VERDICT
from workers.metrics import Metrics
from workers.settings import Settings

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = ("producer", "control", "worker")


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """A server with the shipped users; gives each role's URL."""
    binary = RedisServer.binary()
    if binary is None:
        missing("redis-server")
    folder, port = tmp_path_factory.mktemp("acl"), free_port()
    text = (REPOSITORY / "deploy" / "broker" / "users.acl").read_text()
    for role in ROLES:
        text = text.replace(f"{role.upper()}_SHA256", hashlib.sha256(f"password of {role}".encode()).hexdigest())
    (folder / "users.acl").write_text(text)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                binary,
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--dir",
                str(folder),
                "--aclfile",
                str(folder / "users.acl"),
                "--save",
                "",
            ],
            stdout=log,
            stderr=log,
        )
    made = {role: f"redis://{role}:password%20of%20{role}@127.0.0.1:{port}/0" for role in ROLES}
    client, end = connect(made["control"]), time.monotonic() + 30
    while True:
        try:
            client.ping()
            break
        except redis.RedisError:
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
    client.close()
    yield {**made, "nobody": f"redis://127.0.0.1:{port}/0"}
    server.terminate()
    server.wait(timeout=20)


def test_strangers_and_the_default_user_get_nothing(urls):
    client = redis.Redis.from_url(urls["nobody"])
    with pytest.raises(redis.RedisError):
        client.ping()
    client.close()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "command", [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",), ("ACL", "LIST"), ("MODULE", "LIST")]
)
def test_no_role_rules_the_server(urls, role, command):
    client = connect(urls[role])
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)
    client.close()


@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("producer", ("LRANGE", "default", "0", "-1")),
        ("producer", ("DEL", "default")),
        ("producer", ("LPUSH", "veriframe.dispatch.default", "x")),
        ("worker", ("LRANGE", "default", "0", "-1")),
        ("worker", ("XRANGE", "video-events", "-", "+")),
        ("control", ("HGETALL", "unacked")),
    ],
)
def test_a_role_reads_and_writes_its_own_keys_only(urls, role, command):
    client = connect(urls[role])
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)
    client.close()


def test_a_video_travels_from_producer_to_verdict_under_these_rights(urls, tmp_path):
    ledger_url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    media = tmp_path / "vid_1.mp4"
    media.write_bytes(b"a video for the hash detector")
    ledger = Ledger.open(ledger_url)
    producer, control = connect(urls["producer"]), connect(urls["control"])
    producer.lpush("default", raw_message("vid_1"))
    require_no_eviction(control)
    metrics, dispatcher = Metrics(), RedisDispatcher(control, bound=16)
    dispatcher.check()
    Limiter(control, ledger, settings=Settings()).take("acme")
    intake = Intake(ledger, dispatcher, metrics=metrics, resend_seconds=1, backlog_limit=100)
    Ingest(control, ledger, intake, metrics=metrics, owner="control", batch=16, stream_idle_seconds=1).step()
    assert ledger.latest_job("vid_1") is not None
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VERIFRAME_")},
        "VERIFRAME_BROKER_URL": urls["worker"],
        "VERIFRAME_LEDGER_URL": ledger_url,
        "VERIFRAME_MEDIA_TEMPLATE": str(tmp_path / "{video_id}.mp4"),
        "VERIFRAME_MEDIA_ROOTS": f'["{tmp_path}"]',
        "VERIFRAME_LEASE_SECONDS": "2",
        "CHAOS_CHILD_EVERY": "1000000",
    }
    log_path = tmp_path / "worker.log"
    with log_path.open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.worker_process"], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 120
        while ledger.latest_job("vid_1").state != VERDICT:
            assert time.monotonic() < end, log_path.read_text()[-3000:]
            assert worker.poll() is None, log_path.read_text()[-3000:]
            time.sleep(0.1)
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    assert "NOPERM" not in log_path.read_text()
    assert "NoPermission" not in log_path.read_text()
    assert not forget_video(ledger, control, "vid_1", actor="test").is_empty
    assert access_problems(control, urls["control"]) == []
    for client in (producer, control):
        client.close()
    ledger.close()


class Whoami:
    """A broker's answer to ACL WHOAMI."""

    def __init__(self, name: str) -> None:
        self.name = name

    def acl_whoami(self) -> str:
        return self.name


@pytest.mark.parametrize(
    ("url", "user", "words"),
    [
        ("unix:///run/broker.sock", "default", []),
        ("rediss://worker:secret@broker:6380/0", "worker", []),
        ("redis://worker:secret@127.0.0.1:6379/0", "worker", []),
        ("redis://worker:secret@broker:6379/0", "worker", ["clear text"]),
        ("rediss://worker:secret@broker:6380/0?ssl_cert_reqs=none", "worker", ["certificate"]),
        ("rediss://:secret@broker:6380/0", "default", ["ACL user"]),
        ("redis://broker:6379/0", "default", ["clear text", "no password", "ACL user"]),
    ],
)
def test_what_is_open_is_named(url, user, words):
    problems = access_problems(Whoami(user), url)  # type: ignore[arg-type]
    assert len(problems) == len(words)
    assert all(any(word in problem for problem in problems) for word in words)
    check_access(Whoami(user), url, strict=False)  # type: ignore[arg-type]
    if words:
        with pytest.raises(BrokerPolicyError, match="STRICT"):
            check_access(Whoami(user), url, strict=True)  # type: ignore[arg-type]
