"""Known vulnerabilities of the pinned set: `python -m tests.audit` exits 0 for none, 1 for some, 2 when nobody could be asked.

pip-audit alone says "no known vulnerabilities" when its service answers 404 for everything, as behind a mirror that knows no
advisories. Here a package that was not looked up is no clean package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
SERVICES = (("-s", "pypi"), ("-s", "osv"))
ACCEPTED: dict[str, str] = {}
"""Advisories that do not concern us, with the reason why."""


class ServiceUnreachableError(Exception):
    """No advisory service answered."""


@dataclass(frozen=True)
class Audit:
    """What one look at the advisories gave."""

    num_audited: int
    findings: tuple[str, ...]
    """`name version: advisory (fixed in ...)`."""
    unaudited: tuple[str, ...]
    """Packages that the service does not know."""

    @property
    def is_clean(self) -> bool:
        return self.num_audited > 0 and not self.findings and not self.unaudited


def pins(constraints: Path = CONSTRAINTS) -> list[str]:
    """The `name==version` lines."""
    return [line for line in constraints.read_text().splitlines() if "==" in line and not line.startswith("#")]


def look_up(requirements: list[str], service: tuple[str, ...], *, seconds: float) -> Audit:
    """Ask one service about these pins. Raises `ServiceUnreachableError`."""
    with tempfile.TemporaryDirectory() as folder:
        listed, told = Path(folder, "pins.txt"), Path(folder, "told.json")
        listed.write_text("\n".join(requirements) + "\n")
        arguments = ["--requirement", listed, "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        arguments += ["--output", told, "--timeout", "5", "--cache-dir", Path(folder, "cache")]
        ignored = [part for advisory in ACCEPTED for part in ("--ignore-vuln", advisory)]
        command = [sys.executable, "-m", "pip_audit", *map(str, arguments), *service, *ignored]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as err:
            raise ServiceUnreachableError(f"{service[-1]}: no answer within {seconds:g} s") from err
        if not told.exists():
            said = (answer.stderr.strip().splitlines() or ["no word"])[-1]
            raise ServiceUnreachableError(f"{service[-1]}: {said:.200}")
        dependencies = json.loads(told.read_text())["dependencies"]
    audited = [each for each in dependencies if "skip_reason" not in each]
    if dependencies and not audited:
        raise ServiceUnreachableError(f"{service[-1]}: knows none of {len(dependencies)} packages, so it is no advisory service")
    findings = [
        f"{each['name']} {each['version']}: {found['id']} (fixed in {', '.join(found['fix_versions']) or 'no version'})"
        for each in audited
        for found in each["vulns"]
    ]
    return Audit(len(audited), tuple(findings), tuple(each["name"] for each in dependencies if "skip_reason" in each))


def audit(constraints: Path = CONSTRAINTS, *, seconds: float = 100.0) -> Audit:
    """Ask the first service that answers for one pin about all of them. Raises `ServiceUnreachableError` when none does."""
    wanted, silent = pins(constraints), []
    for service in SERVICES:
        try:
            look_up(wanted[:1], service, seconds=20.0)
            return look_up(wanted, service, seconds=seconds)
        except ServiceUnreachableError as err:
            silent.append(str(err))
    raise ServiceUnreachableError("; ".join(silent))


def main() -> int:
    try:
        found = audit()
    except ServiceUnreachableError as err:
        print(f"not audited, no advisory service answers: {err}")
        return 2
    for finding in found.findings:
        print(finding)
    if found.unaudited:
        print(f"not known to the service: {', '.join(found.unaudited)}")
    print(f"{found.num_audited} packages looked up, {len(found.findings)} known vulnerabilities")
    return 0 if found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
