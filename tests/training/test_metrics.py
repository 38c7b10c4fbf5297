"""Metrics against scikit-learn, closed forms and bad input."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training.errors import DataError
from training.metrics import (
    auc,
    average_precision,
    bootstrap_auc,
    equal_error_rate,
    expected_calibration_error,
    fpr_upper_bound,
    label_weights,
    tpr_at_fpr,
)


@pytest.mark.parametrize("seed", range(4))
def test_auc_and_ap_equal_scikit_learn_with_ties(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    scores = np.round(rng.normal(labels * 0.7), 1)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))


def test_rates_on_a_hand_made_case():
    scores = [0.1, 0.2, 0.3, 0.9, 0.4, 0.8, 0.95, 0.99]
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    assert tpr_at_fpr(scores, labels, 0.0) == 0.5
    assert tpr_at_fpr(scores, labels, 0.25) == 1.0
    assert equal_error_rate(scores, labels) == pytest.approx(0.25)


def test_calibration_error_is_zero_when_honest_and_large_when_overconfident():
    p = np.repeat([0.25, 0.75], 400)
    y = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0]).astype(int)
    assert expected_calibration_error(p, y, bins=2) == pytest.approx(0.0)
    assert expected_calibration_error(np.where(p > 0.5, 1.0, 0.0), y, bins=2) == pytest.approx(0.25)


def test_a_weighted_calibration_error_is_that_of_labels_repeated_to_the_same_number():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [30, 90])
    p = np.round(rng.random(120), 1)
    thrice = np.concatenate([np.tile(p[:30], 3), p[30:]])
    repeated = expected_calibration_error(thrice, np.repeat([0, 1], 90), bins=1)
    assert expected_calibration_error(p, y, weights=label_weights(y), bins=1) == pytest.approx(repeated)
    assert expected_calibration_error(p, y, weights=np.full(120, 7.0)) == pytest.approx(expected_calibration_error(p, y))


@pytest.mark.parametrize("fakes_first", [True, False])
def test_calibration_error_of_equal_probabilities_does_not_hang_on_their_order(fakes_first):
    labels = sorted([1] * 252 + [0] * 333, reverse=fakes_first)
    assert expected_calibration_error([0.5] * 585, labels) == pytest.approx(abs(0.5 - 252 / 585))


def test_binomial_bound_gives_the_known_number_of_videos():
    # Given the exact table: 59 reals without a false positive bound 5 %, 299 bound 1 %.
    assert fpr_upper_bound(0, 59) <= 0.05 < fpr_upper_bound(0, 58)
    assert fpr_upper_bound(0, 299) <= 0.01 < fpr_upper_bound(0, 298)
    assert fpr_upper_bound(1, 93) <= 0.05 < fpr_upper_bound(1, 92)


def test_bootstrap_draws_whole_groups():
    # Given two people only, one always right and one always wrong, the interval spans everything.
    scores = [0, 1, 0, 1, 1, 0, 1, 0]
    labels = [0, 1, 0, 1, 0, 1, 0, 1]
    low, high = bootstrap_auc(scores, labels, ["a"] * 4 + ["b"] * 4, rounds=200)
    assert (low, high) == (0.0, 1.0)


@pytest.mark.parametrize("metric", [auc, average_precision, equal_error_rate])
def test_one_class_or_a_broken_score_is_refused(metric):
    with pytest.raises(DataError, match="both classes"):
        metric([0.1, 0.2], [1, 1])
    with pytest.raises(DataError, match="not finite"):
        metric([0.1, float("nan")], [0, 1])
