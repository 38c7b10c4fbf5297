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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_SIGKILL: Final = 9
_EPERM: Final = 1
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_ADD_RULE: Final = 445
_LANDLOCK_RESTRICT_SELF: Final = 446
_PATH_BENEATH: Final = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1 << 1, 1 << 2, 1 << 3, 1 << 15

_INSTRUCTION: Final = struct.Struct("=HBBI")
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
_DRIVER_SYSCALLS: Final[dict[str, tuple[int, int]]] = {
    "dup": (32, 23),
    "sysinfo": (99, 179),
    "openat": (257, 56),
    "set_robust_list": (273, 99),
    "eventfd2": (290, 19),
    "pipe2": (293, 59),
}
"""What a graphics driver needs beside `ioctl` and new threads, which the filter looks at more closely."""
_THREAD_SYSCALLS: Final[dict[str, tuple[int, int]]] = {"set_robust_list": _DRIVER_SYSCALLS["set_robust_list"]}
"""What the C library calls in a new thread."""
_DRIVER_READS: Final = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc/self", "/proc/driver", "/proc/devices", "/proc/modules", "/proc/cpuinfo",
    "/proc/meminfo", "/sys/bus/pci", "/sys/devices", "/sys/module",
)  # fmt: skip
"""What a graphics driver reads: libraries, and what machine it is on. Nothing of the service, its media or its secrets lies there."""
_THREAD_NAMES: Final = "/proc/self/task"
"""Written by drivers from 570 on, which fail without."""
DriverUse = Literal["none", "gave_up", "in_use"]
_SECCOMP: Final = (317, 277)
_SET_MODE_FILTER: Final = 1
_FILTER_ALL_THREADS: Final = 1
_IOCTL: Final = (16, 29)
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_CLONE_THREAD: Final = 0x10000
_CLONE_AS_PTHREAD: Final = 0x7D0F00
"""Every flag that `pthread_create` of glibc or musl sets; none of them makes a namespace."""
_ENOSYS: Final = 38
_NVIDIA_IOCTLS: Final = (0x0000, 0x4600)
"""Second byte of the driver's request numbers: nvidia-uvm has plain small ones, the others carry an 'F'."""
_ARCHITECTURES: Final[dict[str, tuple[int, int]]] = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


@dataclass(frozen=True, slots=True)
class SandboxState:
    """Which layers hold in a decode child."""

    no_new_privileges: bool
    resource_limits: bool
    seccomp: bool
    landlock_abi: int
    """0 when the kernel has no Landlock."""
    threads: bool = False
    """Whether it may start threads; processes never."""
    opened_for: str = ""
    """What the sandbox was weakened for; empty for the usual one."""

    @property
    def level(self) -> str:
        """`full`, `partial` or `rlimits`, for health pages and metrics."""
        if self.seccomp and self.landlock_abi and not self.opened_for:
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


def admit_driver(files: Sequence[str]) -> bool:
    """Before a graphics driver is loaded: shut every file but its own and the system's libraries. Irreversible.

    It comes first because drivers start threads, and those that exist already escape a Landlock domain.

    Args:
        files: device files, open for reading, writing and requests.

    Returns:
        Whether the files are shut; where they are not, no driver may be loaded.
    """
    return _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and _landlock(files) > 0


def enter(
    *, memory_bytes: int, cpu_seconds: int, threads: bool = False, driver: DriverUse = "none", driver_files: Sequence[str] = ()
) -> SandboxState:
    """Give up everything that is not needed. Irreversible; call in the child, before any foreign byte is read.

    Args:
        memory_bytes: address space on top of what the process has mapped already.
        cpu_seconds: CPU time; SIGXCPU, then SIGKILL two seconds later.
        threads: let it start threads, if the filter that keeps processes out can be laid.
        driver: whether a graphics driver was loaded after `admit_driver`. `in_use`: it may be asked, may start threads and
            open its files, a weaker sandbox; `gave_up`: the usual one, laid over threads that it may have left.
        driver_files: as for `admit_driver`, when it is in use.
    """
    os.nice(5)
    mapped = _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if driver != "in_use":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        if not threads:  # which count as processes
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # beside seccomp: the kernel ignores it for root
    else:  # a driver holds dozens of descriptors, and its threads count as processes
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    no_new_privileges = _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    landlock_abi = _landlock(driver_files) if no_new_privileges else 0
    seccomp = _seccomp(driver, threads=threads) if no_new_privileges else False
    if not seccomp and driver != "in_use":
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return SandboxState(
        no_new_privileges=no_new_privileges,
        resource_limits=True,
        seccomp=seccomp,
        landlock_abi=landlock_abi,
        threads=threads and seccomp,
        opened_for="graphics driver: its requests, threads and device files, reading of system libraries" if driver == "in_use" else "",
    )


