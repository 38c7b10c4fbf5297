"""The users that `deploy/make_secrets.sh` makes for the broker: each part does its work as its own user, and nobody else's.

Real processes on a real server with the shipped ACL file; the server's own log of refusals says what a right is missing for.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis
from celery import Celery

from tests.chaos.fleet import Fleet
from tests.chaos.world import PYTHON
from tests.integration.servers import RedisServer, free_port, missing
from workers.app import make_app
from workers.broker import RedisDispatcher, access_problems, connect, dispatch_queue
from workers.ledger import Ledger
from workers.ledger.schema import VERDICT
from workers.settings import Settings, base_environment

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = ("producer", "api", "ingest", "janitor", "worker", "exporter")
DOES = {
    "producer": {"push", "push with a priority", "publish"},
    "api": {"probe", "hint", "forget", "forget with a priority", "delete event"},
    "ingest": {"probe", "hint", "forget", "forget with a priority", "lock", "read stream", "delete event"},
    "janitor": {"probe", "hint"},
    "worker": {"hint", "acknowledge"},
    "exporter": set(),
}
"""What each role may do of the things below. A worker may push hints: it hands back what it fetched."""
THINGS = {
    "push": ("LPUSH", "default", "x"),
    "push with a priority": ("LPUSH", "default\x06\x166", "x"),
    "push elsewhere": ("LPUSH", "default_of_others", "x"),
    "publish": ("XADD", "video-events", "*", "event", "x"),
    "probe": ("SET", "veriframe.probe", "1"),
    "hint": ("LPUSH", "veriframe.dispatch.bulk", "x"),
    "forget": ("LRANGE", "default", "0", "-1"),
    "forget with a priority": ("LRANGE", "default\x06\x169", "0", "-1"),
    "lock": ("SET", "veriframe.ingest.lock", "x"),
    "read stream": ("XREADGROUP", "GROUP", "veriframe", "x", "STREAMS", "video-events", ">"),
    "delete event": ("XDEL", "video-events", "1-1"),
    "acknowledge": ("HDEL", "unacked", "x"),
}
RULE = [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",), ("ACL", "LIST"), ("MODULE", "LIST"), ("CLIENT", "LIST")]
KEY = "a key for this test"


class Broker:
    """A server with the shipped users, and one more that reads its log of refusals."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(["sh", str(REPOSITORY / "deploy" / "make_secrets.sh"), str(folder)], check=True, capture_output=True, timeout=30)
        users = folder / "users_and_watcher"
        users.write_text((folder / "broker_users").read_text() + "user watcher on nopass ~* &* +@all\n")
        self.port = free_port()
        self.urls = {role: (folder / f"broker_url_{role}").read_text().replace("@broker:6379", f"@127.0.0.1:{self.port}") for role in ROLES}
        binary = RedisServer.binary()
        assert binary is not None
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--aclfile", str(users)]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.watcher = redis.Redis(port=self.port, username="watcher", password="x", decode_responses=True)
        wait_until(self.watcher.ping, else_say=(folder / "log").read_text)

    def refusals(self) -> set[tuple[str, str]]:
        """(user, command or key) of everything that was refused; clients tell a server their library's name, and no role needs that."""
        entries = self.watcher.acl_log()
        return {(entry["username"], entry["object"]) for entry in entries} - {(role, "client|setinfo") for role in ROLES}

    def stop(self) -> None:
        self.watcher.close()
        self.process.terminate()
        self.process.wait(timeout=20)


def wait_until(condition, *, seconds=90.0, else_say=lambda: ""):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (redis.RedisError, httpx.HTTPError):
            pass
        assert time.monotonic() < end, else_say()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    if RedisServer.binary() is None:
        missing("redis-server")
    made = Broker(tmp_path_factory.mktemp("broker"))
    yield made
    made.stop()


@pytest.fixture
def client(broker):
    opened = {}

    def of(role):
        if role not in opened:
            opened[role] = connect(broker.urls[role])
        return opened[role]

    yield of
    for each in opened.values():
        each.close()


def test_strangers_get_nothing(broker):
    stranger = redis.Redis(port=broker.port)
    with pytest.raises(redis.RedisError):
        stranger.ping()
    stranger.close()


@pytest.mark.parametrize("role", ROLES)
def test_no_role_rules_the_server(client, role):
    for command in RULE:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client(role).execute_command(*command)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_its_own_work_and_nobody_elses(broker, client, role):
    allowed = {thing for thing, command in THINGS.items() if may(client(role), command)}
    broker.watcher.flushall()
    assert allowed == DOES[role]


def may(client, command):
    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return False
    except redis.exceptions.ResponseError:
        return True  # permitted, and the server says that there is no such group
    return True


@pytest.mark.parametrize("role", ["api", "ingest", "janitor", "worker"])
def test_the_start_up_check_finds_nothing_open(broker, client, role):
    assert access_problems(client(role), broker.urls[role]) == []
    beyond = broker.urls[role].replace("127.0.0.1", "broker")
    assert [problem for problem in access_problems(client(role), beyond) if "clear text" not in problem] == []
    assert access_problems(client(role), beyond, is_private=True) == []


