from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detect_core.bundle import SHIPPED_ROOT, Bundle, CropSpec, load_bundle, load_net, save_bundle
from detect_core.calibration import DEFAULT_SET, Fade, load_bundle_set
from detect_core.errors import BundleIntegrityError, BundleMismatchError, BundleNotFoundError
from detect_core.nets import build_net

OPTIONS = {"widths": [8, 8, 16, 16, 16, 24], "num_middle": 1, "middle_repeats": 1}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    return save_bundle(
        tmp_path / "blend",
        build_net("minixception", **OPTIONS),
        name="blend",
        version="1",
        detector="blend",
        net="minixception",
        net_options=OPTIONS,
        crop=CropSpec(size_px=64, margin=1.3),
        temperature=1.5,
        card={"metrics": {}},
    )


def write_set(folder: Path, bundle: Bundle, **changes: object) -> Path:
    document = {
        "schema": "bundle_set/1",
        "name": "test",
        "bundles": [{"name": "blend", "path": "blend", "sha256": bundle.sha256}],
        "optional": ["xception"],
        "fusion": {"kind": "max", "offsets": {"blend": 0.0}},
        "strategy": "best_window/1",
        "beta": 0.3,
        "platt": {"a": 1.0, "c": 0.0},
        "thresholds": {"t_review": 0.5, "t_fake": 0.9},
        "protocol": {"date": "2026-11-20"},
        **changes,
    }
    path = folder / "set.json"
    path.write_text(json.dumps(document))
    return path


def test_what_was_saved_is_what_is_loaded(bundle: Bundle) -> None:
    again = load_bundle(bundle.root)
    x_BCHW = torch.rand(2, 3, 64, 64)
    torch.manual_seed(0)
    expected = build_net("minixception", **OPTIONS).eval()(x_BCHW)
    assert again.sha256 == bundle.sha256
    torch.testing.assert_close(load_net(again)(x_BCHW), expected)


def test_a_missing_folder_or_shard_is_named(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=r"no bundle\.json"):
        load_bundle(tmp_path / "nowhere")
    next(bundle.root.glob("*.safetensors")).unlink()
    with pytest.raises(BundleNotFoundError, match="missing"):
        load_bundle(bundle.root)


def test_one_flipped_bit_is_refused(bundle: Bundle) -> None:
    shard = next(bundle.root.glob("*.safetensors"))
    payload = bytearray(shard.read_bytes())
    payload[-1] ^= 1
    shard.write_bytes(payload)
    with pytest.raises(BundleIntegrityError, match="sha256"):
        load_bundle(bundle.root)


def test_a_card_that_points_outside_its_folder_is_refused(bundle: Bundle) -> None:
    card = json.loads((bundle.root / "bundle.json").read_text())
    card["weights"][0]["file"] = "../other.safetensors"
    (bundle.root / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(BundleIntegrityError, match="plain"):
        load_bundle(bundle.root)


@pytest.mark.parametrize("broken", ["{", "[]", '{"schema": "bundle/1"}', '{"schema": "bundle/9"}'])
def test_a_malformed_card_is_refused(bundle: Bundle, broken: str) -> None:
    (bundle.root / "bundle.json").write_text(broken)
    with pytest.raises(BundleIntegrityError):
        load_bundle(bundle.root)


def test_weights_of_another_net_are_refused(bundle: Bundle) -> None:
    card = json.loads((bundle.root / "bundle.json").read_text())
    card["net_options"]["widths"][0] = 16
    (bundle.root / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(BundleMismatchError, match="tensors differ"):
        load_net(load_bundle(bundle.root))


def test_an_unknown_net_is_refused() -> None:
    with pytest.raises(BundleMismatchError, match="unknown net"):
        build_net("resnet9000")


def test_a_set_refuses_a_bundle_that_it_was_not_calibrated_with(bundle: Bundle, tmp_path: Path) -> None:
    path = write_set(tmp_path, bundle, bundles=[{"name": "blend", "path": "blend", "sha256": "0" * 64}])
    with pytest.raises(BundleMismatchError, match="calibrat"):
        load_bundle_set(path)


def test_a_set_lists_what_is_not_loaded(bundle: Bundle, tmp_path: Path) -> None:
    loaded = load_bundle_set(write_set(tmp_path, bundle))
    assert [each.name for each in loaded.bundles] == ["blend"]
    assert loaded.missing == ("xception",)


def test_a_set_says_how_its_detectors_fade(bundle: Bundle, tmp_path: Path) -> None:
    fade = {"full_until": 26.0, "none_from": 36.0, "drift": 0.2}
    fusion = {"kind": "evidence_sum", "weights": {"blend": 1.0}, "fades": {"blend": fade}}
    calibration = load_bundle_set(write_set(tmp_path, bundle, fusion=fusion)).calibration
    assert calibration.fusion.fades == {"blend": Fade(**fade)}
    assert calibration.under(36.0).fusion.fuse({"blend": 5.0}) == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": {"t_review": 0.9, "t_fake": 0.5}},
        {"platt": {"a": -1, "c": 0}},
        {"fusion": {"kind": "vote"}},
        {"fusion": {"kind": "evidence_sum", "fades": {"blend": {"full_until": 26}}}},
        {"schema": "bundle_set/2"},
        {"bundles": 3},
    ],
)
def test_a_malformed_set_is_refused(bundle: Bundle, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(BundleIntegrityError):
        load_bundle_set(write_set(tmp_path, bundle, **changes))


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        load_bundle_set(tmp_path / "none.json")


def test_shipped_bundles_verify_and_fit_in_git() -> None:
    shipped = load_bundle_set(DEFAULT_SET)
    for each in shipped.bundles:
        load_net(each)
    shards = list(SHIPPED_ROOT.rglob("*.safetensors"))
    assert shards
    assert all(shard.stat().st_size <= 16 * 1024 * 1024 for shard in shards)
    assert sum(shard.stat().st_size for shard in shards) <= 60_000_000