def _mapped_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib and text would import lazily, too late in a sandbox
        return int(statm.read().split()[0]) * resource.getpagesize()


def _landlock(driver_files: Sequence[str] = ()) -> int:
    """Forbid every file access by path and every TCP bind and connect that this kernel's Landlock knows, but for a driver's own files."""
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
    for path, rights in _driver_rules(driver_files):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", fs_rights & rights, fd)
        _LIBC.syscall(_LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
        os.close(fd)
    restricted = _LIBC.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return abi if restricted else 0


def _driver_rules(driver_files: Sequence[str]) -> list[tuple[str, int]]:
    """Path and Landlock rights of all that a graphics driver may open; nothing without its device files."""
    if not driver_files:
        return []
    reads = [(path, _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)) for path in _DRIVER_READS if os.access(path, os.F_OK)]  # noqa: PTH112
    return [
        *reads,
        (_THREAD_NAMES, _READ_FILE | _READ_DIR | _WRITE_FILE),
        *((path, _READ_FILE | _WRITE_FILE | _IOCTL_DEV) for path in driver_files),
    ]


def _seccomp(driver: DriverUse = "none", *, threads: bool = False) -> bool:
    """Install the allow-list: any other system call fails with EPERM, a foreign architecture kills."""
    program = _program(for_driver=driver == "in_use", threads=threads)
    if program is None:
        return False
    code = ctypes.create_string_buffer(program)
    descriptor = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(code))
    if driver != "none":  # the threads that a driver has started are closed in as well, or nothing is
        number = _SECCOMP[_ARCHITECTURES[platform.machine()][0]]
        return bool(_LIBC.syscall(number, _SET_MODE_FILTER, _FILTER_ALL_THREADS, ctypes.create_string_buffer(descriptor)) == 0)
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(descriptor), 0, 0) == 0)


def _program(*, for_driver: bool = False, threads: bool = False) -> bytes | None:
    """The filter in BPF; None for a processor whose numbers are not known here."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return None
    column, audit_arch = known
    more = _DRIVER_SYSCALLS if for_driver else _THREAD_SYSCALLS if threads else {}
    rows = [*_ALLOWED_SYSCALLS.values(), *more.values()]
    numbers = sorted({number for row in rows if (number := row[column]) is not None})
    instruction = _INSTRUCTION
    load, jump_equal, give = 0x20, 0x15, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | _EPERM, 0x80000000
    program = [instruction.pack(load, 0, 0, 4), instruction.pack(jump_equal, 1, 0, audit_arch), instruction.pack(give, 0, 0, kill)]
    program.append(instruction.pack(load, 0, 0, 0))
    take_and, jump_any, low_argument = 0x54, 0x45, (16, 24)
    if for_driver or threads:
        program += [
            instruction.pack(jump_equal, 0, 1, _CLONE3[column]),  # its flags lie in memory: libraries fall back to clone
            instruction.pack(give, 0, 0, 0x00050000 | _ENOSYS),
            instruction.pack(jump_equal, 0, 5, _CLONE[column]),
            instruction.pack(load, 0, 0, low_argument[0]),
            instruction.pack(jump_any, 2, 0, ~_CLONE_AS_PTHREAD & 0xFFFFFFFF),
            instruction.pack(jump_any, 0, 1, _CLONE_THREAD),  # a thread, never a process
            instruction.pack(give, 0, 0, allow),
            instruction.pack(give, 0, 0, refuse),
        ]
    if for_driver:
        program += [
            instruction.pack(jump_equal, 0, 6, _IOCTL[column]),
            instruction.pack(load, 0, 0, low_argument[1]),
            instruction.pack(take_and, 0, 0, 0xFF00),
            instruction.pack(jump_equal, 2, 0, _NVIDIA_IOCTLS[0]),
            instruction.pack(jump_equal, 1, 0, _NVIDIA_IOCTLS[1]),
            instruction.pack(give, 0, 0, refuse),
            instruction.pack(give, 0, 0, allow),
        ]
    for i, number in enumerate(numbers):
        program.append(instruction.pack(jump_equal, len(numbers) - i, 0, number))
    program += [instruction.pack(give, 0, 0, refuse), instruction.pack(give, 0, 0, allow)]
    return b"".join(program)
