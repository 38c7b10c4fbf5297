"""`veriframe policy`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from workers.cli import app
from workers.promotion import NotPromotedError

runner = CliRunner()


def ask(*options: str):
    return runner.invoke(app, ["policy", *options])


def test_a_wide_budget_is_answered_with_threshold_recall_and_reviewers() -> None:
    done = ask("--uploads-per-day", "1000", "--prevalence", "0.01", "--max-reviews-per-day", "400", "--json")
    answer = json.loads(done.stdout)

    assert done.exit_code == 0
    assert answer["is_supported"]
    assert 0 < answer["threshold"] < 1
    assert answer["reviews_per_day_upper"] <= 400
    assert answer["reviewers"] == 2
    assert answer["bundle_set"].startswith("default@")


def test_a_budget_that_the_held_out_videos_cannot_promise_is_refused_with_the_number_needed() -> None:
    done = ask("--uploads-per-day", "1e6", "--prevalence", "0.001", "--max-reviews-per-day", "500")

    assert done.exit_code == 1
    assert "7,242" in done.output
    assert "cannot be promised" in done.output


def test_a_budget_below_what_comes_regardless_is_refused_without_asking_for_more_real_videos() -> None:
    done = ask(
        *("--uploads-per-day", "100000", "--prevalence", "0.001", "--max-reviews-per-day", "2000", "--cannot-tell-share", "0.05", "--json")
    )
    assert done.exit_code == 1
    assert "5,000 of them videos that end as 'cannot tell'; the budget is 2,000" in done.output
    assert "No number of real videos helps" in done.output
    assert "Calibrate" not in done.output


def test_what_is_not_counted_is_said_until_it_is() -> None:
    how = ("--uploads-per-day", "1000", "--prevalence", "0.01", "--max-reviews-per-day", "400")
    assert "--cannot-tell-share" in ask(*how).output
    counted = ask(*how, "--cannot-tell-share", "0.1")
    assert "--cannot-tell-share" not in counted.output
    less = json.loads(ask(*how, "--json").stdout)
    assert json.loads(ask(*how, "--cannot-tell-share", "0.1", "--json").stdout)["threshold"] > less["threshold"]


def test_the_set_in_charge_is_asked(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path))
    (tmp_path / "promoted.json").write_text('{"path": "/nowhere/set.json", "label": "x@0", "gate": {}}')
    done = ask("--uploads-per-day", "1000", "--prevalence", "0.01", "--max-reviews-per-day", "400")
    assert isinstance(done.exception, NotPromotedError)
