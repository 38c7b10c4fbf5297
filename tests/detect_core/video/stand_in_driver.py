"""The probe with a stand-in for a card's driver: device files that every machine has, threads that it started, and an answer to give.

Run as `python -I stand_in_driver.py works|fails`. Prints the probe's line, then what threads and device files could do.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from detect_core.errors import HardwareDecodeError
from detect_core.video import hardware, sandbox, sandbox_probe

FILES = ("/dev/null", "/dev/zero")
SECRET = "/etc/passwd"


def outcome(act: Callable[[], Any]) -> str:
    try:
        act()
    except (OSError, RuntimeError) as err:
        return type(err).__name__
    return "done"


class Driver:
    """Starts a thread while it is loaded, as CUDA does, and may fail after that."""

    def __init__(self, *, works: bool) -> None:
        self._works = works
        self._closed_in = threading.Event()
        self._thread = threading.Thread(target=self._haunt)
        self.found: dict[str, str] = {}

    def load(self, _kind: str) -> Any:
        self.found["opens a file while loading"] = outcome(lambda: os.open(SECRET, os.O_RDONLY))
        self.found["reads libraries while loading"] = outcome(lambda: os.open("/usr/lib/os-release", os.O_RDONLY))
        self.found["lists what machine it is on"] = outcome(lambda: os.close(os.open("/sys/devices", os.O_RDONLY | os.O_DIRECTORY)))
        self._thread.start()
        if not self._works:
            raise HardwareDecodeError("the stand-in fails")
        return object()

    def _haunt(self) -> None:
        self._closed_in.wait()
        self.found["its thread opens a file"] = outcome(lambda: os.open(SECRET, os.O_RDONLY))
        self.found["its thread makes a pipe"] = outcome(os.pipe)
        self.found["its thread makes a process"] = outcome(os.fork)

    def after(self, **closed: Any) -> Any:
        state = ENTER(**closed)
        self._closed_in.set()
        self._thread.join()
        self.found["opens its device file"] = outcome(lambda: os.open(FILES[1], os.O_RDWR))
        self.found["opens another device file"] = outcome(lambda: os.open("/dev/full", os.O_RDWR))
        self.found["asks the driver"] = outcome(lambda: fcntl.ioctl(0, 0x4601, b"...."))
        self.found["asks a terminal"] = outcome(lambda: fcntl.ioctl(0, 0x541B, b"...."))
        self.found["starts a thread"] = outcome(lambda: threading.Thread(target=int).start())
        os.write(2, json.dumps(self.found).encode())
        return state


ENTER = sandbox.enter
driver = Driver(works=sys.argv[1] == "works")
hardware.driver_files = lambda: FILES  # type: ignore[assignment]
hardware.open_device = driver.load  # type: ignore[assignment]
hardware.prove = lambda _device: None  # type: ignore[assignment]
sandbox.enter = driver.after
sys.argv[1:] = ["cuda"]
sandbox_probe.main()
