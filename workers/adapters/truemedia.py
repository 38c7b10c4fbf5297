"""TrueMedia: a rank per model and one for the media, with partial results while it runs."""

from __future__ import annotations

from typing import Any, Final

from ..messages import VerdictBody
from ..messages.verdict import ModelPart, ScorePart

_VERDICT: Final = {"authentic": "low", "suspicious": "uncertain", "inconclusive": "uncertain", "manipulated": "high"}
_STATE: Final = {"queued": "UPLOADING", "processing": "PROCESSING", "complete": "COMPLETE", "failed": "ERROR"}


def truemedia_analysis(outcome: VerdictBody) -> dict[str, Any]:
    """An analysis; `trusted` is a human's word there and never said by us."""
    waiting = outcome.state in ("queued", "processing")
    return {
        "state": _STATE[outcome.state],
        "pending": 1 if waiting else 0,
        "verdict": _VERDICT[outcome.verdict] if outcome.verdict is not None else "uncertain",
        "results": {model.name: _result(model, outcome.score) for model in outcome.models},
        "errors": [f"{outcome.error.code}: {outcome.error.message}"] if outcome.error is not None else [],
    }


def _result(model: ModelPart, score: ScorePart | None) -> dict[str, Any]:
    return {"rank": _rank(model.p_fake, score), "score": model.p_fake, "analysisTime": model.ms}


def _rank(p_fake: float | None, score: ScorePart | None) -> str:
    if p_fake is None or score is None or score.threshold is None or score.threshold_review is None:
        return "n/a"
    if p_fake >= score.threshold:
        return "high"
    return "uncertain" if p_fake >= score.threshold_review else "low"
