"""The decode sandbox as the service sees it: shown on health pages, and a reason not to start a worker where it does not hold."""

from __future__ import annotations

from typing import Any

import structlog

from detect_core.video.sandbox_probe import probe_sandbox

from .errors import SandboxError
from .settings import Settings

log = structlog.get_logger(__name__)


def sandbox_facts() -> dict[str, Any]:
    """What the probe found on this machine, for `/health`."""
    return {"decode_sandbox": probe_sandbox().as_json()}


def require_sandbox(settings: Settings) -> str:
    """Refuse to decode foreign files where a hijacked decoder could reach files, network or processes. Gives the level.

    Raises:
        SandboxError: the sandbox does not hold and `allow_unsandboxed_decode` is off.
    """
    report = probe_sandbox()
    if report.holds:
        return report.level
    open_acts = sorted(act for act, refused in report.refused.items() if not refused)
    found = f"the decode sandbox is {report.level!r} here, a decoder could still: {', '.join(open_acts) or 'unknown'}"
    if not settings.allow_unsandboxed_decode:
        raise SandboxError(
            f"{found}. Run on Linux with seccomp for unprivileged processes (containers: keep the default profile), "
            "or accept the risk with VERIFRAME_ALLOW_UNSANDBOXED_DECODE=true"
        )
    log.warning("decode_unsandboxed", level=report.level, open=open_acts, note="allowed by VERIFRAME_ALLOW_UNSANDBOXED_DECODE")
    return report.level
