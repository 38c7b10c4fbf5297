"""Reality Defender: the media object of its API (final scores 0-100) and the view of its SDK (scores 0-1)."""

from __future__ import annotations

from typing import Any, Final

from ..messages import VerdictBody
from ..messages.verdict import ModelPart, ScorePart

_STATUS: Final = {
    "authentic": "AUTHENTIC",
    "suspicious": "SUSPICIOUS",
    "manipulated": "FAKE",
    "inconclusive": "UNABLE_TO_EVALUATE",
}
_UNSCORED: Final = {"not_loaded": "NOT_EVALUATED", "no_crops": "NOT_APPLICABLE"}


def reality_defender_media(outcome: VerdictBody) -> dict[str, Any]:
    """What `GET /api/media/users/{requestId}` gives."""
    status, p_fake = _overall(outcome), _p_fake(outcome)
    return {
        "requestId": outcome.job_id or outcome.video_id,
        "name": outcome.video_id,
        "overallStatus": status,
        "resultsSummary": {
            "status": status,
            "metadata": {"finalScore": _percent(p_fake), "reasons": _reasons(outcome)},
        },
        "models": [_model(model, outcome.score) for model in outcome.models],
        "heatmaps": {},
        "thumbnail": None,
    }


def reality_defender_view(outcome: VerdictBody) -> dict[str, Any]:
    """What its SDK hands to callers."""
    return {
        "request_id": outcome.job_id or outcome.video_id,
        "status": _overall(outcome),
        "score": _p_fake(outcome),
        "models": [{"name": model.name, "status": _model_status(model, outcome.score), "score": model.p_fake} for model in outcome.models],
    }


def _overall(outcome: VerdictBody) -> str:
    if outcome.state in ("queued", "processing"):
        return "ANALYZING"
    return _STATUS[outcome.verdict] if outcome.verdict is not None else "UNABLE_TO_EVALUATE"


def _p_fake(outcome: VerdictBody) -> float | None:
    return outcome.score.p_fake if outcome.score is not None else None


def _reasons(outcome: VerdictBody) -> list[dict[str, str]]:
    if outcome.error is not None:
        return [{"code": outcome.error.code, "message": outcome.error.message}]
    return [{"code": code, "message": outcome.sentence or code} for code in outcome.reason_codes]


def _percent(p_fake: float | None) -> float | None:
    return None if p_fake is None else 100.0 * p_fake


def _model_status(model: ModelPart, score: ScorePart | None) -> str:
    """A detector's own score against the verdict's thresholds: a reading aid, the verdict weighs all detectors together."""
    if model.p_fake is None:
        return _UNSCORED.get(model.state, "UNABLE_TO_EVALUATE")
    if score is not None and score.threshold is not None and model.p_fake >= score.threshold:
        return "FAKE"
    if score is not None and score.threshold_review is not None and model.p_fake >= score.threshold_review:
        return "SUSPICIOUS"
    return "AUTHENTIC"


def _model(model: ModelPart, score: ScorePart | None) -> dict[str, Any]:
    status = _model_status(model, score)
    return {
        "name": model.name,
        "status": status,
        "data": {
            "decision": status,
            "score": model.p_fake,
            "raw_score": model.p_fake,
            "reason": None if model.p_fake is not None else model.state,
        },
        "finalScore": _percent(model.p_fake),
    }
