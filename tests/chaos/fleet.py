"""Processes of a chaos run: each in its own process group, started again at once when it dies, killed on command."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(eq=False)
class Member:
    """One supervised process."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    keep: bool = True
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    cpu_of_dead: float = 0.0
    returncodes: list[int] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Fleet:
    """All processes of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members: dict[str, Member] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def add(self, name: str, command: list[str], env: dict[str, str], *, keep: bool = True) -> Member:
        member = Member(name, command, env, self.folder / f"{name}.log", keep=keep)
        with self._lock:
            member.start()
            self.members[name] = member
        return member

    def of(self, prefix: str) -> list[Member]:
        return [member for name, member in self.members.items() if name.startswith(prefix)]

    def kill(self, member: Member, *, number: signal.Signals = signal.SIGKILL, group: bool = True) -> int | None:
        """Send a signal to a living member; gives its pid."""
        with self._lock:
            if not member.is_alive:
                return None
            pid = member.pid
            if group:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
            return pid

    def stop(self, *, seconds: float = 20.0) -> None:
        """End all: SIGTERM, then SIGKILL of whole groups."""
        self._stop.set()
        self._thread.join()
        living = [member for member in self.members.values() if member.is_alive]
        for member in living:
            self.kill(member, number=signal.SIGTERM, group=False)
        end = time.monotonic() + seconds
        for member in living:
            assert member.process is not None
            try:
                member.process.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill(member)
                member.process.wait()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            with self._lock:
                for member in list(self.members.values()):
                    if not member.is_alive and member.process is not None and member.keep:
                        member.returncodes.append(member.process.returncode)
                        member.start()


def children_of(pid: int) -> list[int]:
    """Living child processes of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its finished children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / CLOCK_TICKS


def open_files(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def marked_processes(mark: str) -> list[int]:
    """Processes whose environment carries a mark; how orphans are found."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
