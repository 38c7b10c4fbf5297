"""Protocol E1: what a training leaves out does not reach it, and a clip counts once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_faces import make_pack

from training.errors import ConfigError, DataError
from training.evaluate import left_out_rows
from training.face_pack import FacePack, concatenate
from training.leave_one_out import Clips, PairPool, batch_of, clip_rows, clips_of, measure, pool_of
from training.loop import step_generator
from training.material import Material
from training.recipe import Context, run_recipe
from training.recipes import cross_generator, get_recipe
from training.simulators.blends import SelfBlend
from training.simulators.classical_swap import ClassicalSwap


def flat_pool(name: str, level: int, count: int = 4) -> PairPool:
    images = torch.full((count, 3, 8, 8), level, dtype=torch.uint8)
    return PairPool(name, torch.zeros_like(images), images, torch.full((count, 1, 8, 8), 255, dtype=torch.uint8))


def test_a_batch_holds_pairs_of_the_kept_generators_only_and_of_all_of_them() -> None:
    kept = [flat_pool("a", 50), flat_pool("b", 100)]

    batch = batch_of(kept, 64, step_generator(0, 1))

    fakes, reals = batch.images.chunk(2)
    levels = {round(float(v)) for v in (255 * (fakes[:, 0, 0, 0] + 1) / 2)}
    assert levels == {50, 100}
    assert bool((reals == -1).all())
    assert batch.labels.tolist() == [1.0] * 64 + [0.0] * 64
    assert batch.masks is not None
    assert batch.masks[:64].min() == 1
    assert batch.masks[64:].max() == 0


def test_a_pool_repeats_and_its_halves_differ_where_the_mask_is() -> None:
    pack = make_pack(12)
    pools = [pool_of(pack, SelfBlend(), name="self_blend", pairs=10, size_px=32, seed=3) for _ in range(2)]

    assert len(pools[0].reals) == len(pools[0].fakes) == 10
    assert torch.equal(pools[0].fakes, pools[1].fakes)
    assert not torch.equal(pools[0].fakes, pools[0].reals)


def test_pictures_of_a_video_make_one_clip_and_stills_one_each() -> None:
    pack = make_pack(10)
    rows = tuple(replace(row, kind="video", file=f"video{i // 5}.mp4@{i % 5}.0") for i, row in enumerate(pack.rows))

    assert clip_rows(FacePack(pack.images, pack.landmarks, rows), looks=2) == [[0, 2], [5, 7]]
    assert clip_rows(pack, looks=2) == [[i] for i in range(10)]
    with pytest.raises(DataError, match="at least two"):
        clip_rows(pack.take([0]), looks=2)


class Brightness(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))


def test_a_cell_is_of_clips_not_of_pictures() -> None:
    bright = torch.full((2, 5, 3, 4, 4), 200, dtype=torch.uint8)
    dark = torch.full_like(bright, 20)
    fooled_once = bright.clone()
    fooled_once[0, 0] = 10  # one of a fake clip's two pictures is darker than the reals; its mean is not

    assert measure(Brightness(), Clips("g", dark, bright)).auc == 1.0
    assert measure(Brightness(), Clips("g", bright, dark)).auc == 0.0
    cell = measure(Brightness(), Clips("g", dark, fooled_once))
    assert (cell.auc, cell.tpr_at_1_percent, cell.num_clips) == (1.0, 1.0, 5)


def test_a_clip_takes_its_donors_from_other_people() -> None:
    pack = make_pack(6)

    clips = clips_of(pack, [[i] for i in range(6)], ClassicalSwap(), name="classical_swap", size_px=32, seed=1)

    assert clips.fakes.shape == clips.reals.shape == (1, 6, 3, 32, 32)
    assert not torch.equal(clips.fakes, clips.reals)


def test_the_report_tells_protocol_e1_with_its_protocol_and_refuses_other_runs(tmp_path: Path) -> None:
    cells = {f"unseen_{what}_{name}": 0.6 for what in ("auc", "tpr_at_fpr_1pc") for name in ("self_blend", "mouth")}
    metrics = {
        "unseen_auc_mean": 0.6, "unseen_auc_worst": 0.5, "unseen_tpr_at_fpr_1pc_worst": 0.1, "seen_auc_mean": 0.8, "generators": 2, "clips": 9, **cells,
    }  # fmt: skip
    settings = {"net": "blend_resnet", "size_px": 96, "steps": 450, "seeds": 1, "looks": 8}
    document = {"recipe": "cross_generator", "metrics": metrics, "settings": settings}
    (tmp_path / "outcome.json").write_text(json.dumps(document))

    rows = left_out_rows(tmp_path)

    assert [row.value for row in rows] == [0.6, 0.8, 0.5, 0.1, 0.6, 0.6]
    assert "9 held-out clips" in rows[0].note
    (tmp_path / "outcome.json").write_text(json.dumps({**document, "recipe": "blend"}))
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="cross_generator"):
            left_out_rows(folder)


def test_what_no_recipe_may_teach_is_shown_to_the_trainings_of_e1_and_in_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[set[str]] = []
    monkeypatch.setattr(
        cross_generator, "batch_of", lambda pools, *rest: taught.append({p.generator for p in pools}) or batch_of(pools, *rest)
    )
    packs = [make_pack(12, seed=1), make_pack(8, seed=2, split="valid", first_group=50)]
    recipe = get_recipe("cross_generator")

    run_recipe(recipe, Context(recipe.settings("smoke"), Material(concatenate(packs), "toy"), tmp_path))

    matrix = json.loads((tmp_path / "matrix.json").read_text())
    assert all("classical_swap" not in generators for generators in taught)
    assert all("classical_swap" in columns for columns in matrix.values())
    for left_out in set(matrix) - {cross_generator.NONE}:
        assert set.union(*taught) - {left_out} in taught
