"""Recompute what a run reported from the items that it saved: a table that does not follow from its predictions is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from .errors import DataError
from .measure import evaluation_rows, measured, read_predictions

_TOLERANCE: Final = 2e-4
"""Figures are rounded to four digits."""


def verify_run(run_dir: Path) -> int:
    """Compare `outcome.json` and `evaluation.json` with `predictions.csv`; returns how many figures agree.

    Raises:
        DataError: a file is missing, or a figure does not follow from the predictions; names the first.
    """
    outcome, evaluation = (_read(run_dir / name) for name in ("outcome.json", "evaluation.json"))
    frames = read_predictions(run_dir / "predictions.csv")
    checked = 0
    for name, value in measured(frames.logits, frames.labels, prefix="test_").items():
        _compare(run_dir / "outcome.json", name, outcome["metrics"].get(name), value)
        checked += 1
    rows = {(row["level"], row["what"]): row for level in (frames, frames.by_video()) for row in evaluation_rows(level)}
    for reported in evaluation["rows"]:
        fresh = rows.get((reported["level"], reported["what"]))
        if fresh is None:
            raise DataError(f"{run_dir / 'evaluation.json'}: row {reported['what']!r} has no item in predictions.csv; run the recipe again")
        for name, value in fresh.items():
            if isinstance(value, float):
                _compare(run_dir / "evaluation.json", f"{reported['level']} {reported['what']}: {name}", reported.get(name), value)
                checked += 1
    return checked


def _compare(path: Path, name: str, reported: object, fresh: float) -> None:
    if not isinstance(reported, int | float) or abs(float(reported) - fresh) > _TOLERANCE:
        raise DataError(f"{path}: {name} is {reported}, the saved predictions give {fresh}; run the recipe again, or restore the folder")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: not there; give the folder of a finished supervised run")
    document: dict[str, Any] = json.loads(path.read_text())
    return document
