"""The built wheel holds the three packages, their data, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_wheel_has_three_top_level_names_and_the_bundles(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("veriframe-*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"detect_core", "workers", "training"}
    assert "detect_core/bundles/default.json" in names
    assert any(name.endswith(".safetensors") for name in names)
    assert any("/migrations/versions/" in name for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)
