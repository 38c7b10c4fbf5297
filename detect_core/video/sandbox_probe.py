"""Does the decode sandbox really hold on this machine? A fresh process enters it and tries what it must not be able to do.

What a kernel offers and what a container allows differ: only the attempts tell. So it is with a graphics card: it opens one
as a decode child would, enters the weaker sandbox and has a clip decoded there. Run as `python -m detect_core.video.sandbox_probe off 1`.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..errors import HardwareDecodeError
from ..options import DecodeLimits, HardwareDecode
from . import sandbox

_PROBE_BYTES: Final = 256 * 1024**2
_SECONDS: Final = 30.0
ACTS: Final = ("read_file", "write_file", "network", "new_process", "signal_parent", "take_memory")
"""What the probe tries after it has entered the sandbox."""


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What was promised and what was refused."""

    level: str
    """`full`: every layer is on and every act was refused; `partial` or `rlimits`: fewer layers; `leaky`: seccomp says it is on
    and an act succeeded all the same; `unknown`: the probe did not come back."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """Layers by name, as `SandboxState.as_json`."""
    refused: Mapping[str, bool] = field(default_factory=dict)
    """Per act of `ACTS`, whether it failed as it must."""
    no_device: str | None = None
    """Why no graphics card decodes; empty when one does, None when none was asked for."""

    @property
    def holds(self) -> bool:
        """Whether a hijacked decoder can reach no file, no network and no process."""
        return self.level in ("full", "partial") and all(self.refused.get(act, False) for act in ACTS)

    @property
    def device_decodes(self) -> bool:
        """Whether a graphics card decoded a clip exactly, inside a sandbox that holds."""
        return self.no_device == "" and self.holds

    def as_json(self) -> dict[str, Any]:
        """For health pages: state, layers and attempts."""
        return {"level": self.level, "holds": self.holds, "layers": dict(self.state), "refused": dict(self.refused)}


@functools.cache
def probe_sandbox(hardware_decode: HardwareDecode = "off", *, threads: int = 1) -> SandboxReport:
    """Try the sandbox in a process of its own; a tenth of a second, once per process and kind of decoding."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "detect_core.video.sandbox_probe", hardware_decode, str(threads)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
        answer = json.loads(done.stdout)
        return replace(judge(answer["state"], answer["refused"]), no_device=answer["no_device"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return SandboxReport(level="unknown", no_device=None if hardware_decode == "off" else "its probe did not come back")


def judge(state: Mapping[str, Any], refused: Mapping[str, bool]) -> SandboxReport:
    """Weigh the layers against the attempts: a layer that is on and lets something through is worse than one that is off."""
    promised = str(state["level"])
    if state["seccomp"] and not all(refused.get(act, False) for act in ACTS):
        promised = "leaky"
    return SandboxReport(level=promised, state=state, refused=refused)


def main() -> None:
    """Enter the sandbox, try every act, say what became of it."""
    parent, folder = os.getppid(), tempfile.gettempdir()
    name = os.path.join(folder, f"veriframe-probe-{os.getpid()}")  # noqa: PTH118 - pathlib would import lazily inside the sandbox
    acts: dict[str, Callable[[], object]] = {
        "read_file": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
        "write_file": lambda: os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600)),
        "network": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        "new_process": _fork,
        "signal_parent": lambda: os.kill(parent, 0),
        "take_memory": lambda: bytearray(2 * memory_bytes),
    }
    no_device: str | None = None
    if sys.argv[1] == "off":
        memory_bytes = _PROBE_BYTES
        state = sandbox.enter(memory_bytes=memory_bytes, cpu_seconds=5, threads=int(sys.argv[2]) > 1)
    else:
        memory_bytes = DecodeLimits().memory_bytes  # as a decode child has: a driver maps much
        state, no_device = _enter_with_card(sys.argv[1], memory_bytes=memory_bytes)
    refused = {act: _fails(attempt) for act, attempt in acts.items()}
    if not refused["write_file"]:
        os.unlink(name)  # noqa: PTH108 - as above
    os.write(1, json.dumps({"state": state.as_json(), "refused": refused, "no_device": no_device}).encode())
    os._exit(0)


def _enter_with_card(kind: Any, *, memory_bytes: int) -> tuple[sandbox.SandboxState, str]:
    from . import hardware  # the decoder's libraries: not for the usual probe

    state, device, reason = hardware.close_in(kind, memory_bytes=memory_bytes, cpu_seconds=5)
    if device is not None:
        try:
            hardware.prove(device)  # once more, closed in
        except HardwareDecodeError as err:
            reason = f"not inside the sandbox: {err}"
    return state, reason


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _fails(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return True
    return False


if __name__ == "__main__":
    main()
