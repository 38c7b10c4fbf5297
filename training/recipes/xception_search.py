"""Xception study: the ablation grid (optimiser x learning rate x dropout x dense width), and a search in its place with Optuna.

Cells are compared on validation log-loss; the test split is not looked at. Both go on where they were stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..classify import LN2, logits_of, trained
from ..errors import ConfigError, DivergedError
from ..measure import measured
from ..recipe import Context, Outcome, Recipe, pack_hash
from ..run_key import described
from ..study_data import ClassifySettings, StudyData

_STUDY: Final = "Xception study"
_COLUMNS: Final = ("cell", "status", "train_loss", "valid_auc", "valid_accuracy", "valid_log_loss", "valid_ece")
PUBLISHED: Final = ("nadam 0.01 0.5 0", "sgd 0.01 0.5 0", "adam 0.1 0.5 0", "sgd 0.1 0.5 0", "nadam 0.01 0.5 128", "sgd 0.01 0.5 128")
"""The rows whose figures the study gives, with and without its dense layer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What every cell shares, and which cells there are."""

    net: str = "xception"
    size_px: int = 224
    steps: int = 2000
    batch: int = 32
    augment: float = 0.3
    optimisers: tuple[str, ...] = ("sgd", "adam", "nadam")
    learning_rates: tuple[float, ...] = (0.1, 0.01, 0.001)
    dropouts: tuple[float, ...] = (0.0, 0.3, 0.5)
    dense_widths: tuple[int, ...] = (0, 64, 128, 256)
    cells: tuple[str, ...] = ()
    """`optimiser rate dropout width` each; empty for the whole grid."""
    trials: int = 30
    """Of the search."""
    init_weights: str = ""
    seed: int = 0
    bf16: bool = True

    def grid(self) -> list[Cell]:
        """Every cell, in order."""
        if self.cells:
            return [Cell.read(text) for text in self.cells]
        return [Cell(*values) for values in itertools.product(self.optimisers, self.learning_rates, self.dropouts, self.dense_widths)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    optimiser: str
    rate: float
    dropout: float
    width: int

    def __post_init__(self) -> None:
        if self.optimiser not in ("sgd", "adam", "adamw", "nadam") or self.rate <= 0 or not 0 <= self.dropout < 1 or self.width < 0:
            raise ConfigError(f"a cell is optimiser (sgd, adam, adamw, nadam), rate > 0, dropout in [0, 1) and width >= 0, got {self}")

    @classmethod
    def read(cls, text: str) -> Cell:
        """From `sgd 0.01 0.5 128`."""
        try:
            optimiser, rate, dropout, width = text.split()
            return cls(optimiser, float(rate), float(dropout), int(width))
        except ValueError as err:
            raise ConfigError(f"cell {text!r} is not `optimiser rate dropout width`, for example `sgd 0.01 0.5 128`") from err

    def __str__(self) -> str:
        return f"{self.optimiser} {self.rate:g} {self.dropout:g} {self.width}"

    def settings(self, s: Settings) -> ClassifySettings:
        """Of the cell's own run."""
        return ClassifySettings(
            net=s.net,
            net_options=json.dumps({"drop_rate": self.dropout, "dense_width": self.width}),
            size_px=s.size_px,
            steps=s.steps,
            batch=s.batch,
            optimiser=self.optimiser,  # type: ignore[arg-type]
            learning_rate=self.rate,
            augment=s.augment,
            init_weights=s.init_weights,
            seed=s.seed,
            bf16=s.bf16,
        )


def run_grid(context: Context) -> Outcome:
    """Train every cell that is not in `ablation.csv` yet; writes the table as CSV and as a page."""
    s: Settings = context.settings
    path = context.run_dir / "ablation.csv"
    rows = _kept(path, s, pack_hash(context.material.faces))
    for number, cell in enumerate(s.grid()):
        if str(cell) not in rows:
            rows[str(cell)] = _run_cell(context, cell, f"cell{number:02d}")
            _write(path, rows)
        context.on_log({"step": number + 1, **rows[str(cell)]})
    ranked = sorted(rows.values(), key=lambda row: float(row["valid_log_loss"]))
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(str(row[name]) for name in _COLUMNS) + " |" for row in ranked]
    (context.run_dir / "ablation.md").write_text("\n".join(lines) + "\n")
    return Outcome(_best(ranked), artefacts=("ablation.csv", "ablation.md"))


