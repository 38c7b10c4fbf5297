"""The way to the broker: what is open is named at start, or refused. What each user may do: `test_broker_roles.py`."""

from __future__ import annotations

import pytest

from workers.broker import access_problems, check_access
from workers.errors import BrokerPolicyError


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


def test_clear_text_is_no_problem_where_nobody_else_listens():
    problems = access_problems(Whoami("default"), "redis://broker:6379/0", is_private=True)  # type: ignore[arg-type]
    assert len(problems) == 2
    assert not any("clear text" in problem for problem in problems)
    check_access(Whoami("worker"), "redis://worker:secret@broker:6379/0", strict=True, is_private=True)  # type: ignore[arg-type]
