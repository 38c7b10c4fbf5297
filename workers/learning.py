"""What reviews teach: precision in production, a truer calibration, and whether a shadow may take over. Pure functions over labels.

People see what was flagged and a sample of disagreements, so every figure here speaks about reviewed videos, not about all uploads; a
calibration learned from them is only kept when it is better on reviews that it was not fitted on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .ledger import LabelledVerdict, ShadowPair
from .ledger.reviews import needs_people

MIN_PER_CLASS: Final = 20
"""Reviewed videos of each kind, in the fit and in the hold-out alike, below which nothing is learned."""
MAX_ECE: Final = 0.10
"""Expected calibration error on the hold-out above which a calibration is not kept."""
_BINS: Final = 10
_FLAGGED: Final = frozenset({"manipulated", "suspicious"})
_Z95: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Precision:
    """Of the reviewed videos with one word, how many people called fake."""

    verdict: str
    num_reviewed: int
    num_fake: int

    @property
    def ratio(self) -> float:
        """The share."""
        return self.num_fake / self.num_reviewed

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson 1927)."""
        n, p = self.num_reviewed, self.ratio
        centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
        half = _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)


def precision_by_word(counts: Mapping[tuple[str, str], int]) -> list[Precision]:
    """Precision per verdict word from counts by (word, label); words that nobody reviewed are left out."""
    words = sorted({word for word, _ in counts})
    return [
        Precision(word, num_reviewed=counts.get((word, "clean"), 0) + counts.get((word, "fake"), 0), num_fake=counts.get((word, "fake"), 0))
        for word in words
    ]


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether something new may be used, with every figure that was weighed."""

    passed: bool
    reasons: tuple[str, ...]
    """Why not; empty when it passed."""
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recalibration:
    """A truer map from score to P(fake): logit(new) = slope * logit(old) + offset."""

    slope: float
    offset: float
    gate: Gate

    def probability(self, p: float) -> float:
        """The corrected probability."""
        return _sigmoid(self.slope * _logit(p) + self.offset)

    def document(self, old: Mapping[str, Any], *, date: str) -> dict[str, Any]:
        """The bundle set with the corrected map.

        Every P(fake) in it moves along (thresholds, the first look's limit, held-out scores), so that no verdict's word, no early release
        and no choice of a threshold changes: what changes is what the number means.
        """
        platt, thresholds, protocol = old["platt"], old["thresholds"], old["protocol"]
        clear = old.get("first_look_clear")
        moved = {name: [self.probability(p) for p in protocol[name]] for name in ("real_scores", "fake_scores") if name in protocol}
        return {
            **old,
            **({"first_look_clear": self.probability(clear)} if clear is not None else {}),
            "platt": {"a": self.slope * platt["a"], "c": self.slope * platt["c"] + self.offset},
            "thresholds": {name: self.probability(value) for name, value in thresholds.items()},
            "protocol": {**protocol, **moved, "date": date, "reviews": dict(self.gate.figures)},
        }


def recalibrate(labels: Iterable[LabelledVerdict]) -> Recalibration:
    """Fit the map on one half of the reviewed videos and hold it against the other half.

    The halves are drawn by the content's hash: the same video never stands on both sides, and a repetition gives the same result.
    """
    scored = [(label, label.p_fake) for label in labels if label.p_fake is not None]
    fit = [(p, label.label == "fake") for label, p in scored if not _is_held_out(label.content_sha256)]
    held = [(p, label.label == "fake") for label, p in scored if _is_held_out(label.content_sha256)]
    figures: dict[str, Any] = {
        "fit": {"fake": sum(y for _, y in fit), "clean": sum(not y for _, y in fit)},
        "held_out": {"fake": sum(y for _, y in held), "clean": sum(not y for _, y in held)},
    }
    few = [f"{half}: {count} {kind}" for half, counts in figures.items() for kind, count in counts.items() if count < MIN_PER_CLASS]
    if few:
        why = f"too few reviewed videos ({', '.join(few)}; {MIN_PER_CLASS} of each are needed): review more"
        return Recalibration(1.0, 0.0, Gate(False, (why,), figures))
    slope, offset = _fit_logistic([(_logit(p), y) for p, y in fit])
    before = expected_calibration_error([p for p, _ in held], [y for _, y in held])
    after = expected_calibration_error([_sigmoid(slope * _logit(p) + offset) for p, _ in held], [y for _, y in held])
    figures |= {"slope": slope, "offset": offset, "ece_before": before, "ece_after": after}
    reasons = []
    if slope <= 0:
        reasons.append("on these reviews a higher score does not mean more fakes: look at the labels, or at the detectors")
    if after >= before:
        reasons.append(f"on the hold-out it is not better: ECE {after:.3f} after, {before:.3f} before")
    if after > MAX_ECE:
        reasons.append(f"ECE {after:.3f} on the hold-out is above {MAX_ECE}")
    return Recalibration(slope, offset, Gate(not reasons, tuple(reasons), figures))


def shadow_gate(pairs: Iterable[ShadowPair], labels: Iterable[LabelledVerdict]) -> Gate:
    """Whether the shadow may take over: on reviewed videos that both judged it must not be worse, by a paired test, and be calibrated.

    The test is the exact one of McNemar (1947) on the videos where only one of the two flagged rightly. People see all that the one in
    charge flags, but only a sample of what the shadow alone flags: the test counts the same sample of both, and the calibration error
    counts each video of the sample for those that nobody saw. Only the newest stretch that was sampled at one share is weighed: a share
    that was raised since would otherwise never count. Where it begins depends on lots and on what was shown, never on labels, so that no
    lucky stretch is picked.
    """
    label_of = {label.verdict_seq: label.label == "fake" for label in labels}
    told = [pair for pair in pairs if pair.verdict != pair.shadow_verdict or pair.verdict_seq in label_of]  # the rest tells nothing
    stretch, sampled_share = _sampled_at_one_share(sorted(told, key=lambda pair: pair.verdict_seq, reverse=True))
    num_disagreements = sum(_is_flagged(pair.verdict) != _is_flagged(pair.shadow_verdict) for pair in stretch)
    judged = [(pair, label_of[pair.verdict_seq]) for pair in stretch if pair.verdict_seq in label_of]
    sampled = [(pair, y) for pair, y in judged if pair.draw < sampled_share]
    only_old = sum(_is_right(pair.verdict, y) and not _is_right(pair.shadow_verdict, y) for pair, y in sampled)
    only_new = sum(_is_right(pair.shadow_verdict, y) and not _is_right(pair.verdict, y) for pair, y in sampled)
    num_fake = sum(y for _, y in judged)
    p_worse = _binomial_tail(only_old, only_old + only_new)
    ece = _shadow_calibration_error(judged, sampled_share=sampled_share)
    figures = {
        "reviewed": {"fake": num_fake, "clean": len(judged) - num_fake},
        "disagreements": num_disagreements,
        "sampled_share": sampled_share,
        "only_old_right": only_old,
        "only_new_right": only_new,
        "p_worse": p_worse,
        "ece": ece,
    }
    reasons = []
    if min(num_fake, len(judged) - num_fake) < MIN_PER_CLASS:
        reasons.append(
            f"both judged only {num_fake} reviewed fakes and {len(judged) - num_fake} reviewed clean videos; {MIN_PER_CLASS} of each are needed"
        )
    if num_disagreements and not only_old + only_new:
        reasons.append(
            f"only one of the two flags {num_disagreements} videos, and of the sample of these nobody has decided any: review more, "
            "or sample more (VERIFRAME_SHADOW_REVIEW_SHARE)"
        )
    if only_new < only_old or p_worse < 0.05:
        reasons.append(
            f"on reviewed videos it is worse: {only_old} that only the one in charge gets right, {only_new} that only the new one does"
        )
    if ece is not None and ece > MAX_ECE:
        reasons.append(f"its probabilities are off by {ece:.3f} on reviewed videos, at most {MAX_ECE} is allowed")
    return Gate(not reasons, tuple(reasons), figures)


def _sampled_at_one_share(pairs: Sequence[ShadowPair]) -> tuple[Sequence[ShadowPair], float]:
    """The first of these pairs, given newest first, that may have been sampled at one share, and that share.

    The share of a stretch is the smallest lot of a disagreement that did not go to people: all with smaller lots did. Of all stretches the
    one with most disagreements that only their lot brought before people is taken, of equals the longest; while the share stays the same
    that is all of them. What the one in charge flags does not count here: before the first unseen disagreement it would stand alone.
    """
    share, best = 1.0, (0, 0, 1.0)
    lots: list[float] = []
    for length, pair in enumerate(pairs):
        if pair.verdict == pair.shadow_verdict or pair.draw >= share:
            continue
        if not pair.went_to_people:
            best = max(best, (len(lots), length, share))
            share = pair.draw
            lots = [lot for lot in lots if lot < share]
        elif not needs_people(pair.verdict, []):
            lots.append(pair.draw)
    _, length, share = max(best, (len(lots), len(pairs), share))
    return pairs[:length], share


def _shadow_calibration_error(judged: Sequence[tuple[ShadowPair, bool]], *, sampled_share: float) -> float | None:
    """The shadow's calibration error on reviewed videos; None when it scored none of them."""
    scored = [
        (pair.shadow_p_fake, y, 1.0 if needs_people(pair.verdict, []) else 1 / sampled_share)
        for pair, y in judged
        if pair.shadow_p_fake is not None and (needs_people(pair.verdict, []) or pair.draw < sampled_share)
    ]
    if not scored:
        return None
    probabilities, labels, weights = zip(*scored, strict=True)
    return expected_calibration_error(probabilities, labels, weights=weights)


def expected_calibration_error(probabilities: Sequence[float], labels: Sequence[bool], *, weights: Sequence[float] | None = None) -> float:
    """Equal-count bins: weighted mean of |mean probability - share of fakes|; `weights` says for how many videos each one stands."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    w = np.ones_like(p) if weights is None else np.asarray(weights, np.float64)
    chunks = np.array_split(np.argsort(p, kind="stable"), min(_BINS, len(p)))
    return float(sum(abs(np.sum(w[chunk] * (p[chunk] - y[chunk]))) for chunk in chunks) / w.sum())


def _is_held_out(content_sha256: str) -> bool:
    return hashlib.sha256(f"hold-out/{content_sha256}".encode()).digest()[0] < 128


def _is_right(word: str, is_fake: bool) -> bool:
    """Whether people were sent to a fake, or left alone with a real one."""
    return _is_flagged(word) == is_fake


def _is_flagged(word: str) -> bool:
    return word in _FLAGGED


def _binomial_tail(successes: int, trials: int) -> float:
    """P(X >= successes) for a fair coin."""
    favourable = sum(math.comb(trials, k) for k in range(successes, trials + 1))
    return favourable / (1 << trials)  # of integers: a float ends at 2**1024


def _fit_logistic(rows: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """Slope and offset of sigmoid(slope * z + offset) by Newton steps on smoothed targets (Platt 1999)."""
    z = np.array([z for z, _ in rows])
    y = np.array([y for _, y in rows], np.float64)
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    design: NDArray[np.float64] = np.stack([z, np.ones_like(z)], axis=1)
    beta = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -40, 40)))
        gradient = design.T @ (target - p) - 1e-6 * beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta = beta + np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def _logit(p: float) -> float:
    clipped = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(clipped / (1 - clipped))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(min(value, 40.0), -40.0)))
