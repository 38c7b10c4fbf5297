"""Connections to the broker (Redis protocol), its start-up checks, and the dispatch queues that only workers read."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from .errors import BrokerFullError, BrokerPolicyError, BrokerUnavailableError, SettingsError
from .messages import dispatch_message, explain_message

DISPATCH_LANES: Final = ("urgent", "isolate", "default", "bulk")
"""Dispatch lanes in strict order. `isolate` is for videos under which a worker died: few, and to be cleared soon."""

EXPLAIN_LANE: Final = "urgent"
"""A person waits: explanations go before videos."""

log = structlog.get_logger(__name__)

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_PREFIX: Final = "veriframe.dispatch."
_PROBE_KEY: Final = "veriframe.probe"


def dispatch_queue(lane: str) -> str:
    """The internal Celery queue of a dispatch lane. Not an inbox lane: producers must not push here."""
    return _PREFIX + lane


def lane_of_queue(queue: str) -> str:
    """The dispatch lane of an internal Celery queue."""
    return queue.removeprefix(_PREFIX)


def connect(url: str, *, reply_seconds: float = 5.0) -> redis.Redis:
    """A client with bounded waits; connects on first use.

    Args:
        url: `redis://`, `rediss://` or `unix://` (`redis+socket://` is read too).
        reply_seconds: longest wait for a connection or a reply.

    Raises:
        SettingsError: the URL is no broker URL.
    """
    options = {
        "socket_timeout": reply_seconds,
        "socket_connect_timeout": reply_seconds,
        # a connection to what died, or became the replica of another server, is replaced at once; a silent server is not asked twice
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError, redis.exceptions.ReadOnlyError)),
        "health_check_interval": 10,
    }
    address = url.replace("redis+socket://", "unix://", 1)
    if not address.startswith("unix://"):
        options["socket_keepalive"] = True
    try:
        return redis.Redis.from_url(address, **options)
    except ValueError:  # without its words, which quote what they took for the port: the beginning of a password with a slash in it
        raise SettingsError(
            "VERIFRAME_BROKER_URL is no broker URL, use redis://user:password@host:port/db or unix:///path; "
            "in a password / is written %2F, @ is %40, # is %23, ? is %3F and % is %25"
        ) from None


@contextmanager
def translated() -> Iterator[None]:
    """Turn the client's errors into ours.

    Raises:
        BrokerFullError: the broker refuses writes at its memory limit, or its disk is full.
        BrokerUnavailableError: it is down, loading, or refuses us.
    """
    try:
        yield
    except redis.exceptions.OutOfMemoryError as err:
        raise BrokerFullError("the broker is at its memory limit and refuses writes: raise maxmemory or let workers drain it") from err
    except redis.exceptions.ResponseError as err:
        if str(err).startswith(("OOM", "MISCONF")):
            raise BrokerFullError(f"the broker refuses writes: {err!s:.160}") from err
        raise BrokerUnavailableError(f"the broker refused a command: {err!s:.160}") from err
    except (redis.RedisError, OSError) as err:
        raise BrokerUnavailableError(
            f"the broker cannot be reached: {type(err).__name__}; start it or check VERIFRAME_BROKER_URL, services that run go on by themselves"
        ) from err


def require_no_eviction(client: redis.Redis) -> None:
    """Refuse a broker that may evict keys: a full one must say no, never forget videos.

    Raises:
        BrokerPolicyError: `maxmemory-policy` is anything but `noeviction`.
        BrokerUnavailableError: the broker cannot be reached.
    """
    with translated():
        memory = client.info("memory")
    policy = memory.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        raise BrokerPolicyError(
            f"the broker's maxmemory-policy is {policy!r}: it would drop videos silently when full. "
            "Set `maxmemory-policy noeviction` in its configuration and start again"
        )


def access_problems(client: redis.Redis, url: str, *, is_private: bool = False) -> list[str]:
    """What is open about the way to the broker: clear text, no password, everybody's user, unchecked certificates.

    Args:
        client: a connection to it.
        url: how it is reached.
        is_private: nobody else is on the network, so clear text is no problem.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    parts = urlsplit(url)
    if parts.scheme in ("unix", "redis+socket"):
        return []  # the file system guards it
    problems = []
    if parts.scheme != "rediss" and parts.hostname not in _LOOPBACK and not is_private:
        problems.append("the connection is in clear text: use rediss://")
    if "ssl_cert_reqs=none" in parts.query.lower():
        problems.append("the broker's certificate is not checked: leave ssl_cert_reqs out")
    if not parts.password:
        problems.append("there is no password: whoever reaches the port may read, add and delete videos")
    with translated():
        try:
            user = str(client.acl_whoami())
        except redis.exceptions.NoPermissionError:
            user = "restricted"  # it may not even ask, which is fine
    if user == "default":
        problems.append("all roles share the user `default`: give each its own ACL user (deploy/broker/users.acl)")
    return problems


