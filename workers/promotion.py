"""Which bundle set is in charge: the one of the settings, else the promoted one, else the shipped default.

A promotion is a small file in the state folder that names a set and its hash; a set that changed since is refused, never used silently.
It holds on one machine: where a ledger server is shared, the settings of the workers say who is in charge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .errors import WorkerError
from .settings import Settings

_FILE: Final = "promoted.json"


class NotPromotedError(WorkerError):
    """Raised when a set cannot be put in charge, or a promoted set is not the one that passed its gate."""

    code = "NOT_PROMOTED"


def bundle_set_in_charge(settings: Settings) -> Path | str:
    """The set that decides here.

    Raises:
        NotPromotedError: the promoted set changed or vanished since it passed its gate.
    """
    from detect_core.calibration import DEFAULT_SET, load_bundle_set
    from detect_core.errors import BundleError

    if settings.bundle_set is not None:
        return settings.bundle_set
    pointer = settings.state_dir / _FILE
    if not pointer.is_file():
        return DEFAULT_SET
    try:
        promoted = json.loads(pointer.read_text())
        path, label = Path(promoted["path"]), promoted["label"]
        found = load_bundle_set(path).label
    except (ValueError, KeyError, TypeError, OSError, BundleError) as err:
        raise NotPromotedError(f"the promoted bundle set of {pointer} cannot be loaded ({err}): restore it, or remove that file") from err
    if found != label:
        raise NotPromotedError(f"{path} is {found} now, {label} passed the gate: restore it, or promote again")
    return path


def promote(settings: Settings, path: Path, *, label: str, report: Mapping[str, Any]) -> Path:
    """Put a set in charge; workers take it at their next start. Gives the file that says so.

    Raises:
        NotPromotedError: workers of other machines would not see it, or the settings name a set, which would stay in charge.
    """
    if not settings.resolved_ledger_url.startswith("sqlite"):
        raise NotPromotedError(
            "the ledger is a server that several machines share, and a promotion is a file in the state folder of this one, nothing was "
            f"changed: set VERIFRAME_BUNDLE_SET={path.absolute()} for the workers, where they can read it, and restart them"
        )
    if settings.bundle_set is not None:
        raise NotPromotedError(
            f"VERIFRAME_BUNDLE_SET={settings.bundle_set} wins over a promotion, nothing was changed: unset it, also for the workers, "
            "and promote again"
        )
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    pointer = settings.state_dir / _FILE
    fresh = pointer.with_suffix(".tmp")
    fresh.write_text(json.dumps({"path": str(path.absolute()), "label": label, "gate": dict(report)}, indent=1) + "\n")
    fresh.replace(pointer)
    return pointer
