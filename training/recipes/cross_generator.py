"""Protocol E1: train once per generator without it and once with all, and draw the matrix of what each training finds.

One generator, the classical swap, is in no training at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import torch

from detect_core.nets import build_net

from ..autogan_bank import default_bank, train_bank
from ..errors import DataError
from ..face_pack import FacePack, concatenate
from ..leave_one_out import NEVER_TAUGHT, Cell, Clips, PairPool, batch_of, clip_rows, clips_of, measure, pool_of
from ..loop import Batch, LoopConfig, train_supervised
from ..plots import new_figure
from ..recipe import Context, Outcome, Recipe
from ..simulators.base import Simulator
from ..simulators.blends import CrossBlend, DecoderBlend, MouthResynthesis, SelfBlend, WarpBlend

NONE: Final = "nothing left out"


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and lengths; every training gets the same."""

    size_px: int = 96
    pairs_per_generator: int = 1216
    """Kept in memory as bytes: 64 kB each at 96 px."""
    steps: int = 450
    pairs: int = 32
    learning_rate: float = 2e-3
    ema: float = 0.99
    bank_steps: int = 900
    looks: int = 8
    """Pictures of a held-out clip."""
    seeds: int = 1
    net: str = "blend_resnet"
    net_options: str = '{"widths": [24, 40, 80, 128], "units": [1, 2, 1]}'
    seed: int = 0
    bf16: bool = True


def run(context: Context) -> Outcome:
    """Draw the pairs, train every row of the matrix, measure every cell."""
    s: Settings = context.settings
    train, held_out = context.material.reals("train"), _held_out(context)
    taught = _generators(train, context)
    rows = clip_rows(held_out, looks=s.looks)
    pools = {
        name: pool_of(train, simulator, name=name, pairs=s.pairs_per_generator, size_px=s.size_px, seed=s.seed + 17 * k)
        for k, (name, simulator) in enumerate(taught.items())
    }
    clips = [
        clips_of(held_out, rows, simulator, name=name, size_px=s.size_px, seed=s.seed + 1009 + k)
        for k, (name, simulator) in enumerate((taught | {NEVER_TAUGHT.family: NEVER_TAUGHT}).items())
    ]
    identity = f"cross_generator {train.sha256()} {held_out.sha256()}"
    matrix = {left_out: _train_and_measure(left_out, pools, clips, context, identity=identity) for left_out in (*taught, NONE)}
    (context.run_dir / "matrix.json").write_text(
        json.dumps({row: {column: asdict(cell) for column, cell in cells.items()} for row, cells in matrix.items()}, indent=2) + "\n"
    )
    _draw(matrix, context)
    unseen = {name: matrix[name][name] for name in taught} | {NEVER_TAUGHT.family: matrix[NONE][NEVER_TAUGHT.family]}
    seen = [matrix[NONE][name].auc for name in taught]
    return Outcome(
        {
            "unseen_auc_mean": round(float(np.mean([cell.auc for cell in unseen.values()])), 4),
            "unseen_auc_worst": min(cell.auc for cell in unseen.values()),
            "unseen_tpr_at_fpr_1pc_worst": min(cell.tpr_at_1_percent for cell in unseen.values()),
            "seen_auc_mean": round(float(np.mean(seen)), 4),
            "generators": len(unseen),
            "clips": len(rows),
            **{f"unseen_auc_{name}": cell.auc for name, cell in unseen.items()},
            **{f"unseen_tpr_at_fpr_1pc_{name}": cell.tpr_at_1_percent for name, cell in unseen.items()},
        },
        artefacts=("matrix.json", "matrix.png"),
    )


def _held_out(context: Context) -> FacePack:
    """Reals of both held-out splits: nothing is chosen on either."""
    packs = []
    for split in ("valid", "test"):
        try:
            packs.append(context.material.reals(split))
        except DataError:
            continue
    if not packs:
        raise DataError("leaving generators out needs held-out real faces, neither split valid nor test has any; give more data")
    return concatenate(packs)


