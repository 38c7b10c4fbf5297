"""From a review budget to a threshold."""

from __future__ import annotations

import pytest

from detect_core.errors import BundleIntegrityError, OptionError
from detect_core.operating_points import HeldOut, choose, held_out_of, reals_needed, unavoidable_reviews, upper_bound


def many() -> HeldOut:
    reals = tuple(i / 10_000 for i in range(5000))
    fakes = tuple(0.3 + 0.7 * i / 200 for i in range(200))
    return HeldOut(reals, fakes)


def test_a_budget_that_the_reals_support_is_kept_by_the_upper_bound() -> None:
    point = choose(many(), uploads_per_day=1e5, prevalence=0.01, max_reviews_per_day=5000)

    assert point.is_supported
    assert point.reviews_per_day <= point.reviews_per_day_upper <= 5000
    assert point.fpr <= point.fpr_upper
    assert 0 < point.recall_lower < point.recall <= 1
    assert point.precision_lower < point.precision
    looser = choose(many(), uploads_per_day=1e5, prevalence=0.01, max_reviews_per_day=10_000)
    assert looser.threshold < point.threshold
    assert looser.recall >= point.recall


def test_few_reals_promise_little_and_say_so() -> None:
    few = HeldOut(tuple(i / 100 for i in range(47)), (0.2, 0.6, 0.9))
    point = choose(few, uploads_per_day=1e6, prevalence=0.001, max_reviews_per_day=1000)

    assert not point.is_supported
    assert point.num_false == 0
    assert point.fpr_upper == pytest.approx(upper_bound(0, 47))
    assert point.reviews_per_day_upper > 60_000


def test_the_upper_figure_bounds_what_the_fakes_add_too() -> None:
    few = HeldOut(tuple(i / 1000 for i in range(500)), tuple(0.4 + i / 100 for i in range(33)))
    point = choose(few, uploads_per_day=1000, prevalence=0.4, max_reviews_per_day=300)

    found = sum(score >= point.threshold for score in few.fakes)
    upper = 600 * point.fpr_upper + 400 * upper_bound(found, 33)
    assert point.reviews_per_day_upper == pytest.approx(upper)
    assert upper <= 300
    assert point.is_supported


def test_some_reviews_come_at_any_threshold() -> None:
    how = {"uploads_per_day": 1000, "prevalence": 0.5}
    none_found = upper_bound(0, 200)
    assert unavoidable_reviews(many(), cannot_tell_share=0.2, **how) == pytest.approx(200 + 400 * none_found)
    strictest = choose(many(), cannot_tell_share=0.2, max_reviews_per_day=1e-6, **how)
    assert strictest.reviews_per_day_upper > unavoidable_reviews(many(), cannot_tell_share=0.2, **how)


def test_the_threshold_promises_as_much_as_it_is_printed() -> None:
    reals = (0.1234567, 0.62896, 0.6289999)
    point = choose(HeldOut(reals, (0.7,)), uploads_per_day=100, prevalence=0.01, max_reviews_per_day=90)

    printed = float(f"{point.threshold:.4f}")
    assert printed == point.threshold
    assert point.num_false == sum(score >= printed for score in reals)


def test_videos_that_nobody_can_tell_are_reviews_too() -> None:
    def asked(share: float) -> float:
        how = {"uploads_per_day": 1e5, "prevalence": 0.01, "max_reviews_per_day": 30_000}
        return choose(many(), cannot_tell_share=share, **how).threshold

    assert asked(0.2) > asked(0.0)
    point = choose(many(), uploads_per_day=1e5, prevalence=0.01, max_reviews_per_day=5000, cannot_tell_share=0.2)
    assert not point.is_supported
    assert point.reviews_per_day >= 20_000


def test_the_number_of_reals_needed_is_the_exact_one() -> None:
    assert reals_needed(0.05) == 59
    assert reals_needed(0.01) == 299
    assert reals_needed(0.001) == 2995


def test_numbers_out_of_range_and_sets_without_scores_are_refused() -> None:
    with pytest.raises(OptionError, match="prevalence"):
        choose(many(), uploads_per_day=1e5, prevalence=2, max_reviews_per_day=5)
    with pytest.raises(OptionError):
        reals_needed(0)
    with pytest.raises(BundleIntegrityError, match="calibrate"):
        held_out_of({"protocol": {}})
    with pytest.raises(BundleIntegrityError):
        HeldOut((), (0.5,))
