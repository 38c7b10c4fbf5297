"""RESULTS.md: written from outcomes alone, inside its time-box, continued where it stopped."""

import json

import pytest
from training_faces import make_pack

from training import claims
from training.errors import ConfigError, DivergedError
from training.material import Material
from training.recipe import Outcome, Recipe
from training.recipes import RECIPES
from training.results import claims_json, run_wanted, wanted, write_results
from training.study_data import ClassifySettings


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Lab:
    """Recipes that take a minute each and count how often they ran."""

    def __init__(self):
        self.clock = Clock()
        self.ran = []
        self.figures = {"test_auc": 0.8, "svm_test_auc": 0.7, "test_accuracy": 0.7, "test_log_loss": 0.6, "test_ap": 0.8, "diverged": False}

    def get(self, name):
        if name == "unknown":
            raise ConfigError("unknown recipe")

        def run(context):
            self.ran.append(name)
            if name == "breaks":
                raise DivergedError("loss is nan")
            for step in (1, 2):
                self.clock.now += 30
                context.on_log({"step": step})
            return Outcome({**self.figures, "auc_of": name})

        return Recipe(name, "s", "s", {"cpu": ClassifySettings()}, run)


@pytest.fixture
def material():
    return Material(make_pack(4), "toy faces")


def run(lab, names, material, folder, minutes):
    return run_wanted(names, lab.get, material, folder, preset="cpu", minutes=minutes, say=lambda _line: None, clock=lab.clock)


def test_the_time_box_stops_and_the_next_call_goes_on(tmp_path, material):
    lab = Lab()
    ran = run(lab, ["a", "b", "c"], material, tmp_path, minutes=1.5)
    assert [r.outcome is not None for r in ran] == [True, False, False]
    assert "begun, stopped by the time-box" in ran[1].reason
    assert "not run" in ran[2].reason
    ran = run(lab, ["a", "b", "c"], material, tmp_path, minutes=10)
    assert all(r.outcome is not None for r in ran)
    assert lab.ran == ["a", "b", "b", "c"]


def test_an_outcome_of_other_faces_is_not_taken_for_this_one(tmp_path, material):
    lab = Lab()
    run(lab, ["a"], material, tmp_path, minutes=5)
    other = run(lab, ["a"], Material(make_pack(4, seed=9), "other"), tmp_path, minutes=5)
    assert other[0].outcome is None
    assert "failed" in other[0].reason


def test_failures_and_unknown_recipes_are_told_and_do_not_stop_the_rest(tmp_path, material):
    ran = run(Lab(), ["breaks", "unknown", "a"], material, tmp_path, minutes=5)
    assert "DivergedError" in ran[0].reason
    assert "unknown recipe" in ran[1].reason
    assert ran[2].outcome is not None


def test_the_page_answers_what_ran_and_marks_what_did_not(tmp_path, material):
    lab = Lab()
    ran = run(lab, ["cnn_baseline", "cnn_baseline_fixed", "cnn5"], material, tmp_path, minutes=20)
    page = tmp_path / "RESULTS.md"
    write_results(page, ran, preset="cpu", material=material)
    text = page.read_text()
    assert "| Xception study | The custom CNN stays at chance" in text
    assert claims.OPEN in text
    assert "not run: `vggface16`" in text
    assert "cnn5: SVM 0.700, sigmoid 0.800 (not run: vggface16" in text
    assert "AUC 0.800, AP 0.800, accuracy 0.700" in text
    assert str(tmp_path) not in text
    rows = json.loads(claims_json(ran))["rows"]
    assert len(rows) == len(claims.CLAIMS)


def test_a_claim_falls_the_way_its_figures_say():
    def baseline(first, fixed):
        def figures(value):
            return {"test_auc": value, "test_accuracy": value, "test_log_loss": 0.6, "diverged": False}

        return claims.CLAIMS[1].answer({"cnn_baseline": figures(first), "cnn_baseline_fixed": figures(fixed)})[1]

    assert baseline(0.5, 0.8) == claims.HOLDS
    assert baseline(0.8, 0.5) == claims.FAILS
    assert baseline(0.7, 0.705) == claims.OPEN


def test_adversarial_training_is_judged_by_its_spread_over_seeds():
    answer = next(c for c in claims.CLAIMS if c.recipes == ("dcgan_classifier",)).answer
    figures = {"num_seeds": 4, "plain_unseen_auc_mean": 0.6, "adversarial_unseen_auc_mean": 0.64, "unseen_auc_difference_mean": 0.04}
    assert answer({"dcgan_classifier": {**figures, "unseen_auc_difference_std": 0.01}})[1] == claims.HOLDS
    assert answer({"dcgan_classifier": {**figures, "unseen_auc_difference_std": 0.10}})[1] == claims.OPEN
    told, verdict = answer({"dcgan_classifier": {**figures, "unseen_auc_difference_mean": -0.04, "unseen_auc_difference_std": 0.01}})
    assert verdict == claims.FAILS
    assert "4 seeds" in told


def test_every_claim_names_recipes_that_exist():
    assert set(wanted()) <= set(RECIPES)