def test_the_exporter_reads_what_the_alerts_ask_for(client):
    facts = client("exporter").info()
    assert {"used_memory", "maxmemory", "maxmemory_policy", "evicted_keys", "aof_enabled", "aof_last_write_status"} <= set(facts)


def test_a_worker_hands_back_and_takes_up_again_what_was_fetched(broker, client):
    broker.watcher.acl_log_reset()
    RedisDispatcher(client("janitor"), bound=4).send([("f" * 32, "default")])
    app = make_app(Settings(), broker_url=broker.urls["worker"])
    with app.connection() as connection:
        channel = connection.channel()
        for queue in app.conf.task_queues:
            queue(channel).declare()
        assert fetch(connection, channel)  # fetched, and its reader dies: the visibility timeout brings it back
        channel.visibility_timeout = -5
        channel.qos.restore_visible(num=10)
        again = fetch(connection, channel)
        assert again
        channel.basic_reject(again, requeue=True)
        last = fetch(connection, channel)
        assert last
        channel.basic_ack(last)
    assert broker.watcher.llen(dispatch_queue("default")) == 0
    assert broker.watcher.hlen("unacked") == 0
    assert broker.refusals() == set()


def fetch(connection, channel):
    """One message as Celery's loop fetches it, with BRPOP; gives its delivery tag."""
    got = []
    queue = dispatch_queue("default")
    channel.basic_consume(queue, no_ack=False, callback=lambda message: got.append(message.delivery_tag), consumer_tag="t")
    try:
        for _ in range(50):
            try:
                connection.drain_events(timeout=1)
            except TimeoutError:
                continue
            if got:
                return got[0]
    finally:
        channel.basic_cancel("t")
    return None


def test_the_whole_system_runs_with_a_user_per_part(broker, tmp_path):
    """Three doors, a verdict each, one forgotten, a drain: nothing that the server refuses, nothing that the start-up checks name."""
    broker.watcher.flushall()
    broker.watcher.acl_log_reset()
    media = tmp_path / "media"
    media.mkdir()
    ids = {"celery": "vid_celery", "stream": "vid_stream", "http": "vid_http"}
    for video_id in ids.values():
        (media / f"{video_id}.mp4").write_bytes(f"a video for the hash detector {video_id}".encode())
    settings = Settings(
        state_dir=tmp_path,
        media_template=f"{media}/{{video_id}}.mp4",
        media_roots=(media,),
        api_port=free_port(),
        api_keys=(f"submit,read,admin:{hashlib.sha256(KEY.encode()).hexdigest()}",),
        requests_per_minute=1000,
        broker_strict=True,
        lease_seconds=4.0,
        log_level="warning",
    )
    fleet = Fleet(tmp_path)
    commands = {part: [PYTHON, "-m", "workers", part] for part in ("api", "ingest", "janitor")}
    commands["worker"] = [PYTHON, "-m", "tests.chaos.worker_process"]

    def said():
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(tmp_path.glob("*.log"))) + str(broker.refusals())

    with (
        closing(Ledger.open(settings.resolved_ledger_url)) as ledger,
        httpx.Client(base_url=f"http://127.0.0.1:{settings.api_port}") as http,
    ):
        try:
            for part, command in commands.items():
                settings_of = {**settings.as_environment(), "VERIFRAME_BROKER_URL": broker.urls[part], "CHAOS_CHILD_EVERY": "1000000"}
                fleet.add(part, command, {**base_environment(), **settings_of, "PYTHONPATH": str(REPOSITORY)}, keep=False)
            producer = Celery(broker=broker.urls["producer"])
            producer.send_task("veriframe.screen", kwargs={"video_id": ids["celery"]}, queue="default", priority=5, ignore_result=True)
            with closing(connect(broker.urls["producer"])) as direct:
                direct.xadd("video-events", {"event": json.dumps(event_of(ids["stream"]))})
            wait_until(lambda: http.get("/readyz").status_code == 200, else_say=said)
            headers = {"X-API-Key": KEY}
            assert http.post("/v1/videos", json={"video_id": ids["http"]}, headers=headers).status_code == 202
            for video_id in ids.values():
                wait_until(lambda each=video_id: is_judged(ledger, each), else_say=said)
            wait_until(lambda: broker.watcher.xlen("video-events") == 0, else_say=said)
            assert http.delete(f"/v1/videos/{ids['http']}", headers=headers).status_code == 200
        finally:
            fleet.stop()
    assert broker.refusals() == set()
    for part in commands:
        assert "broker_open" not in (tmp_path / f"{part}.log").read_text()
        assert "NOPERM" not in (tmp_path / f"{part}.log").read_text()


def is_judged(ledger, video_id):
    job = ledger.latest_job(video_id)
    return job is not None and job.state == VERDICT


def event_of(video_id):
    return {
        "specversion": "1.0",
        "id": f"event-{video_id}",
        "source": "/test",
        "type": "io.veriframe.video.uploaded.v1",
        "data": {"video_id": video_id},
    }
