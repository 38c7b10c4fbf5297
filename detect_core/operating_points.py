"""From a review budget to a threshold: what a bundle set's held-out scores allow one to promise, and what they do not.

The false-positive rate is bounded from above (one-sided, exact: Clopper and Pearson 1934), so that few held-out videos
promise little; what the fakes add to the reviews is bounded the same way. Recall and precision are estimates on the held-out fakes, which
may be easier or harder than the world's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scipy.stats import beta

from .errors import BundleIntegrityError, OptionError

LEVEL: Final = 0.95
"""One-sided confidence of every bound."""
_STEPS: Final = 10_000
"""Steps of a threshold from 0 to 1."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Calibrated scores of held-out videos, as a bundle set carries them."""

    reals: tuple[float, ...]
    fakes: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.reals or not self.fakes or not all(0.0 <= score <= 1.0 for score in (*self.reals, *self.fakes)):
            raise BundleIntegrityError(
                f"a policy needs held-out scores in [0, 1] of both labels, got {len(self.reals)} real and {len(self.fakes)} fake; calibrate again"
            )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold and what it means for a platform."""

    threshold: float
    num_real: int
    num_false: int
    fpr: float
    """Measured share of held-out reals at or above the threshold."""
    fpr_upper: float
    """Its upper bound."""
    recall: float
    recall_lower: float
    precision: float
    """At the given prevalence, with the measured false-positive rate; nan when nothing was flagged."""
    precision_lower: float
    """With the lower bound of recall and the upper one of the false-positive rate."""
    reviews_per_day: float
    """Flagged videos and those that end as "cannot tell": people look at both."""
    reviews_per_day_upper: float
    """With the upper bounds of both rates."""
    reviewers: int
    """People needed for the upper figure."""
    is_supported: bool
    """Whether the upper figure stays within the budget: only then is the budget a promise."""


def held_out_of(document: Mapping[str, Any]) -> HeldOut:
    """The held-out scores in a bundle set's document.

    Raises:
        BundleIntegrityError: it carries none.
    """
    protocol = document.get("protocol", {})
    try:
        return HeldOut(tuple(float(v) for v in protocol["real_scores"]), tuple(float(v) for v in protocol["fake_scores"]))
    except (KeyError, TypeError, ValueError) as err:
        raise BundleIntegrityError(f"the bundle set carries no held-out scores ({err!r}); calibrate it again") from err


def choose(
    held_out: HeldOut,
    *,
    uploads_per_day: float,
    prevalence: float,
    max_reviews_per_day: float,
    reviews_per_person: float = 300.0,
    cannot_tell_share: float = 0.0,
) -> OperatingPoint:
    """The lowest threshold, in steps of 0.0001 as it is printed, whose expected reviews stay within the budget.

    `cannot_tell_share` of the uploads goes to people whatever the threshold is. Held-out videos do not say how large it is elsewhere: it
    hangs on how a platform compresses.

    When the held-out videos are too few to promise any such threshold, the lowest one that stays within it by the measured rates
    is given, marked as not supported.

    Raises:
        OptionError: a number is out of range.
    """
    positive = uploads_per_day > 0 and max_reviews_per_day > 0 and reviews_per_person > 0
    if not (positive and 0 <= prevalence <= 1 and 0 <= cannot_tell_share <= 1):
        raise OptionError(
            f"a policy needs uploads, reviews and reviews per person above 0, a prevalence and a share of cannot tell in [0, 1], got "
            f"{uploads_per_day:g}, {max_reviews_per_day:g}, {reviews_per_person:g}, {prevalence:g} and {cannot_tell_share:g}"
        )
    # above a score: a threshold on a score itself would flag that video
    scores = sorted({*held_out.reals, *held_out.fakes})
    candidates = [0.0, *sorted({(math.floor(score * _STEPS) + 1) / _STEPS for score in scores})]
    points = [
        _point(
            held_out,
            t,
            uploads=uploads_per_day,
            prevalence=prevalence,
            budget=max_reviews_per_day,
            per_person=reviews_per_person,
            cannot_tell=cannot_tell_share,
        )
        for t in candidates
    ]
    supported = [point for point in points if point.is_supported]
    measured = [point for point in points if point.reviews_per_day <= max_reviews_per_day]
    return (supported or measured or points[-1:])[0]


def unavoidable_reviews(held_out: HeldOut, *, uploads_per_day: float, prevalence: float, cannot_tell_share: float) -> float:
    """Reviews per day that come without a single false positive and at the strictest threshold.

    Videos that end as "cannot tell", and as many fakes as the held-out ones do not rule out even where none of them is found.
    """
    found = prevalence * upper_bound(0, len(held_out.fakes))
    return uploads_per_day * (cannot_tell_share + (1 - cannot_tell_share) * found)


def reals_needed(max_fpr: float) -> int:
    """How many held-out real videos without a false positive would bound the rate by `max_fpr`.

    Raises:
        OptionError: the rate is not in (0, 1).
    """
    if not 0 < max_fpr < 1:
        raise OptionError(f"a false-positive rate lies in (0, 1), got {max_fpr:g}")
    return math.ceil(math.log(1 - LEVEL) / math.log1p(-max_fpr))


def upper_bound(count: int, total: int) -> float:
    """One-sided upper bound of a rate seen `count` times in `total`."""
    return 1.0 if count == total else float(beta.ppf(LEVEL, count + 1, total - count))


def _lower_bound(count: int, total: int) -> float:
    return 0.0 if count == 0 else float(beta.ppf(1 - LEVEL, count, total - count + 1))


def _share_at(scores: Sequence[float], threshold: float) -> int:
    return sum(score >= threshold for score in scores)


def _point(
    held_out: HeldOut, threshold: float, *, uploads: float, prevalence: float, budget: float, per_person: float, cannot_tell: float
) -> OperatingPoint:
    num_false, num_found = _share_at(held_out.reals, threshold), _share_at(held_out.fakes, threshold)
    num_real, num_fake = len(held_out.reals), len(held_out.fakes)
    fpr, recall = num_false / num_real, num_found / num_fake
    fpr_upper, recall_upper = upper_bound(num_false, num_real), upper_bound(num_found, num_fake)
    recall_lower = _lower_bound(num_found, num_fake)
    told = 1 - cannot_tell
    reviews = uploads * (cannot_tell + told * ((1 - prevalence) * fpr + prevalence * recall))
    reviews_upper = uploads * (cannot_tell + told * ((1 - prevalence) * fpr_upper + prevalence * recall_upper))
    return OperatingPoint(
        threshold=threshold,
        num_real=num_real,
        num_false=num_false,
        fpr=fpr,
        fpr_upper=fpr_upper,
        recall=recall,
        recall_lower=recall_lower,
        precision=_precision(prevalence, recall, fpr),
        precision_lower=_precision(prevalence, recall_lower, fpr_upper),
        reviews_per_day=reviews,
        reviews_per_day_upper=reviews_upper,
        reviewers=math.ceil(reviews_upper / per_person),
        is_supported=reviews_upper <= budget,
    )


def _precision(prevalence: float, recall: float, fpr: float) -> float:
    flagged = prevalence * recall + (1 - prevalence) * fpr
    return prevalence * recall / flagged if flagged > 0 else math.nan
