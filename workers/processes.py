"""Child processes that never outlive their parent, and that are started again when they die."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)
_PR_SET_PDEATHSIG: Final = 1
_TAIL_CHARS: Final = 2000

# Set the parent-death signal, notice a parent that died before that, then become the program. Kept across exec by the kernel.
_SHIM: Final = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[2]))\n"
    "if os.getppid()!=int(sys.argv[1]): os._exit(1)\n"
    "os.execv(sys.argv[3],sys.argv[3:])\n"
)


def tied_command(command: Sequence[str], *, death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """A command line that runs `command` and gets `death_signal` when the calling thread's process ends.

    The kernel watches the *thread* that spawns: call `Popen` from a thread that lives as long as the child should.
    """
    return [sys.executable, "-S", "-E", "-c", _SHIM, str(os.getpid()), str(int(death_signal)), *command]


def die_with_parent(death_signal: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to signal this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(death_signal))


def new_owner() -> str:
    """A name that no other process ever has: host, pid and a random tail."""
    return f"{socket.gethostname()[:24]}:{os.getpid()}:{secrets.token_hex(4)}"


class SupervisedProcess:
    """A child that is started again, with growing pauses, until `stop`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        grace_seconds: float = 45.0,
        log_path: Path | None = None,
        own_session: bool = False,
    ) -> None:
        """Prepare a child.

        Args:
            name: for logs.
            command: its command line.
            env: its whole environment.
            grace_seconds: from SIGTERM to SIGKILL.
            log_path: where its output goes; None: where this process writes.
            own_session: Ctrl-C in the terminal does not reach it.
        """
        self._name = name
        self._command = list(command)
        self._env = dict(env)
        self._grace_seconds = grace_seconds
        self._log_path = log_path
        self._own_session = own_session
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self.num_starts = 0
        """How often the child was started; more than once means that it died."""
        self._thread = threading.Thread(target=self._run, name=f"supervise-{name}", daemon=True)

    def start(self) -> None:
        """Start supervising."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the child is alive right now."""
        child = self._child
        return child is not None and child.poll() is None

    @property
    def pid(self) -> int | None:
        """The child of this moment, or the last one."""
        child = self._child
        return None if child is None else child.pid

    def log_tail(self) -> str:
        """The last lines of its log, for a message."""
        text = ""
        with suppress(OSError):
            text = self._log_path.read_text(errors="replace").strip()[-_TAIL_CHARS:] if self._log_path is not None else ""
        return text or "(nothing)"

    def stop(self) -> None:
        """End the child: SIGTERM, then SIGKILL after the grace time."""
        self._stopping.set()
        with self._lock:
            child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=self._grace_seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(timeout=5)
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with ExitStack() as stack:
            output = stack.enter_context(self._log_path.open("ab")) if self._log_path is not None else None
            child = subprocess.Popen(
                tied_command(self._command),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=self._own_session,
            )
        self.num_starts += 1
        return child

    def _run(self) -> None:
        pause = 0.5
        while not self._stopping.is_set():
            started = time.monotonic()
            status: int | str
            try:
                with self._lock:
                    if self._stopping.is_set():
                        return
                    self._child = child = self._spawn()
                status = child.wait()
            except OSError as err:  # no process or descriptor is free, the disk of its log is full: it passes
                status = f"not started: {err.strerror}"
            if self._stopping.is_set():
                return
            pause = 0.5 if time.monotonic() - started > 30 else min(15.0, pause * 2)
            log.warning("child_ended", name=self._name, status=status, restart_in_seconds=pause)
            self._stopping.wait(pause)
