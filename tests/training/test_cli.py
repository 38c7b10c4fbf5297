"""The command line: lists, trains from a folder, exports, and turns typed errors into one sentence."""

import cv2
import numpy as np
import pytest
from test_material import rows, write_index
from typer.testing import CliRunner

from detect_core.bundle import load_bundle
from training import cli

runner = CliRunner()


def test_list_shows_every_recipe():
    result = runner.invoke(cli.app, ["list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name in ("blend", "autogan_reconstruct", "dcgan_lr3e4", "xception_transfer"):
        assert name in result.output


def test_run_trains_from_a_folder_and_export_copies_the_bundle(tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    write_index(faces, rows(*[("real", f"g{split}{i}", split) for split in ("train", "valid", "test") for i in range(8)]))
    out = tmp_path / "run"
    arguments = ["run", "synthesis_npr", "--preset", "smoke", "--set", "steps=2", "--faces", str(faces), "--out", str(out)]
    result = runner.invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "test_auc" in result.output
    result = runner.invoke(cli.app, ["export", str(out), str(tmp_path / "shipped")])
    assert result.exit_code == 0, result.output
    assert load_bundle(tmp_path / "shipped").net == "npr"


def test_a_typed_error_is_one_sentence_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["veriframe-train", "run", "blend", "--faces", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "no index.csv" in " ".join(capsys.readouterr().out.split())


def test_pictures_of_the_index_are_bgr_safe(tmp_path):
    # Given a red picture on disk, then the pack's first channel is the bright one.
    write_index(tmp_path, rows(("real", "a", "train")))
    red = np.zeros((150, 150, 3), np.uint8)
    red[:, :, 2] = 220
    cv2.imwrite(str(tmp_path / "0.png"), red)
    from training.index_faces import read_faces

    assert read_faces(tmp_path).images[0].float().mean((1, 2)).tolist() == pytest.approx([220, 0, 0])
