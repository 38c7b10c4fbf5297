"""Take everything away from the decode child that decoding does not need.

No new privileges, resource limits, death with the parent, no network and no file opens (seccomp allow-list), no
path reachable (Landlock). Each layer that the kernel lacks is reported, never silently skipped. No subprocess, no
library: a few system calls through ctypes, made in the child right after it was forked.

Sources: prctl(2), seccomp(2), landlock(7), getrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from dataclasses import asdict, dataclass
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_SIGKILL: Final = 9
_EPERM: Final = 1
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446

_LIBC = ctypes.CDLL(None, use_errno=True)

_ALLOWED_SYSCALLS: Final[dict[str, tuple[int, int | None]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "fcntl": (72, 25),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "ppoll": (271, 73),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
"""What a single-threaded decoder with its files already open needs: name -> number on (x86_64, aarch64)."""
_ARCHITECTURES: Final[dict[str, tuple[int, int]]] = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


@dataclass(frozen=True, slots=True)
class SandboxState:
    """Which layers hold in a decode child."""

    no_new_privileges: bool
    resource_limits: bool
    seccomp: bool
    landlock_abi: int
    """0 when the kernel has no Landlock."""

    @property
    def level(self) -> str:
        """`full`, `partial` or `rlimits`, for health pages and metrics."""
        if self.seccomp and self.landlock_abi:
            return "full"
        return "partial" if self.seccomp or self.landlock_abi else "rlimits"

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary for the wire and for `/health`."""
        return {**asdict(self), "level": self.level}


def die_with_parent(expected_parent: int) -> None:
    """Be killed when the process that forked this one ends; leave at once if it has ended already."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != expected_parent:
        os._exit(0)


def enter(*, memory_bytes: int, cpu_seconds: int) -> SandboxState:
    """Give up everything that is not needed. Irreversible; call in the child, before any foreign byte is read.

    Args:
        memory_bytes: address space on top of what the process has mapped already.
        cpu_seconds: CPU time; SIGXCPU, then SIGKILL two seconds later.
    """
    os.nice(5)
    mapped = _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # beside seccomp: the kernel ignores it for root
    no_new_privileges = _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    landlock_abi = _landlock() if no_new_privileges else 0
    seccomp = _seccomp() if no_new_privileges else False
    return SandboxState(no_new_privileges=no_new_privileges, resource_limits=True, seccomp=seccomp, landlock_abi=landlock_abi)


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - pathlib would import lazily later on
        return int(statm.read().split()[0]) * resource.getpagesize()


def _landlock() -> int:
    """Forbid every file access by path and every TCP bind and connect that this kernel's Landlock knows."""
    abi = int(_LIBC.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    if abi < 1:
        return 0
    fs_rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    net_rights = 3 if abi >= 4 else 0
    attributes = struct.pack("=QQ", fs_rights, net_rights)[: 16 if abi >= 4 else 8]
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = int(_LIBC.syscall(_LANDLOCK_CREATE_RULESET, buffer, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        return 0
    restricted = _LIBC.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return abi if restricted else 0


def _seccomp() -> bool:
    """Install the allow-list: any other system call fails with EPERM, a foreign architecture kills."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    column, audit_arch = known
    numbers = sorted({number for row in _ALLOWED_SYSCALLS.values() if (number := row[column]) is not None})
    instruction = struct.Struct("=HBBI")
    load, jump_equal, give = 0x20, 0x15, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | _EPERM, 0x80000000
    program = [instruction.pack(load, 0, 0, 4), instruction.pack(jump_equal, 1, 0, audit_arch), instruction.pack(give, 0, 0, kill)]
    program.append(instruction.pack(load, 0, 0, 0))
    for i, number in enumerate(numbers):
        program.append(instruction.pack(jump_equal, len(numbers) - i, 0, number))
    program += [instruction.pack(give, 0, 0, refuse), instruction.pack(give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(program))
    descriptor = struct.pack("@HP", len(program), ctypes.addressof(code))
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(descriptor), 0, 0) == 0)
