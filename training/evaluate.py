"""The evaluation of a bundle set: rows of what, value, unit, goal and whether it was reached. No number without its protocol."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect_core.bundle import Bundle
from detect_core.calibration import BundleSet, VideoCalibration
from detect_core.detectors import Detector

from .beside import beside
from .calibrate import video_scores
from .errors import ConfigError
from .face_pack import FacePack
from .held_out import simulators_for
from .limits import FLAGGED, decision_of, first_look
from .metrics import auc, bootstrap_auc, expected_calibration_error, fpr_upper_bound, interval_said, label_weights, tpr_at_fpr
from .scorers import TrackLines
from .simulators.classical_swap import ClassicalSwap
from .still_scores import Measured, by_source, on_pairs
from .video_scores import DISTORTED, UNDISTORTED, Role, VideoLogits


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    what: str
    value: float
    unit: str
    goal: str | None = None
    passed: bool | None = None
    note: str = ""


def evaluate_stills(pack: FacePack, bundle_set: BundleSet, detectors: Sequence[Detector], *, sources: Sequence[str]) -> list[Row]:
    """Frame-level rows: labelled fakes of each source against its reals, and simulated fakes against their originals."""
    named = {detector.bundle.name: detector for detector in detectors}
    reals = pack.where(split="test", label=0)
    reals = reals.take([i for i, row in enumerate(reals.rows) if row.source != "lfw_grey"])
    measured = by_source(pack, named, sources) + on_pairs(reals, simulators_for(bundle_set.bundles), named)
    return [_auc_row(m) for m in measured]


def taught_generators(bundles: Sequence[Bundle]) -> frozenset[str]:
    """Generators that the bundles' cards name as learned from; the sources that they name are those of reals."""
    return frozenset(name for bundle in bundles for name in bundle.card.get("data", {}).get("generators", []))


def evaluate_videos(videos: Sequence[VideoLogits], calibration: VideoCalibration, *, taught: Collection[str] = ()) -> list[Row]:
    """Video-level rows over held-out people; a labelled fake is judged by lines that saw no fake of its generator.

    A row that needs both classes is left out where the material has one.

    Args:
        videos: their scores.
        calibration: of the set.
        taught: see `taught_generators`; portraits of these say nothing about unseen generators, those of all others do.
    """
    z = video_scores(videos, calibration.fusion, calibration.beta)
    judged = [(video, score) for video, score in zip(videos, z, strict=True) if score is not None]

    def of(*roles: Role) -> list[tuple[VideoLogits, float]]:
        return [pair for pair in judged if pair[0].role in roles]

    true, stills, simulated = of("real", "fake"), of("still_real", "still_fake"), of("twin", "simulated")
    per_generator: list[Row | None] = []
    for generator in sorted({v.generator for v, _ in true if v.label}):
        chosen = [p for p in true if not p[0].label or p[0].generator == generator]
        per_generator.append(_video_auc(f"{generator} against held-out reals", chosen))
    for source in sorted({v.source for v, _ in stills}):
        for known, said in ((True, " (generators seen in training)"), (False, "")):
            chosen = [p for p in stills if p[0].source == source and (not p[0].label or (p[0].generator in taught) == known)]
            per_generator.append(_video_auc(f"{source} portraits shown as clips{said}", chosen))
    for family in sorted({v.generator for v, _ in simulated if v.label}):
        chosen = [p for p in simulated if not p[0].label or p[0].generator == family]
        seen = "never trained on" if family == f"sim:{ClassicalSwap.family}" else "families seen in training"
        per_generator.append(_video_auc(f"{family} fakes against re-encoded twins ({seen})", chosen))
    unseen = [row.value for row in per_generator if row is not None and "seen in training" not in row.what]
    rows = [
        _video_auc("all labelled fakes against held-out reals", true),
        Row("mean AUC over unseen generators", round(float(np.mean(unseen)), 4), "AUC", ">= 0.95") if unseen else None,
        Row("worst unseen generator", min(unseen), "AUC", ">= 0.85") if unseen else None,
        _tpr_row(true),
        *per_generator,
        *_policy_rows([video for video in videos if video.role in ("real", "fake")], calibration),
        *_first_look_rows(judged, calibration),
        *_distortion_rows(of("distorted"), calibration),
        _ece_row("ECE in domain (simulated fakes and re-encoded twins)", simulated, calibration, "<= 0.03"),
        _ece_row("ECE under medium distortion", [p for p in of("distorted") if p[0].file.endswith(":medium")], calibration, "<= 0.08"),
    ]
    return [_judged(row) for row in rows if row is not None]