def run_search(context: Context) -> Outcome:
    """Let Optuna choose the cells; its journal lies in the run folder, so that a stopped search goes on."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    s: Settings = context.settings
    logging.getLogger("optuna").setLevel(logging.WARNING)
    journal = optuna.storages.JournalStorage(JournalFileBackend(str(context.run_dir / "search.journal")))
    study = optuna.create_study(study_name=_study_name(s, pack_hash(context.material.faces)), storage=journal, load_if_exists=True)
    # The sampler starts anew with every call: with the seed alone it would propose the first trials once more.
    study.sampler = optuna.samplers.TPESampler(seed=s.seed + len(study.trials))
    rows: dict[str, dict[str, Any]] = {}

    def objective(trial: Any) -> float:
        cell = Cell(
            trial.suggest_categorical("optimiser", list(s.optimisers)),
            trial.suggest_float("rate", min(s.learning_rates), max(s.learning_rates), log=True),
            trial.suggest_float("dropout", min(s.dropouts), max(s.dropouts)),
            trial.suggest_categorical("width", list(s.dense_widths)),
        )
        row = _run_cell(context, cell, f"trial{trial.number:03d}")
        context.on_log({"step": trial.number + 1, **row})
        return float(row["valid_log_loss"])

    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    study.optimize(objective, n_trials=max(0, s.trials - len(done)))
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.COMPLETE:
            cell = Cell(trial.params["optimiser"], trial.params["rate"], trial.params["dropout"], trial.params["width"])
            rows[f"{trial.number} {cell}"] = {**dict.fromkeys(_COLUMNS, ""), "cell": str(cell), "valid_log_loss": trial.value}
    _write(context.run_dir / "search.csv", rows)
    return Outcome(_best(sorted(rows.values(), key=lambda row: float(row["valid_log_loss"]))), artefacts=("search.csv", "search.journal"))


def _study_name(s: Settings, data: str) -> str:
    """Data and all settings that a trial depends on: more trials go on in the same study, other settings begin another."""
    shared = {name: value for name, value in described(s).items() if name not in ("trials", "cells")}
    return f"xception-{data[:16]}-{hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]}"


def _run_cell(context: Context, cell: Cell, folder: str) -> dict[str, Any]:
    settings = cell.settings(context.settings)
    inner = dataclasses.replace(context, settings=settings, run_dir=context.run_dir / folder, on_log=_quiet(context))
    data = StudyData(context.material.faces, None, settings=settings)
    row: dict[str, Any] = {**dict.fromkeys(_COLUMNS, ""), "cell": str(cell)}
    try:
        net, loss, _ = trained(inner, data, json.loads(settings.net_options))
    except DivergedError:
        return {**row, "status": "diverged", "train_loss": "nan", "valid_log_loss": 99.0}
    labels, _ = data.listed("valid")
    logits = logits_of(net, data.images("valid"))
    if not all(map(math.isfinite, logits.tolist())):
        return {**row, "status": "diverged", "train_loss": round(loss, 4), "valid_log_loss": 99.0}
    figures = {name: value for name, value in measured(logits, labels, prefix="valid_").items() if name in _COLUMNS}
    status = "diverged" if figures["valid_log_loss"] >= LN2 - 0.005 else "ok"
    return {**row, "status": status, "train_loss": round(loss, 4), **figures}


def _quiet(context: Context) -> Any:
    """Rows of a cell are the run's business only where they stop it."""
    return lambda row: context.on_log({"stage": "cell", **{k: v for k, v in row.items() if k in ("loss", "seconds")}})


def _best(ranked: list[dict[str, Any]]) -> dict[str, float | str | bool]:
    return {"cells": len(ranked), "best": str(ranked[0]["cell"]), "best_log_loss": float(ranked[0]["valid_log_loss"])}


def _kept(path: Path, s: Settings, data: str) -> dict[str, dict[str, Any]]:
    """Rows of an earlier, stopped call with the same settings and data."""
    shared = json.dumps({**dataclasses.asdict(s), "cells": [], "data": data}, sort_keys=True)
    key = path.with_suffix(".key")
    if path.is_file() and key.is_file() and key.read_text() == shared:
        with path.open(newline="") as handle:
            return {row["cell"]: dict(row) for row in csv.DictReader(handle)}
    path.unlink(missing_ok=True)
    key.write_text(shared)
    return {}


def _write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows.values())


_SMOKE: Final = Settings(size_px=48, steps=1, batch=4, cells=("sgd 0.01 0 0", "adam 0.001 0.3 64"), trials=2, dense_widths=(0, 16))
_CPU: Final = Settings(size_px=96, steps=25, batch=8, cells=PUBLISHED, trials=6)

RECIPES = {
    "xception_ablation": Recipe(
        name="xception_ablation",
        study=_STUDY,
        summary="grid of optimiser x learning rate x dropout x dense width (72 cells; the cpu preset runs the published rows)",
        presets={"smoke": _SMOKE, "cpu": _CPU, "gpu": Settings()},
        run=run_grid,
    ),
    "xception_search": Recipe(
        name="xception_search",
        study=_STUDY,
        summary="Optuna instead of the grid, over the same ranges",
        presets={"smoke": _SMOKE, "cpu": _CPU, "gpu": Settings()},
        run=run_search,
    ),
}
