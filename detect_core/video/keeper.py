"""The worker's side of the nursery: start it, ask it for children, hear of their deaths. One per process, thread-safe."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DecodeResourceError
from ..options import DecodeLimits
from . import wire

_SPAWN_SECONDS = 20.0
_MISFITS = (KeyError, TypeError, ValueError)


@dataclass(slots=True, eq=False)
class ChildHandle:
    """One decode child: its end of the socket, and what became of it."""

    sock: socket.socket
    spawned: threading.Event = field(default_factory=threading.Event)
    dead: threading.Event = field(default_factory=threading.Event)
    pid: int = 0
    pidfd: int = -1
    status: int | None = None
    """Exit code, or minus the signal that ended it."""
    peak_rss_bytes: int = 0
    cpu_seconds: float = 0.0
    refusal: str = ""
    """Why the nursery could not start it."""

    def kill(self) -> None:
        """SIGKILL the child if it still lives."""
        if self.pidfd >= 0 and not self.dead.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the child: its socket closes, which ends it."""
        self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass(slots=True, eq=False)
class _Nursery:
    """One nursery process and its children; the next one after its death has its own."""

    control: socket.socket
    process: subprocess.Popen[bytes]
    waiting: dict[int, ChildHandle] = field(default_factory=dict)
    """By ticket, those asked for."""
    living: dict[int, ChildHandle] = field(default_factory=dict)
    """By process number."""
    early_deaths: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Deaths heard of before the births."""


class NurseryKeeper:
    """Starts the nursery process on first use and again should it ever die."""

    def __init__(self, program: Sequence[str] = ("-m", "detect_core.video.nursery")) -> None:
        """Nothing starts yet.

        Args:
            program: what the interpreter runs as the nursery; tests put a hostile one here.
        """
        self._program = tuple(program)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._nursery: _Nursery | None = None
        self._tickets = itertools.count()

    def warm(self) -> None:
        """Start the nursery now, so that the first video does not wait for it."""
        with self._lock:
            self._ensure()

    def spawn(self, *, video_fd: int, shm_fd: int, limits: DecodeLimits, threads: int = 1) -> ChildHandle:
        """Fork a decode child that holds copies of the two descriptors.

        Raises:
            DecodeResourceError: the nursery could not start it, or did not answer in time (the machine has no memory or processes left).
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        handle = ChildHandle(sock=ours)
        ticket = next(self._tickets)
        message = {
            "ticket": ticket,
            "memory_bytes": limits.memory_bytes,
            "cpu_seconds": limits.cpu_seconds,
            "threads": threads,
            "hardware_decode": limits.hardware_decode,
        }
        with self._lock:
            nursery = self._ensure()
            nursery.waiting[ticket] = handle
        try:
            with self._send_lock:
                wire.send(nursery.control, message, fds=(theirs.fileno(), video_fd, shm_fd))
        except OSError as err:
            handle.close()
            raise DecodeResourceError("no decode child could be started; the video will be tried again") from err
        finally:
            theirs.close()
        if not handle.spawned.wait(_SPAWN_SECONDS):
            handle.close()
            raise DecodeResourceError(f"no decode child was started within {_SPAWN_SECONDS:.0f} s; the video will be tried again")
        if handle.refusal:
            handle.close()
            raise DecodeResourceError(f"no decode child could be started ({handle.refusal}); the video will be tried again")
        if handle.pid == 0:
            handle.close()
            raise DecodeResourceError("the process that starts decode children ended before it started one; the video will be tried again")
        return handle

    def close(self) -> None:
        """End the nursery and with it every child."""
        with self._lock:
            nursery, self._nursery = self._nursery, None
        if nursery is not None:
            with contextlib.suppress(OSError):
                nursery.control.shutdown(socket.SHUT_RDWR)
            nursery.process.wait(timeout=10)

    def _ensure(self) -> _Nursery:
        if self._nursery is not None and self._nursery.process.poll() is None:
            return self._nursery
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment["MALLOC_ARENA_MAX"] = "1"  # an arena for each thread would take from the address space that a decoder may have
        process = subprocess.Popen(
            [sys.executable, "-I", *self._program, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._nursery = nursery = _Nursery(ours, process)
        threading.Thread(target=self._listen, args=(nursery,), name="nursery-keeper", daemon=True).start()
        return nursery

    def _listen(self, nursery: _Nursery) -> None:
        with contextlib.suppress(OSError, wire.WireError, *_MISFITS):
            while (received := wire.receive(nursery.control)) is not None:
                message, _ = received
                if "spawned" in message:
                    self._on_spawned(nursery, message)
                elif "failed" in message:
                    self._on_failed(nursery, message)
                else:
                    self._on_dead(nursery, message)
        # its end, or words that make no sense: nobody listens from here on, so it must not live on and be asked for children
        nursery.process.kill()
        nursery.control.close()
        nursery.process.wait()
        with self._lock:
            if self._nursery is nursery:
                self._nursery = None  # nobody may wait for it from here on
            orphans = [*nursery.living.values(), *nursery.waiting.values()]
        for handle in orphans:
            handle.status = -int(signal.SIGKILL)
            handle.dead.set()
            handle.spawned.set()

    def _on_spawned(self, nursery: _Nursery, message: dict[str, Any]) -> None:
        pid = int(message["spawned"])
        with self._lock:
            handle = nursery.waiting.pop(int(message["ticket"]))
            handle.pid = pid
            early = nursery.early_deaths.pop(pid, None)
            if early is None:
                nursery.living[pid] = handle
                if handle.sock.fileno() >= 0:  # else nobody waits for it any more, and it ends by itself
                    with contextlib.suppress(OSError):
                        handle.pidfd = os.pidfd_open(pid)
        if early is not None:
            _record_death(handle, early)
        handle.spawned.set()

    def _on_failed(self, nursery: _Nursery, message: dict[str, Any]) -> None:
        with self._lock:
            handle = nursery.waiting.pop(int(message["failed"]))
        handle.refusal = str(message["reason"])
        handle.spawned.set()

    def _on_dead(self, nursery: _Nursery, message: dict[str, Any]) -> None:
        pid = int(message["dead"])
        with self._lock:
            handle = nursery.living.pop(pid, None)
            if handle is None:
                nursery.early_deaths[pid] = message
        if handle is not None:
            _record_death(handle, message)


def _record_death(handle: ChildHandle, message: dict[str, Any]) -> None:
    handle.status = int(message["status"])
    handle.peak_rss_bytes = int(message["peak_rss_bytes"])
    handle.cpu_seconds = float(message["cpu_seconds"])
    handle.dead.set()


_KEEPER = NurseryKeeper()


def keeper() -> NurseryKeeper:
    """The process-wide keeper."""
    return _KEEPER
