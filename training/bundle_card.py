"""The prose and figures of a bundle's card that every recipe writes the same way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .face_pack import FacePack

INTENDED_USE = "Screening of uploaded videos as one voice among several; a person decides."
LIMITS = (
    "Trained on few people; of the fakes most are simulated. Fakes of a kind that no training fake resembles are missed.",
    "Faces that are small, blurred or heavily compressed carry little evidence.",
    "Not for identification, not as the only ground for a decision about a person.",
)


def add_evaluation(root: Path, rows: Sequence[Mapping[str, Any]], *, beside: Sequence[str] = ()) -> None:
    """Write the rows that concern a bundle into its card; nothing that changes a score is touched.

    Args:
        root: folder of the bundle.
        rows: of the report.
        beside: names of the other bundles that the rows are about.
    """
    path = root / "bundle.json"
    document = json.loads(path.read_text())
    others = tuple(f"AUC: {name}: " for name in beside)
    metrics = document.setdefault("metrics", {})  # an imported checkpoint has none
    metrics["evaluation"] = [dict(row) for row in rows if not str(row["what"]).startswith(others)]
    path.write_text(json.dumps(document, indent=2) + "\n")


def card(
    *, recipe: str, settings: Mapping[str, Any], train: FacePack, families: Sequence[str], metrics: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """The free part of a bundle's card."""
    kinds = Counter(row.kind for row in train.rows)
    sources = Counter(f"{row.source} ({row.kind})" for row in train.rows)
    return {
        "data": {
            "reals": {
                "crops": len(train),
                "people_or_groups": len({row.group for row in train.rows}),
                **{k: kinds[k] for k in sorted(kinds)},
            },
            "sources": dict(sorted(sources.items())),
            "generators": list(families),
            "sha256": train.sha256(),
        },
        "recipe": {"name": recipe, "settings": dict(settings), "seed": seed},
        "metrics": dict(metrics),
        "intended_use": INTENDED_USE,
        "limits": list(LIMITS),
    }
