"""`veriframe-train report`: run what the claims need inside a time-box, then write RESULTS.md from the outcomes alone."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .claims import CLAIMS, Claim
from .errors import ConfigError, TimeBoxError, TrainingError
from .material import Material
from .recipe import Context, Recipe, pack_hash, run_recipe, same_run

_NOT_RUN: Final = "not run"


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one recipe."""

    recipe: str
    outcome: Mapping[str, Any] | None
    """Its outcome document, or None."""
    reason: str
    """Why there is none."""


def wanted(claims: Sequence[Claim] = CLAIMS) -> list[str]:
    """Recipes in the order of the claims, each once."""
    return list(dict.fromkeys(name for claim in claims for name in claim.recipes))


def run_wanted(
    names: Sequence[str],
    get: Callable[[str], Recipe],
    material: Material,
    runs_dir: Path,
    *,
    preset: str,
    minutes: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Ran]:
    """Run the recipes one after the other until the time is used up; finished ones are read from their folders.

    A run that is stopped by the time-box goes on from its checkpoint when the report is asked for again.
    """
    deadline = clock() + 60 * minutes
    out = []
    for name in names:
        try:
            recipe = get(name)
            settings = recipe.settings(preset)
        except ConfigError as err:
            out.append(Ran(name, None, f"{_NOT_RUN}: {str(err).split(';')[0]}"))
            continue
        context = Context(settings, material, runs_dir / name, on_log=_until(deadline, clock))
        outcome = same_run(recipe, context)
        if outcome is None and clock() < deadline:
            say(f"{name}: {max(0.0, deadline - clock()) / 60:.0f} minutes left")
            try:
                run_recipe(recipe, context)
            except TimeBoxError:
                say(f"{name}: stopped by the time-box")
            except TrainingError as err:
                say(f"{name}: {err}")
                out.append(Ran(name, None, f"failed: {err.code} {type(err).__name__}"))
                continue
            outcome = same_run(recipe, context)
        begun = (context.run_dir / "config.json").is_file()
        reason = "" if outcome else "begun, stopped by the time-box" if begun else f"{_NOT_RUN}: the time-box was used up"
        out.append(Ran(name, outcome, reason))
    return out


def write_results(path: Path, ran: Sequence[Ran], *, preset: str, material: Material, claims: Sequence[Claim] = CLAIMS) -> None:
    """Write the page. Nothing in it was typed: figures come from `outcome.json`, verdicts from the claims' rules."""
    known = {r.recipe: r for r in ran}
    lines = [
        "# What the studies claimed, and what our runs gave",
        "",
        f"Written by `veriframe-train report` on {datetime.datetime.now(tz=datetime.UTC).date().isoformat()}; do not edit. "
        f"Preset `{preset}` on {material.description} (sha256 `{pack_hash(material.faces)[:16]}`). Held-out people only; a figure is one run "
        "with seed 0 unless it says otherwise. The runs are short and the faces few: they show which way a claim falls at this size, "
        'no more. "Not decided" means that the difference is within the noise that the rule allows.',
        "",
        "| study | claim | published | here | verdict |",
        "|---|---|---|---|---|",
    ]
    for claim in claims:
        here, verdict = _answered(claim, known)
        lines.append(f"| {claim.study} | {claim.text} | {claim.published} | {here} | {verdict} |")
    lines += ["", "## Every run", "", "| recipe | seconds | figures |", "|---|---|---|"]
    for r in ran:
        if r.outcome is None:
            lines.append(f"| `{r.recipe}` | | {r.reason} |")
        else:
            lines.append(f"| `{r.recipe}` | {r.outcome['seconds']:.0f} | {_figures(r.outcome['metrics'])} |")
    lines += ["", *_repeat(ran, preset)]
    path.write_text("\n".join(lines) + "\n")


def _until(deadline: float, clock: Callable[[], float]) -> Callable[[dict[str, Any]], None]:
    def check(_row: dict[str, Any]) -> None:
        if clock() >= deadline:
            raise TimeBoxError("the time of this report is used up; ask for it again to go on")

    return check


def _answered(claim: Claim, known: Mapping[str, Ran]) -> tuple[str, str]:
    outcomes = {name: known[name].outcome for name in claim.recipes if name in known}
    metrics = {name: document["metrics"] for name, document in outcomes.items() if document is not None}
    missing = [name for name in claim.recipes if name not in metrics]
    if any(name not in metrics for name in claim.enough or claim.recipes):
        return f"{_NOT_RUN}: {', '.join(f'`{name}`' for name in missing)}", _NOT_RUN
    here, verdict = claim.answer(metrics)
    return here + (f" ({_NOT_RUN}: {', '.join(missing)})" if missing else ""), verdict


def _figures(metrics: Mapping[str, Any]) -> str:
    shown = []
    for name, value in metrics.items():
        if name.startswith(("test_", "svm_test_auc", "calibrated_", "unseen_", "plain_unseen_auc_mean", "adversarial_unseen_auc_mean")) or (
            not name.startswith(("valid_", "svm_", "plain_", "adversarial_", "bundle_"))
        ):
            shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)


def _repeat(ran: Sequence[Ran], preset: str) -> list[str]:
    commits = sorted({str(r.outcome["commit"])[:12] for r in ran if r.outcome is not None})
    threads = sorted({str(r.outcome["threads"]) for r in ran if r.outcome is not None})
    return [
        "## How to repeat",
        "",
        f"Code of commit {', '.join(commits) or 'none'}, {', '.join(threads) or 'no'} CPU thread(s). The same table:",
        "",
        f"    veriframe-train report --faces FACES --preset {preset} --minutes 120",
        "",
        "On the original data, one manifest per data set and any recipe on it:",
        "",
        "    veriframe-train manifest build 140k-real-and-fake-faces --out 140k.csv        # train|valid|test/{real,fake}",
        "    veriframe-train manifest build FaceForensics --layout ffpp --out ffpp.csv",
        "    veriframe-train manifest build Celeb-DF-v2 --layout celebdf --out celebdf.csv",
        "    veriframe-train manifest build dfdc_train_part_0 --layout dfdc --out dfdc.csv",
        "    veriframe-train run cnn5 --preset gpu --data 140k.csv",
        "    veriframe-train run xception_transfer --preset gpu --data dfdc.csv --set init_weights=legacy_xception.safetensors",
    ]


def claims_json(ran: Sequence[Ran]) -> str:
    """The answers as JSON rows of {what, value}, for other programs."""
    known = {r.recipe: r for r in ran}
    rows = []
    for claim in CLAIMS:
        here, verdict = _answered(claim, known)
        rows.append({"what": f"{claim.study}: {claim.text}", "published": claim.published, "value": here, "verdict": verdict})
    return json.dumps({"schema": "claims/1", "rows": rows}, indent=2)
