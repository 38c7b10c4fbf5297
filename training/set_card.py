"""`CARD.md`: what the shipped detectors are, what they were measured to do, and what they must not be used for. Written from the reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detect_core.calibration import BundleSet
from detect_core.detectors import is_track_bundle

from .bundle_card import INTENDED_USE
from .errors import DataError

_NOT_FOR = (
    "deciding about a person without a human look at the video",
    "identifying anyone, or searching for a face",
    "courts, hiring, border control or any use where a wrong verdict cannot be appealed",
    "audio, text, or pictures without a face: only faces are judged",
)


def set_card(bundle_set: BundleSet, report: Mapping[str, Any]) -> str:
    """The card of a bundle set.

    Args:
        bundle_set: the set that is described.
        report: `evaluation/1`, measured with exactly this set.

    Raises:
        DataError: the report is of another set.
    """
    if report.get("bundle_set") != bundle_set.label:
        raise DataError(f"the report measured {report.get('bundle_set')!r}, the set is {bundle_set.label!r}; evaluate the set again")
    calibration, protocol = bundle_set.calibration, bundle_set.document["protocol"]
    rows: Sequence[Mapping[str, Any]] = report["rows"]
    parts = [
        f"# Card of the bundle set `{bundle_set.label}`",
        "Written by `veriframe-train card` from the evaluation report; every number below has its protocol beside it.",
        f"**Intended use.** {INTENDED_USE}",
        "**Not for:** " + "; ".join(_NOT_FOR) + ".",
        "## Detectors",
        *(_detector(bundle.name, bundle.sha256, bundle.card, calibration.fusion.weights.get(bundle.name)) for bundle in bundle_set.bundles),
        "## How a verdict comes about",
        f"Crop logits are joined by the `{calibration.fusion.kind}` of the detectors (weights above), tracks by `{calibration.strategy}` with a crowd "
        f"correction of {calibration.beta:.2f} logits per e-fold of faces, videos by Platt scaling ({calibration.name}). "
        "The weights were chosen, and the Platt line and the thresholds fitted, on the same held-out videos that the rows below report. "
        f"At or above {calibration.t_fake:.3f} the word is `manipulated`, at or above {calibration.t_review:.3f} `suspicious`.",
        f"Thresholds stand on {protocol['num_real_videos']} real videos of people that no crop detector was trained on. "
        f"False positives at `manipulated`: {protocol['fpr_at_t_fake']:.3f}, with 95 % confidence at most {protocol['fpr_upper_95']:.3f}.",
        *_abstentions(bundle_set),
        "## Measured",
        f"Material: {report['material']}; scored rows by role: {', '.join(f'{v} {k}' for k, v in sorted(report['videos'].items()))}. "
        "Intervals are bootstrapped by person, those of pairs by pair. Rows marked *seen* and those of pairs are of families that training knew: they "
        "say little about new ones. On stills, single detectors know the generators that are named with them above, and no others."
        f"{_track_lines(bundle_set, report)}",
        _table(rows),
        "## Limits",
        *(f"- {limit}" for limit in _limits(bundle_set)),
    ]
    text = "\n\n".join(parts)
    return text.replace("\n\n- ", "\n- ") + "\n"


def _track_lines(bundle_set: BundleSet, report: Mapping[str, Any]) -> str:
    """By which lines the measured videos were judged over time, as far as the report says."""
    names = [f"`{bundle.name}`" for bundle in bundle_set.bundles if is_track_bundle(bundle)]
    said = {
        "cross_fitted": "cross-fitted: a fake was judged by a line that saw no fake of its generator, a real video by one that saw no other real "
        "video of its person",
        "unseen": "judged as shipped: whoever measured says that it learned from none of these videos",
    }.get(str(report.get("track_lines")))
    return f" {' and '.join(names)}: {said}." if names and said else ""


def _abstentions(bundle_set: BundleSet) -> list[str]:
    """When nothing is claimed, and what lets a video go early."""
    c = bundle_set.calibration
    look = bundle_set.document["protocol"].get("first_look")
    said = ["No face, faces too small, too few or too blurred, and a crowd in which one high score can be chance end in `cannot tell`."]
    if c.domain is not None:
        said.append(
            f"So do faces further than {c.domain.limit:.1f} (Mahalanobis) from all real faces of the calibration in light, colour and detail."
        )
    if c.fusion.fades:
        fade = next(iter(c.fusion.fades.values()))
        said.append(
            f"Compression takes the ground from {' and '.join(c.fusion.fades)}: from a mean H.264 quantiser of {fade.full_until:.1f} on their scores "
            f"are corrected for what it adds to reals, and count less and less up to {fade.none_from:.1f}, where they are not heard at all."
        )
    if c.max_quantiser is not None:
        said.append(f"Below {c.t_fake:.3f} nothing is claimed about H.264 of a mean quantiser above {c.max_quantiser:.1f}.")
    if c.max_disagreement is not None:
        said.append(f"A suspicion on which the detectors' logits spread by more than {c.max_disagreement:.1f} is not told as one.")
    said.append("A suspicion that goes away in two of three re-compressed copies of its crops is not told either.")
    if c.first_look_clear is not None and look is not None:
        said.append(
            f"A look at 8 frames lets a video go when every face in them is followed and no crop scores {c.first_look_clear:.3f}: "
            f"{look['missed']} of {look['flagged']} flagged held-out videos (re-encoded copies and simulated fakes counted) would be missed, "
            f"on which that threshold was fitted; {look['cleared_reals']:.0%} of the real ones are let go."
        )
    return [" ".join(said)]


def _detector(name: str, sha256: str, card: Mapping[str, Any], weight: float | None) -> str:
    data = card.get("data", {})
    reals = data.get("reals", {})
    known = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in reals.items())
    fakes = "; ".join(data.get("generators", [])) or data.get("fakes", "")
    share = "" if weight is None else f", weight {weight:.3f}"
    settings = card.get("recipe", {}).get("settings", {})
    terms = f" Its training started from published weights: {settings['init_terms']}." if settings.get("init_terms") else ""
    return f"- **{name}** `{sha256[:12]}`{share}. Reals: {known}. Fakes: {fakes}.{terms}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| what | value | goal | reached | protocol |", "|---|---|---|---|---|"]
    for row in rows:
        passed = row.get("pass")
        reached = "" if passed is None else "yes" if passed else "**no**"
        goal = row.get("goal") or ""
        lines.append(f"| {row['what']} | {row['value']:g} {row.get('unit') or ''} | {goal} | {reached} | {row.get('note') or ''} |")
    return "\n".join(lines)


def _limits(bundle_set: BundleSet) -> list[str]:
    seen: dict[str, None] = {}
    for bundle in bundle_set.bundles:
        for limit in bundle.card.get("limits", []):
            seen.setdefault(str(limit))
    return list(seen)


def write_card(bundle_set: BundleSet, report: Path, destination: Path) -> None:
    """Write the card of a set from its report.

    Raises:
        DataError: the report is missing, malformed or of another set.
    """
    try:
        document = json.loads(report.read_text())
    except (OSError, ValueError) as err:
        raise DataError(f"{report}: no readable evaluation report ({err}); run `veriframe-train evaluate` first") from err
    destination.write_text(set_card(bundle_set, document))
