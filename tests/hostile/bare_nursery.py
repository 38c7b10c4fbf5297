"""A nursery whose children do all that a decode child does, but enter no sandbox: what the sandbox costs is the difference."""

from __future__ import annotations

import os

from detect_core.video import nursery, sandbox


def _stay_outside(**_: object) -> sandbox.SandboxState:
    os.nice(5)  # as the real one, or the comparison would be one of priorities
    return sandbox.SandboxState(no_new_privileges=False, resource_limits=False, seccomp=False, landlock_abi=0)


if __name__ == "__main__":
    nursery.sandbox.enter = _stay_outside  # type: ignore[attr-defined]
    nursery.main()
