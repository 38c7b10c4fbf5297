"""Ranking and calibration metrics with intervals, from scores and labels alone (1 = fake)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from detect_core.operating_points import upper_bound

from .errors import DataError


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, y = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    if s.shape != y.shape or s.ndim != 1:
        raise DataError(f"scores and labels must be equal vectors, got {s.shape} and {y.shape}")
    if not np.isfinite(s).all():
        raise DataError("a score is not finite; find the detector that gave it before measuring anything")
    if y.all() or not y.any():
        raise DataError(f"a ranking metric needs both classes, got {int(y.sum())} fake of {len(y)}")
    return s, y


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve, ties count half (Mann-Whitney)."""
    s, y = _checked(scores, labels)
    num_fake, num_real = int(y.sum()), int((~y).sum())
    return float((rankdata(s)[y].sum() - num_fake * (num_fake + 1) / 2) / (num_fake * num_real))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean precision at every fake, highest scores first; ties share their group's precision."""
    s, y = _checked(scores, labels)
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    ends = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)
    hits = np.cumsum(y)[ends]
    gained = np.diff(np.concatenate([[0], hits]))
    return float((hits / (ends + 1) * gained).sum() / y.sum())


def equal_error_rate(scores: ArrayLike, labels: ArrayLike) -> float:
    """Rate at the threshold where misses and false alarms are closest; their mean there."""
    s, y = _checked(scores, labels)
    thresholds = np.unique(s)
    fpr = np.array([(s[~y] >= t).mean() for t in thresholds])
    fnr = np.array([(s[y] < t).mean() for t in thresholds])
    at = int(np.argmin(np.abs(fpr - fnr)))
    return float((fpr[at] + fnr[at]) / 2)


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, max_fpr: float) -> float:
    """Share of fakes above the lowest threshold whose false-positive rate is at most `max_fpr`."""
    s, y = _checked(scores, labels)
    reals = np.sort(s[~y])[::-1]
    allowed = int(np.floor(max_fpr * len(reals) + 1e-9))
    if allowed >= len(reals):
        return 1.0
    return float((s[y] > reals[allowed]).mean())


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: NDArray[np.float64] | None = None, bins: int = 15
) -> float:
    """Adaptive ECE: bins of equal weight, weighted mean of |mean probability - share of fakes|.

    Equal probabilities that fall into several bins count as equally fake: their order says nothing.

    Args:
        probabilities: (N,) in [0, 1].
        labels: (N,), 1 = fake.
        weights: (N,) above 0, see `label_weights`; all the same by default.
        bins: at most that many.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    if p.size == 0 or p.min() < 0 or p.max() > 1:
        raise DataError("probabilities must be a filled vector in [0, 1]")
    w = np.ones(len(p)) if weights is None else weights
    _, tied = np.unique(p, return_inverse=True)
    y = (np.bincount(tied, weights=w * y) / np.bincount(tied, weights=w))[tied]
    chunks = even_bins(p, bins, weights=weights)
    return float(sum(abs((w[c] * p[c]).sum() - (w[c] * y[c]).sum()) for c in chunks) / w.sum())


def even_bins(values: NDArray[np.float64], bins: int, *, weights: NDArray[np.float64] | None = None) -> list[NDArray[np.intp]]:
    """Indices of `values` in ascending order, in bins of equal count, or of about equal weight; none is empty."""
    order = np.argsort(values, kind="stable")
    if weights is None:
        return [chunk for chunk in np.array_split(order, min(bins, len(order))) if len(chunk)]
    w = weights[order]
    middle = (np.cumsum(w) - w / 2) / w.sum()  # one item may weigh more than a bin
    return [order[chunk] for b in range(bins) if len(chunk := np.flatnonzero(np.floor(middle * bins) == b))]


def label_weights(labels: ArrayLike) -> NDArray[np.float64]:
    """(N,) weights under which both labels weigh the same; they sum to one when both are there."""
    y = np.asarray(labels).astype(np.int64)
    return np.asarray(0.5 / np.bincount(y, minlength=2)[y], np.float64)


def bootstrap_auc(
    scores: ArrayLike, labels: ArrayLike, groups: Sequence[str], *, rounds: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the AUC when whole groups (identities) are drawn with replacement.

    Rounds that drew only one class are drawn again, as often as needed. Where each class is one group every round would be the same
    draw: then nothing is known, and both ends are NaN.
    """
    s, y = _checked(scores, labels)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if all(len(np.unique(member[y == label])) == 1 for label in (0, 1)):
        return math.nan, math.nan
    members = [np.flatnonzero(member == g) for g in range(len(names))]
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < rounds:
        rows = np.concatenate([members[g] for g in rng.integers(len(names), size=len(names))])
        if 0 < y[rows].sum() < len(rows):
            values.append(auc(s[rows], y[rows]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_said(low: float, high: float, *, by: str = "") -> str:
    """An interval of `bootstrap_auc` in words; `by` says what was drawn, where something was."""
    return "no interval, there is one group in each class" if math.isnan(low) else f"95 % interval {low:.2f}-{high:.2f}{by}"


def fpr_upper_bound(num_false: int, num_real: int) -> float:
    """One-sided 95 % Clopper-Pearson upper bound of a false-positive rate."""
    if not 0 <= num_false <= num_real or num_real == 0:
        raise DataError(f"need 0 <= false positives <= reals and at least one real, got {num_false} of {num_real}")
    return upper_bound(num_false, num_real)