def _generators(train: FacePack, context: Context) -> dict[str, Simulator]:
    """Name -> simulator: decoders of one kind of upsampling are one generator."""
    configs = default_bank(context.settings.bank_steps)
    nets = train_bank(train, configs, context.run_dir / "bank", on_log=context.on_log)
    made: dict[str, Simulator] = {s.family: s for s in (SelfBlend(), CrossBlend(), WarpBlend(), MouthResynthesis())}
    for kind in ("transposed", "nearest", "pixelshuffle", "bilinear"):
        members = [net for net, config in zip(nets, configs, strict=True) if config.upsampler.startswith(kind)]
        made[f"autogan_{kind}"] = DecoderBlend(members, whole_share=0.6, family=f"autogan_{kind}")
    return made


def _train_and_measure(
    left_out: str, pools: dict[str, PairPool], clips: list[Clips], context: Context, *, identity: str
) -> dict[str, Cell]:
    """One row of the matrix: the mean over the seeds."""
    s: Settings = context.settings
    kept = [pool for name, pool in pools.items() if name != left_out]
    runs: list[list[Cell]] = []
    for seed in range(s.seeds):
        torch.manual_seed(s.seed + seed)
        net = build_net(s.net, **json.loads(s.net_options))
        has_mask_head = hasattr(net, "forward_with_mask")
        loop = LoopConfig(
            steps=s.steps, learning_rate=s.learning_rate, ema=s.ema, seed=s.seed + seed, bf16=s.bf16, validate_every=s.steps, log_every=50
        )
        trained, _ = train_supervised(
            net,
            lambda _step, generator: _as_learned(batch_of(kept, s.pairs, generator), has_mask_head=has_mask_head),  # noqa: B023 - used in this turn only
            config=loop,
            run_dir=context.run_dir / f"without-{left_out.replace(' ', '-')}-{seed}",
            identity=f"{identity} {left_out} {s}",
            on_log=lambda row: context.on_log({"left_out": left_out, **row}),
        )
        runs.append([measure(trained, clip) for clip in clips])
    return {
        clip.generator: Cell(
            round(float(np.mean([run[k].auc for run in runs])), 4),
            round(float(np.mean([run[k].tpr_at_1_percent for run in runs])), 4),
            runs[0][k].num_clips,
        )
        for k, clip in enumerate(clips)
    }


def _as_learned(batch: Batch, *, has_mask_head: bool) -> Batch:
    return batch if has_mask_head else replace(batch, masks=None)


def _draw(matrix: dict[str, dict[str, Cell]], context: Context) -> None:
    """The matrix as a picture: rows are trainings, columns what they were shown."""
    rows, columns = list(matrix), list(next(iter(matrix.values())))
    values = np.array([[matrix[row][column].auc for column in columns] for row in rows])
    with new_figure(context.run_dir / "matrix.png", 1.0 * len(columns) + 2.5, 0.55 * len(rows) + 2.0) as axes:
        shown = axes.imshow(values, vmin=0.3, vmax=1.0, cmap="viridis", aspect="auto")
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                is_unseen = column in (row, NEVER_TAUGHT.family)
                axes.text(
                    j, i, f"{values[i, j]:.2f}", ha="center", va="center",
                    color="white" if values[i, j] < 0.75 else "black", fontweight="bold" if is_unseen else "normal",
                )  # fmt: skip
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
        axes.set_yticks(range(len(rows)), [row if row == NONE else f"without {row}" for row in rows])
        axes.set_title("AUC over held-out clips; bold: not in that training")
        axes.figure.colorbar(shown, ax=axes)


RECIPES = {
    "cross_generator": Recipe(
        name="cross_generator",
        study="our experts",
        summary="protocol E1: one training per generator that leaves it out; how each fares on the generator that it never saw",
        presets={
            "smoke": Settings(
                size_px=48,
                pairs_per_generator=8,
                steps=2,
                pairs=4,
                bank_steps=1,
                looks=2,
                net_options='{"widths": [4, 4, 8, 8], "units": [1, 1, 1]}',
            ),
            "cpu": Settings(),
            "gpu": Settings(size_px=160, pairs_per_generator=8192, steps=4000, pairs=128, bank_steps=2500, seeds=2, net_options="{}"),
        },
        run=run,
    )
}