def check_access(client: redis.Redis, url: str, *, strict: bool, is_private: bool = False) -> None:
    """Say loudly, or refuse, when the way to the broker is open.

    Raises:
        BrokerPolicyError: something is open and `strict` is on.
    """
    problems = access_problems(client, url, is_private=is_private)
    if problems and strict:
        raise BrokerPolicyError("VERIFRAME_BROKER_STRICT refuses this broker: " + "; ".join(problems))
    for problem in problems:
        log.warning("broker_open", problem=problem, note="VERIFRAME_BROKER_STRICT=true refuses to start like this")


def allowed_replies(names: Sequence[str], replies: Sequence[Any], *, lane: str) -> list[Any]:
    """Replies about the lists of an inbox lane, those of priority lists that our user may not read as empty ones.

    A broker's users may be older than what we ask for: the lane itself is read all the same, and the log says what to do.

    Args:
        names: of the lists.
        replies: a reply or an error for each.
        lane: name of the lane's own list.

    Raises:
        redis.ResponseError: any other error.
    """
    out: list[Any] = []
    for name, reply in zip(names, replies, strict=True):
        if isinstance(reply, redis.exceptions.NoPermissionError) and name != lane:
            _say_priorities_unread()
            out.append([])
        elif isinstance(reply, Exception):
            raise reply
        else:
            out.append(reply)
    return out


@functools.cache
def _say_priorities_unread() -> None:
    log.warning(
        "priority_lists_unread",
        note="messages with a priority stay where they are: make the broker's users again (deploy/make_secrets.sh) and restart",
    )


def wait_for(client: redis.Redis, *, seconds: float, pause: float = 0.2) -> None:
    """Wait until the broker answers. Raises `BrokerUnavailableError` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with translated():
                client.ping()
            return
        except BrokerUnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(pause)


class Dispatcher(Protocol):
    """Puts hints for workers on the dispatch queues. Losing one only delays a video until the ledger sends it again."""

    def check(self) -> None:
        """Whether the broker takes writes right now; raises when not."""
        ...

    def room(self) -> dict[str, int]:
        """How many more messages each dispatch lane may take."""
        ...

    def send(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Put `(ledger_id, lane)` messages on their queues, in order."""
        ...

    def ask_for_explanation(self, ledger_id: str) -> None:
        """Tell a worker that a person waits for an explanation; a lost message is sent again when the person asks again."""
        ...


class RedisDispatcher:
    """Dispatch over the real broker. Raises `BrokerUnavailableError` or `BrokerFullError` from every method."""

    def __init__(self, client: redis.Redis, *, bound: int) -> None:
        self._client = client
        self._bound = bound

    def check(self) -> None:
        with translated():
            self._client.set(_PROBE_KEY, b"1", px=1000)

    def room(self) -> dict[str, int]:
        with translated():
            pipe = self._client.pipeline(transaction=False)
            for lane in DISPATCH_LANES:
                pipe.llen(dispatch_queue(lane))
            lengths = pipe.execute()
        return {lane: max(0, self._bound - int(length)) for lane, length in zip(DISPATCH_LANES, lengths, strict=True)}

    def send(self, jobs: Sequence[tuple[str, str]]) -> None:
        if not jobs:
            return
        with translated():
            pipe = self._client.pipeline(transaction=False)
            for ledger_id, lane in jobs:
                queue = dispatch_queue(lane)
                pipe.lpush(queue, dispatch_message(ledger_id, queue=queue))
            pipe.execute()

    def ask_for_explanation(self, ledger_id: str) -> None:
        queue = dispatch_queue(EXPLAIN_LANE)
        with translated():
            self._client.lpush(queue, explain_message(ledger_id, queue=queue))


class MemoryDispatcher:
    """Dispatch into lists of this process, for tests and single-process use."""

    def __init__(self, *, bound: int = 256) -> None:
        self.queues: dict[str, list[str]] = {lane: [] for lane in DISPATCH_LANES}
        self.explanations: list[str] = []
        self._bound = bound

    def check(self) -> None:
        """This process always takes writes."""

    def room(self) -> dict[str, int]:
        return {lane: max(0, self._bound - len(queue)) for lane, queue in self.queues.items()}

    def send(self, jobs: Sequence[tuple[str, str]]) -> None:
        for ledger_id, lane in jobs:
            self.queues[lane].append(ledger_id)

    def ask_for_explanation(self, ledger_id: str) -> None:
        self.explanations.append(ledger_id)
