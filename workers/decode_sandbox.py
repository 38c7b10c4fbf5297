"""The decode sandbox as the service sees it: shown on health pages, and a reason not to start a worker where it does not hold."""

from __future__ import annotations

from typing import Any

import structlog

from detect_core.options import HardwareDecode
from detect_core.video.sandbox_probe import SandboxReport, probe_sandbox

from .errors import SandboxError
from .settings import Settings

log = structlog.get_logger(__name__)


def usable_hardware(settings: Settings) -> HardwareDecode:
    """The wish of the settings if the card proved itself in this process's probe, else `off`."""
    wish = settings.hardware_decode
    return wish if wish != "off" and probe_sandbox(wish).device_decodes else "off"


def _report(settings: Settings) -> SandboxReport:
    """Of the sandbox that decoders get: the weaker one only where the card is used."""
    usable = usable_hardware(settings)
    return probe_sandbox(threads=settings.decode_threads) if usable == "off" else probe_sandbox(usable)


def sandbox_facts(settings: Settings) -> dict[str, Any]:
    """What the probe found on this machine, for `/health`."""
    facts: dict[str, Any] = {"decode_sandbox": _report(settings).as_json()}
    if settings.hardware_decode != "off":
        problem = probe_sandbox(settings.hardware_decode).no_device
        facts["hardware_decode"] = {"asked_for": settings.hardware_decode, "in_use": usable_hardware(settings), "problem": problem}
    return facts


def require_sandbox(settings: Settings) -> str:
    """Refuse to decode foreign files where a hijacked decoder could reach files, network or processes. Gives the level.

    Raises:
        SandboxError: the sandbox does not hold and `allow_unsandboxed_decode` is off.
    """
    if settings.hardware_decode != usable_hardware(settings):
        reason = probe_sandbox(settings.hardware_decode).no_device or "the sandbox for its driver does not hold"
        log.warning("hardware_decode_unavailable", asked_for=settings.hardware_decode, reason=reason, note="decoding in software")
    report = _report(settings)
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
