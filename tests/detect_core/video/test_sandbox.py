"""What a hijacked decoder could still do: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ATTEMPTS = """
import json, os, resource, socket, sys
from detect_core.video import sandbox

canary = sys.argv[1]
parent = os.getppid()
state = sandbox.enter(memory_bytes=256 * 1024 * 1024, cpu_seconds=5)

def fails(attempt):
    try:
        attempt()
    except (OSError, MemoryError, ValueError) as err:
        return type(err).__name__
    return None

results = {
    "state": state.as_json(),
    "read a file": fails(lambda: os.open(canary, os.O_RDONLY)),
    "write a file": fails(lambda: os.open(canary + ".new", os.O_CREAT | os.O_WRONLY)),
    "make a socket": fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "fork": fails(os.fork),
    "run a program": fails(lambda: os.execv("/bin/true", ["true"])),
    "signal the parent": fails(lambda: os.kill(parent, 0)),
    "take a gigabyte": fails(lambda: bytearray(1 << 30)),
    "raise its limits": fails(lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40))),
    "list a folder": fails(lambda: os.listdir("/")),
}
os.write(1, json.dumps(results).encode())
os._exit(0)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    canary = tmp_path_factory.mktemp("canary") / "secret"
    canary.write_text("secret")
    done = subprocess.run([sys.executable, "-c", ATTEMPTS, str(canary)], capture_output=True, check=True, timeout=60)
    assert not canary.with_suffix(".new").exists()
    return dict(json.loads(done.stdout))


def test_the_state_says_which_layers_hold(results: dict[str, dict[str, object]]) -> None:
    assert results["state"]["no_new_privileges"] is True
    assert results["state"]["resource_limits"] is True
    if Path("/proc/self/status").read_text().find("Seccomp:") >= 0:
        assert results["state"]["seccomp"] is True


@pytest.mark.parametrize(
    "attempt",
    [
        "read a file",
        "write a file",
        "make a socket",
        "fork",
        "run a program",
        "signal the parent",
        "take a gigabyte",
        "raise its limits",
        "list a folder",
    ],
)
def test_a_hijacked_decoder_cannot(attempt: str, results: dict[str, object]) -> None:
    if not results["state"]["seccomp"]:  # type: ignore[index]
        pytest.skip("this kernel has no seccomp")
    assert results[attempt] in ("PermissionError", "MemoryError", "ValueError")
