"""ROOST Coop: the body of `POST /api/v1/items/async/`, so that its rules and queues can act on a verdict.

Its item types are made by hand in its dashboard: make one with the fields below, all optional but `verdict` and `state`, and
name its ID. Fields are flat, typed STRING, NUMBER, BOOLEAN or DATETIME; what was not measured is left out, Coop takes no nulls.
"""

from __future__ import annotations

from typing import Any

from ..ledger.reviews import needs_people
from ..messages import VerdictBody


def coop_items(outcome: VerdictBody, *, type_id: str = "veriframe_video") -> dict[str, Any]:
    """One item in the list that Coop takes.

    Args:
        outcome: the verdict.
        type_id: ID of the item type in that Coop.
    """
    score = outcome.score
    worst = outcome.evidence[0] if outcome.evidence else None
    fields: dict[str, Any] = {
        "state": outcome.state,
        "verdict": outcome.verdict or "none",
        "sentence": outcome.sentence,
        "p_fake": score.p_fake if score else None,
        "threshold_review": score.threshold_review if score else None,
        "threshold_fake": score.threshold if score else None,
        "reason_codes": ",".join(outcome.reason_codes) or None,
        "error_code": outcome.error.code if outcome.error else None,
        "num_faces": len(outcome.tracks),
        "worst_seconds": worst.t if worst else None,
        "worst_score": worst.score if worst else None,
        "needs_review": outcome.verdict is not None and needs_people(outcome.verdict, outcome.reason_codes),
        "content_sha256": outcome.content_sha256,
        "bundle_set": outcome.bundle_set,
        "revision": outcome.revision,
        "job_id": outcome.job_id,
        "created_at": outcome.created_at,
    }
    data = {name: value for name, value in fields.items() if value is not None}
    return {"items": [{"id": outcome.video_id, "typeId": type_id, "data": data}]}