def beside_rows(videos: Sequence[VideoLogits], calibration: VideoCalibration, *, other: str) -> list[Row]:
    """The detector `other` on the same videos, column by column."""
    columns = beside(videos, calibration, other=other)
    beaten = sum(column.ours > column.theirs for column in columns)
    rows = [Row(f"{other} beside, {c.what}", round(c.theirs, 4), "", None, None, f"the set: {c.ours:.3f}") for c in columns]
    verdict = Row(f"columns on which {other} is beaten", beaten, f"of {len(columns)}", f"{len(columns)}", beaten == len(columns))
    return [verdict, *rows]


def left_out_rows(run_dir: Path) -> list[Row]:
    """Protocol E1 from a finished run of `cross_generator`: what trainings found of the generators that they did not see.

    Raises:
        ConfigError: the folder holds no finished run of that recipe.
    """
    path = run_dir / "outcome.json"
    document = json.loads(path.read_text()) if path.is_file() else {}
    if document.get("recipe") != "cross_generator":
        raise ConfigError(f"{run_dir} holds {document.get('recipe') or 'no finished run'}, expected a run of cross_generator")
    metrics, settings = document["metrics"], document["settings"]
    how = (
        f"trained without the generator: {settings['net']} at {settings['size_px']} px, {settings['steps']} steps, {settings['seeds']} seed(s); "
        f"{metrics['clips']} held-out clips and their fakes, a clip is {settings['looks']} pictures; not the shipped nets"
    )
    names = [name.removeprefix("unseen_auc_") for name in metrics if name.startswith("unseen_auc_")]
    generators = [name for name in names if name not in ("mean", "worst")]
    return [
        Row(f"E1, leave one of {metrics['generators']} generators out: mean AUC", metrics["unseen_auc_mean"], "AUC", None, None, how),
        Row("E1: the same generators when none is left out", metrics["seen_auc_mean"], "AUC", None, None, "without classical_swap"),
        Row("E1: worst generator left out", metrics["unseen_auc_worst"], "AUC"),
        Row("E1: worst TPR at 1 % FPR", metrics["unseen_tpr_at_fpr_1pc_worst"], ""),
        *(Row(f"E1: {name} left out", metrics[f"unseen_auc_{name}"], "AUC", None, None, _tpr_note(metrics, name)) for name in generators),
    ]


def _tpr_note(metrics: Mapping[str, Any], name: str) -> str:
    return f"TPR at 1 % FPR {metrics[f'unseen_tpr_at_fpr_1pc_{name}']:.2f}"


