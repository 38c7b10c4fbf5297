"""Children that are started again, whatever the reason that they are not there."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

from workers import processes
from workers.processes import SupervisedProcess
from workers.settings import base_environment


def test_a_fork_that_fails_once_is_tried_again(monkeypatch):
    real, tries = subprocess.Popen, []

    def flaky(*arguments, **options):
        tries.append(arguments)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")  # as at the limit of processes
        return real(*arguments, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", flaky)
    child = SupervisedProcess("child", [sys.executable, "-c", "import time; time.sleep(60)"], env=base_environment())
    child.start()
    try:
        end = time.monotonic() + 10
        while not child.is_running and time.monotonic() < end:
            time.sleep(0.05)
        assert child.is_running
        assert child.num_starts == 1, "what never ran did not die"
    finally:
        child.stop()
