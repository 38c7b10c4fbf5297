"""What reviews teach: precision, a calibration behind a hold-out gate, a paired gate for shadows, promotion, and re-scoring the archive."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from builders import astronaut_pictures, write_clip
from detect_core.bundle import SHIPPED_ROOT
from detect_core.calibration import DEFAULT_SET, load_bundle_set
from detect_core.errors import BundleError
from detect_core.operating_points import choose, held_out_of
from detect_core.self_test import golden_path, run_self_test
from detect_core.structs import Verdict
from verdict_builders import T_FAKE, made_verdict, put_verdict
from workers import cli
from workers.gauges import QueueGauges
from workers.learning import expected_calibration_error, precision_by_word, recalibrate, shadow_gate
from workers.learning_commands import _write_set
from workers.ledger import LabelledVerdict, Ledger, ShadowPair
from workers.metrics import Metrics
from workers.promotion import NotPromotedError, bundle_set_in_charge, promote
from workers.rescoring import rescore
from workers.settings import Settings
from workers.sources import ConfiguredSources

NEW = "candidate@aaaaaaaaaaaa"


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def made_labels(num: int, *, slope: float, offset: float, seed: int = 0) -> list[LabelledVerdict]:
    """Reviewed videos whose true P(fake) is sigmoid(slope * logit(p) + offset)."""
    rng = np.random.default_rng(seed)
    labels = []
    for i in range(num):
        z = rng.uniform(-3, 3)
        truth = 1 / (1 + np.exp(-(slope * z + offset)))
        labels.append(
            LabelledVerdict(
                verdict_seq=i,
                video_id=f"v{i}",
                content_sha256=hashlib.sha256(str(i).encode()).hexdigest(),
                bundle_set="s",
                verdict="suspicious",
                p_fake=float(1 / (1 + np.exp(-z))),
                label="fake" if rng.random() < truth else "clean",
                decided_by="anna",
            )
        )
    return labels


def test_precision_is_the_share_that_people_called_fake_with_its_interval():
    found = {
        p.verdict: p for p in precision_by_word({("manipulated", "fake"): 45, ("manipulated", "clean"): 5, ("suspicious", "clean"): 3})
    }
    assert found["manipulated"].ratio == 0.9
    low, high = found["manipulated"].interval
    assert (low, high) == (pytest.approx(0.786, abs=1e-3), pytest.approx(0.957, abs=1e-3))
    assert found["suspicious"].ratio == 0.0
    assert found["suspicious"].interval[1] > 0.5, "three reviews prove little"


def test_a_calibration_that_is_off_is_found_and_made_truer_on_videos_it_was_not_fitted_on():
    outcome = recalibrate(made_labels(3000, slope=1.0, offset=-2.0))
    assert outcome.gate.passed, outcome.gate.reasons
    assert outcome.slope == pytest.approx(1.0, abs=0.15)
    assert outcome.offset == pytest.approx(-2.0, abs=0.2)
    assert outcome.gate.figures["ece_after"] < 0.05 < outcome.gate.figures["ece_before"]
    assert recalibrate(made_labels(3000, slope=1.0, offset=-2.0)).slope == outcome.slope, "the same reviews teach the same"


def test_what_is_well_calibrated_too_small_or_upside_down_is_not_replaced():
    assert "too few" in recalibrate(made_labels(30, slope=1.0, offset=0.0)).gate.reasons[0]
    upside_down = recalibrate(made_labels(2000, slope=-1.0, offset=0.0))
    assert not upside_down.gate.passed
    assert any("higher score" in reason for reason in upside_down.gate.reasons)
    unscored = [replace(label, p_fake=None) for label in made_labels(500, slope=1.0, offset=0.0)]
    assert not recalibrate(unscored).gate.passed


def test_a_recalibrated_set_keeps_every_word_and_changes_what_the_number_means():
    outcome = recalibrate(made_labels(3000, slope=1.0, offset=-2.0))
    old = load_bundle_set(DEFAULT_SET)
    document = outcome.document(dict(old.document), date="2026-11-21")
    new_platt, thresholds = document["platt"], document["thresholds"]
    for z in np.linspace(-6, 6, 41):
        before = old.calibration.probability(z)
        after = 1 / (1 + np.exp(-(new_platt["a"] * z + new_platt["c"])))
        assert after == pytest.approx(outcome.probability(before), abs=1e-6)
        assert (after >= thresholds["t_fake"]) == (before >= old.calibration.t_fake)
        assert (after >= thresholds["t_review"]) == (before >= old.calibration.t_review)
    assert document["protocol"]["reviews"]["held_out"]["fake"] >= 20


def test_a_recalibrated_set_releases_early_and_buys_a_threshold_as_before():
    outcome = recalibrate(made_labels(3000, slope=1.0, offset=-2.0))
    loaded = load_bundle_set(DEFAULT_SET)
    held_out = {"real_scores": list(np.linspace(0.1, 0.8, 400)), "fake_scores": list(np.linspace(0.3, 0.95, 50))}
    old = {**loaded.document, "first_look_clear": 0.6, "protocol": {**loaded.document["protocol"], **held_out}}
    new = outcome.document(old, date="2026-11-21")

    for p in np.linspace(0.01, 0.99, 99):
        if p != pytest.approx(0.6):
            assert (outcome.probability(p) < new["first_look_clear"]) == (p < old["first_look_clear"])
    budget = {"uploads_per_day": 10_000.0, "prevalence": 0.01, "max_reviews_per_day": 500.0}
    before, after = (choose(held_out_of(document), **budget) for document in (old, new))
    assert before.is_supported
    assert (after.num_false, after.recall, after.is_supported) == (before.num_false, before.recall, True)
    assert after.threshold == pytest.approx(outcome.probability(before.threshold), abs=5e-4)


def test_a_set_without_a_first_look_and_held_out_scores_is_recalibrated_too():
    outcome = recalibrate(made_labels(3000, slope=1.0, offset=-2.0))
    platt, thresholds = {"a": 1.0, "c": 0.0}, {"t_review": 0.5, "t_fake": 0.9}
    bare = {"platt": platt, "thresholds": thresholds, "protocol": {"date": "none"}}
    assert "first_look_clear" not in outcome.document(bare, date="2026-11-21")
    none = outcome.document({**bare, "first_look_clear": None}, date="2026-11-21")
    assert none["first_look_clear"] is None
    assert set(none["protocol"]) == {"date", "reviews"}


def test_the_error_of_a_perfect_and_of_a_wrong_calibration():
    p = [0.1] * 100 + [0.9] * 100
    y = [i % 10 == 0 for i in range(100)] + [i % 10 != 0 for i in range(100)]
    assert expected_calibration_error(p, y) == pytest.approx(0.0)
    assert expected_calibration_error([0.9] * 100, [False] * 100) == pytest.approx(0.9)


def pairs_and_labels(
    *, only_old: int, only_new: int, both: int = 60, p_fake: float = 0.95
) -> tuple[list[ShadowPair], list[LabelledVerdict]]:
    """Fakes that one, the other or both flag, and as many clean videos that both leave alone."""
    words = [("manipulated", "authentic")] * only_old + [("authentic", "manipulated")] * only_new + [("manipulated", "manipulated")] * both
    pairs = [ShadowPair(i, f"v{i}", "old@0", old, 0.9, new, p_fake, True) for i, (old, new) in enumerate(words)]
    pairs += [ShadowPair(1000 + i, f"c{i}", "old@0", "authentic", 0.1, "authentic", 1 - p_fake, True) for i in range(60)]
    [template] = made_labels(1, slope=1.0, offset=0.0)
    labels = [replace(template, verdict_seq=pair.verdict_seq, label="fake" if pair.verdict_seq < 1000 else "clean") for pair in pairs]
    return pairs, labels


def test_a_shadow_that_is_better_passes_and_one_that_is_worse_or_hardly_seen_does_not():
    assert shadow_gate(*pairs_and_labels(only_old=0, only_new=10)).passed
    worse = shadow_gate(*pairs_and_labels(only_old=9, only_new=1))
    assert not worse.passed
    assert worse.figures["p_worse"] == pytest.approx(11 / 1024)
    assert "9 that only the one in charge gets right" in worse.reasons[0]
    assert "are needed" in shadow_gate(*pairs_and_labels(only_old=0, only_new=3, both=5)).reasons[0]
    assert "off by" in shadow_gate(*pairs_and_labels(only_old=0, only_new=10, p_fake=0.6)).reasons[0]
    assert not shadow_gate([], []).passed


def uploads_with_a_shadow(
    *, share: float, later_share: float | None = None, p_fake: float | None = None, seed: int = 1
) -> tuple[list[ShadowPair], list[LabelledVerdict]]:
    """20,000 uploads of which 1 % are fakes; the shadow finds as many of them and flags five times as many clean ones.

    People decide on all that the one in charge flags and on `share` of what the shadow alone flags, from the half on on `later_share`.
    """
    rng = np.random.default_rng(seed)
    [template] = made_labels(1, slope=1.0, offset=0.0)
    pairs, labels = [], []
    for seq in range(20_000):
        is_fake = rng.random() < 0.01
        old, new = (rng.random(2) < (0.5 if is_fake else (0.01, 0.05))).tolist()
        words = ["suspicious" if flagged else "authentic" for flagged in (old, new)]
        pair = ShadowPair(seq, f"v{seq}", "old@0", words[0], None, words[1], p_fake, old)
        seen = old or (old != new and pair.draw < (share if later_share is None or seq < 10_000 else later_share))
        pairs.append(replace(pair, went_to_people=seen))
        if seen:
            labels.append(replace(template, verdict_seq=seq, label="fake" if is_fake else "clean"))
    return pairs, labels


def test_false_alarms_of_the_shadow_weigh_as_much_as_those_of_the_one_in_charge_though_fewer_are_looked_at():
    gate = shadow_gate(*uploads_with_a_shadow(share=0.05))
    assert gate.figures["sampled_share"] == pytest.approx(0.05, abs=0.003)
    assert gate.figures["only_old_right"] > 3 * gate.figures["only_new_right"] > 0
    assert not gate.passed
    assert "it is worse" in gate.reasons[0]


@pytest.mark.parametrize(("share", "later_share"), [(0.0, 1.0), (0.05, 1.0), (0.0, 0.5)])
def test_what_is_reviewed_after_the_share_was_raised_counts(share, later_share):
    pairs, labels = uploads_with_a_shadow(share=share, later_share=later_share)
    gate = shadow_gate(pairs, labels)
    alone = shadow_gate([pair for pair in pairs if pair.verdict_seq >= 10_000], labels).figures
    assert gate.figures["sampled_share"] == pytest.approx(later_share, abs=0.02)
    for name in ("disagreements", "only_old_right", "only_new_right"):
        assert gate.figures[name] == pytest.approx(alone[name], abs=2), "little of the first half is in it"
    assert not gate.passed
    assert "it is worse" in gate.reasons[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_at_one_share_the_whole_life_of_a_shadow_is_weighed(share, seed):
    pairs, labels = uploads_with_a_shadow(share=share, seed=seed)
    figures = shadow_gate(reversed(pairs), labels).figures
    unseen = [pair.draw for pair in pairs if pair.verdict != pair.shadow_verdict and not pair.went_to_people]
    assert figures["sampled_share"] == min(unseen, default=1.0)
    assert sum(figures["reviewed"].values()) == len(labels)
    assert figures["disagreements"] == sum(pair.verdict != pair.shadow_verdict for pair in pairs)


def test_a_shadow_whose_disagreements_nobody_looks_at_does_not_pass():
    gate = shadow_gate(*uploads_with_a_shadow(share=0.0))
    assert not gate.passed
    assert "VERIFRAME_SHADOW_REVIEW_SHARE" in gate.reasons[0]


def test_the_calibration_error_of_the_shadow_counts_what_the_sample_stands_for():
    seen, by_sample = (shadow_gate(*uploads_with_a_shadow(share=share, p_fake=0.3)).figures["ece"] for share in (1.0, 0.05))
    assert by_sample == pytest.approx(seen, abs=0.05)


def test_labels_come_from_decisions_in_force(ledger):
    for i, (decision, peak) in enumerate((("fake", 0.95), ("clean", 0.7), ("unsure", 0.9), (None, 0.9))):
        put_verdict(ledger, f"v{i}", peaks=(peak,), content_sha256=f"{i:064x}")
        item = ledger.review_item_of(f"v{i}")
        if decision is not None:
            ledger.review_decide(item.verdict_seq, actor="anna", decision=decision)
    found = list(ledger.labelled_verdicts())
    assert [(label.video_id, label.label, label.verdict, label.p_fake) for label in found] == [
        ("v0", "fake", "manipulated", 0.95),
        ("v1", "clean", "suspicious", 0.7),
    ]
    assert ledger.label_counts() == {("manipulated", "fake"): 1, ("suspicious", "clean"): 1}
    assert list(ledger.labelled_verdicts(bundle_set="other@0")) == []


class Scripted:
    """A screener of a new set that gives every video the same peak."""

    def __init__(self, peak: float) -> None:
        self._peak = peak

    def screen(self, file, **_options) -> Verdict:
        assert file.read(4)
        return made_verdict(peaks=(self._peak,), bundle_set=NEW)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def archive(ledger, tmp_path):
    """Four verdicts; the media of one are gone."""
    for name, peak in (("fake", 0.95), ("real", 0.1), ("band", 0.7), ("gone", 0.2)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(f"media of {name}".encode())
        put_verdict(ledger, name, peaks=(peak,), content_sha256=hashlib.sha256(path.read_bytes()).hexdigest(), source=str(path))
    (tmp_path / "gone.mp4").unlink()
    return ConfiguredSources(Settings(media_roots=(tmp_path,)))


def last(reports):
    return list(reports)[-1].to_json()


def test_the_archive_is_judged_again_beside_the_old_verdicts_and_flips_are_named(ledger, archive):
    item = ledger.review_item_of("fake")
    ledger.review_decide(item.verdict_seq, actor="anna", decision="fake")
    arguments = {"screener": Scripted(0.2), "bundle_set": NEW, "sources": archive, "urls": []}

    planned = last(rescore(ledger, write=False, **arguments))
    assert ledger.latest_job("fake").body["revision"] == 1, "a dry run writes nothing"
    report = last(rescore(ledger, **arguments))

    assert report == planned
    assert (report["judged"], report["skipped"], report["flips_already_decided"]) == (3, {"FETCH_NOT_FOUND": 1}, 1)
    assert [(flip["video_id"], flip["from"], flip["to"], flip["decided"]) for flip in report["flips"]] == [
        ("band", "suspicious", "authentic", None),
        ("fake", "manipulated", "authentic", "fake"),
    ]
    bodies = [row.body for row in ledger.verdicts_of("fake")]
    assert [(body["revision"], body["verdict"], body["bundle_set"]) for body in bodies] == [
        (1, "manipulated", "default@0123456789ab"),
        (2, "authentic", NEW),
    ]
    assert ledger.latest_job("gone").body["revision"] == 1
    assert [row.num_judged for row in rescore(ledger, **arguments)] == [0], "only the one that is gone is tried again"


def test_a_promotion_names_the_set_that_passed_and_notices_when_it_changes(tmp_path):
    settings = Settings(state_dir=tmp_path / "state")
    assert bundle_set_in_charge(settings) == DEFAULT_SET
    document = json.loads((SHIPPED_ROOT / "default.json").read_text())
    for row in document["bundles"]:
        row["path"] = str(SHIPPED_ROOT / row["path"])
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps({**document, "name": "candidate"}))
    promote(settings, path, label=load_bundle_set(path).label, report={"passed": True})
    assert bundle_set_in_charge(settings) == path
    assert bundle_set_in_charge(settings.model_copy(update={"bundle_set": "named"})) == "named", "the settings win"

    path.write_text(json.dumps({**document, "name": "candidate", "beta": 9.0}))
    with pytest.raises(NotPromotedError, match="passed the gate"):
        bundle_set_in_charge(settings)
    path.unlink()
    with pytest.raises(NotPromotedError, match="cannot be loaded"):
        bundle_set_in_charge(settings)


def test_a_promotion_that_the_settings_would_override_is_refused(tmp_path):
    settings = Settings(state_dir=tmp_path, bundle_set="named")
    with pytest.raises(NotPromotedError, match="VERIFRAME_BUNDLE_SET=named wins"):
        promote(settings, tmp_path / "candidate.json", label="candidate@0", report={})
    assert not (tmp_path / "promoted.json").exists()


def test_a_promotion_that_other_machines_would_not_see_is_refused_with_the_setting_to_use(tmp_path):
    shared = Settings(state_dir=tmp_path, ledger_url="postgresql+psycopg://user:password@host/veriframe")
    with pytest.raises(NotPromotedError, match=f"set VERIFRAME_BUNDLE_SET={tmp_path}/candidate.json for the workers.* restart"):
        promote(shared, tmp_path / "candidate.json", label="candidate@0", report={})
    with pytest.raises(NotPromotedError, match="several machines"):
        promote(shared.model_copy(update={"bundle_set": "named"}), tmp_path / "candidate.json", label="candidate@0", report={})
    assert not (tmp_path / "promoted.json").exists()
    here = shared.model_copy(update={"ledger_url": f"sqlite:///{tmp_path}/elsewhere.sqlite3"})
    assert promote(here, tmp_path / "candidate.json", label="candidate@0", report={}).is_file()


def test_the_commands_refuse_without_reviews_and_leave_the_one_in_charge(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path))
    Ledger.open(Settings().resolved_ledger_url).close()
    answer = CliRunner().invoke(cli.app, ["learn"])
    assert answer.exit_code == 4
    assert json.loads(answer.output)["recalibration"]["passed"] is False
    answer = CliRunner().invoke(cli.app, ["promote", str(DEFAULT_SET)])
    assert answer.exit_code == 4
    assert json.loads(answer.output)["passed"] is False
    assert not (tmp_path / "promoted.json").exists()


def test_precision_is_that_of_the_set_in_charge(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path))
    ledger = Ledger.open(Settings().resolved_ledger_url)
    for i, bundle_set in enumerate((load_bundle_set(DEFAULT_SET).label, "other@0123456789ab")):
        put_verdict(ledger, f"v{i}", peaks=(0.95,), content_sha256=f"{i:064x}", bundle_set=bundle_set)
        ledger.review_decide(ledger.review_item_of(f"v{i}").verdict_seq, actor="anna", decision=("fake", "clean")[i])
    ledger.close()
    report = json.loads(CliRunner().invoke(cli.app, ["learn"]).output)
    assert [(row["verdict"], row["reviewed"], row["fake"]) for row in report["precision"]] == [("manipulated", 1, 1)]


def test_a_set_that_was_learned_from_one_named_bare_loads_and_none_is_left_that_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VERIFRAME_BUNDLE_SET", "default")
    Ledger.open(Settings().resolved_ledger_url).close()
    monkeypatch.setattr(Ledger, "labelled_verdicts", lambda *_, **__: iter(made_labels(3000, slope=1.0, offset=-2.0)))

    answer = CliRunner().invoke(cli.app, ["learn", "--out", "learned.json"])
    assert answer.exit_code == 0, answer.output
    learned = load_bundle_set(tmp_path / "learned.json")
    assert learned.calibration.platt_c != load_bundle_set(DEFAULT_SET).calibration.platt_c
    assert run_self_test(learned, golden_path(tmp_path / "learned.json")).passed, "a worker with the new set checks itself as before"

    with pytest.raises(BundleError):
        _write_set(tmp_path / "broken.json", {**load_bundle_set(DEFAULT_SET).document, "bundles": [{"name": "blend", "path": "nowhere"}]})
    assert {path.name for path in tmp_path.iterdir()} == {"learned.json", "learned.golden.json", "state"}


def test_the_command_judges_a_real_archive_again(tmp_path, monkeypatch):
    clip = tmp_path / "vid_1.mp4"
    write_clip(clip, astronaut_pictures(20))
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VERIFRAME_MEDIA_ROOTS", json.dumps([str(tmp_path)]))
    ledger = Ledger.open(Settings().resolved_ledger_url)
    put_verdict(ledger, "vid_1", peaks=(T_FAKE + 0.1,), content_sha256=hashlib.sha256(clip.read_bytes()).hexdigest(), source=str(clip))
    answer = CliRunner().invoke(cli.app, ["rescore", str(DEFAULT_SET)])
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.output)
    old, new = (row.body for row in ledger.verdicts_of("vid_1"))
    assert (old["bundle_set"], new["bundle_set"]) == ("default@0123456789ab", report["bundle_set"])
    assert (report["judged"], report["known"], new["revision"]) == (1, 0, 2)
    assert [flip["to"] for flip in report["flips"]] == [new["verdict"]] * (new["verdict"] != "manipulated")
    ledger.close()


def test_precision_in_production_is_gauged(ledger):
    for i, decision in enumerate(("fake", "fake", "clean")):
        put_verdict(ledger, f"v{i}", peaks=(0.95,), content_sha256=f"{i:064x}")
        ledger.review_decide(ledger.review_item_of(f"v{i}").verdict_seq, actor="anna", decision=decision)
    metrics = Metrics()
    QueueGauges(ledger, client=None, metrics=metrics).set_all()
    value = metrics.registry.get_sample_value
    assert value("veriframe_review_precision_ratio", {"verdict": "manipulated"}) == pytest.approx(2 / 3)
    assert value("veriframe_review_labels", {"verdict": "manipulated", "label": "clean"}) == 1