def write_report(
    rows: Sequence[Row],
    path: Path,
    *,
    bundle_set: BundleSet,
    material: str,
    videos: Sequence[VideoLogits],
    track_lines: TrackLines | None = None,
) -> None:
    """`evaluation.json`: the rows and what they stand on.

    Args:
        rows: the figures.
        path: file to write.
        bundle_set: what was measured.
        material: names of the folders.
        videos: their scores.
        track_lines: how track detectors judged them; None where no video was scored.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = Counter(v.role for v in videos)
    document = {
        "schema": "evaluation/1",
        "bundle_set": bundle_set.label,
        "bundles": {bundle.name: bundle.sha256 for bundle in bundle_set.bundles},
        "material": material,
        "videos": dict(kinds),
        "track_lines": track_lines,
        "rows": [{**{k: v for k, v in asdict(row).items() if k != "passed"}, "pass": row.passed} for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _policy_rows(true: Sequence[VideoLogits], calibration: VideoCalibration) -> list[Row]:
    """What becomes of the videos, those in which no face could be followed among them."""
    decided = [(video, decision_of(video, calibration)) for video in true]
    reals = [decision for video, decision in decided if not video.label]
    fakes = [decision for video, decision in decided if video.label]
    called = sum(decision.verdict == "manipulated" for decision in reals)
    flagged = {name: sum(d.verdict in FLAGGED for d in decisions) for name, decisions in (("real", reals), ("fake", fakes))}
    covered = sum(decision.verdict != "inconclusive" for decision in reals)
    reasons = Counter(code for d in (*reals, *fakes) if d.verdict == "inconclusive" for code in d.reason_codes)
    abstained = ", ".join(f"{code} {count}" for code, count in reasons.most_common()) or "none"
    return [
        Row("real videos called manipulated", called, f"of {len(reals)}", "0", called == 0),
        Row("upper 95 % bound of that rate", round(fpr_upper_bound(called, len(reals)), 4), "", None, None, "Clopper-Pearson, one-sided"),
        Row("coverage: real videos that get a verdict", round(covered / len(reals), 4), "", ">= 0.7", None, f"cannot tell: {abstained}"),
        Row("real videos called suspicious or worse", flagged["real"], f"of {len(reals)}"),
        Row("fake videos called manipulated", sum(d.verdict == "manipulated" for d in fakes), f"of {len(fakes)}"),
        Row("fake videos called suspicious or worse", flagged["fake"], f"of {len(fakes)}"),
    ]


def _first_look_rows(judged: Sequence[tuple[VideoLogits, float]], calibration: VideoCalibration) -> list[Row]:
    """What the first look saves, and whether it lets a video go that the whole look flags."""
    clear = calibration.first_look_clear
    if clear is None:
        return []
    looks = [(video, first_look(video, calibration)) for video, _ in judged]
    let_go = [video for video, loudest in looks if loudest is not None and loudest < clear]
    missed = sum(decision_of(video, calibration).verdict in FLAGGED for video in let_go)
    reals = [loudest for video, loudest in looks if video.role == "real"]
    share = sum(loudest is not None and loudest < clear for loudest in reals) / max(len(reals), 1)
    return [
        Row("real videos that the first look lets go", round(share, 4), "", None, None, f"{len(reals)} reals"),
        Row(
            "of all that it lets go, flagged by the whole look",
            missed,
            f"of {len(let_go)}",
            "0",
            missed == 0,
            "the threshold was fitted on these",
        ),
    ]


def _distortion_rows(distorted: Sequence[tuple[VideoLogits, float]], calibration: VideoCalibration) -> list[Row]:
    """AUC drop and drift of the false positives at the frozen thresholds, per distortion."""
    by_name: dict[str, list[tuple[VideoLogits, float]]] = {}
    for pair in distorted:
        by_name.setdefault(pair[0].file.split(DISTORTED)[1], []).append(pair)
    if UNDISTORTED not in by_name:
        return []

    def flagged_share(pairs: Sequence[tuple[VideoLogits, float]]) -> float:
        reals = [decision_of(v, calibration).verdict for v, _ in pairs if not v.label]
        return sum(word in FLAGGED for word in reals) / len(reals)

    clean = by_name.pop(UNDISTORTED)
    num_reals = sum(not v.label for v, _ in clean)
    clean_fpr = flagged_share(clean)
    rows = []
    for name, goal in (("mild", 0.02), ("medium", 0.06), ("H.264 CRF 40", 0.12)):
        fpr = flagged_share(by_name[name])
        if _has_both(clean) and _has_both(by_name[name]):
            before, after = (auc([s for _, s in pairs], [v.label for v, _ in pairs]) for pairs in (clean, by_name[name]))
            note = f"{before:.3f} before, {after:.3f} after"
            rows.append(Row(f"AUC drop: {name}", round(before - after, 4), "AUC", f"<= {goal}", None, note))
        ratio = fpr / max(clean_fpr, 1 / num_reals)  # none before counts as one: nobody can know that a rate is zero
        silent = sum(decision_of(v, calibration).verdict == "inconclusive" for v, _ in by_name[name])
        note = f"share of reals called suspicious or worse: {clean_fpr:.3f} before, {fpr:.3f} after; cannot tell: {silent} of {len(by_name[name])}"
        rows.append(Row(f"FPR at the frozen threshold: {name}", round(ratio, 2), "x", "<= 2", None, note))
    return rows


def _ece_row(what: str, pairs: Sequence[tuple[VideoLogits, float]], calibration: VideoCalibration, goal: str) -> Row | None:
    if not _has_both(pairs):
        return None
    p = np.array([calibration.probability(s) for _, s in pairs])
    labels = np.array([v.label for v, _ in pairs])
    num_fake = int(labels.sum())
    note = (
        f"labels weigh the same; {num_fake} fakes, {len(labels) - num_fake} reals; a perfect calibration would show "
        f"{_least_ece(p, labels):.2f} with so few"
    )
    # the calibration gives both labels the same weight
    return Row(what, round(expected_calibration_error(p, labels, weights=label_weights(labels)), 4), "", goal, None, note)


def _least_ece(p: NDArray[np.float64], labels: NDArray[np.int64], *, rounds: int = 200) -> float:
    """The mean error that is seen when every probability is right: with few videos chance alone makes one.

    As many fakes and reals as there are draw their scores from what a right calibration has of each: of all scores together,
    both labels weighing the same, a share p of those at p is fake.
    """
    rng = np.random.default_rng(0)
    weights = label_weights(labels)
    fakes, reals = weights * p, weights * (1 - p)
    y = np.sort(labels)
    num_fake = int(y.sum())

    def drawn() -> NDArray[np.float64]:
        chosen = [(len(y) - num_fake, reals), (num_fake, fakes)]
        return np.concatenate([rng.choice(p, size=count, p=share / share.sum()) for count, share in chosen])

    return float(np.mean([expected_calibration_error(drawn(), y, weights=label_weights(y)) for _ in range(rounds)]))


def _has_both(pairs: Sequence[tuple[VideoLogits, float]]) -> bool:
    return len({video.label for video, _ in pairs}) == 2


def _tpr_row(true: Sequence[tuple[VideoLogits, float]]) -> Row | None:
    if not _has_both(true):
        return None
    value = tpr_at_fpr([s for _, s in true], [v.label for v, _ in true], 0.01)
    return Row("TPR at 1 % FPR, all labelled fakes", round(value, 4), "", ">= 0.4")


def _video_auc(what: str, pairs: Sequence[tuple[VideoLogits, float]]) -> Row | None:
    if not _has_both(pairs):
        return None
    scores, labels = [s for _, s in pairs], [v.label for v, _ in pairs]
    low, high = bootstrap_auc(scores, labels, [v.group for v, _ in pairs], rounds=500)
    value = auc(scores, labels)
    note = (
        f"{interval_said(low, high, by=' by person')}; {sum(labels)} fakes, {len(labels) - sum(labels)} reals; "
        f"TPR at 5 % FPR {tpr_at_fpr(scores, labels, 0.05):.2f}"
    )
    return Row(f"AUC: {what} (video level)", round(value, 4), "AUC", None, None, note)


def _auc_row(measured: Measured) -> Row:
    low, high = measured.interval
    note = f"{interval_said(low, high)}; {measured.num_fake} fakes, {measured.num_real} reals"
    return Row(f"AUC: {measured.what}", round(measured.auc, 4), "AUC", None, None, note)


def _judged(row: Row) -> Row:
    if row.passed is not None or row.goal is None:
        return row
    bound = float(row.goal[2:])
    return replace(row, passed=row.value <= bound if row.goal.startswith("<=") else row.value >= bound)
