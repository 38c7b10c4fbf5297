"""A bundle set tells its detectors apart by their names."""

import json

import pytest

from detect_core.bundle import SHIPPED_ROOT
from detect_core.calibration import load_bundle_set
from detect_core.errors import BundleIntegrityError


def test_two_bundles_of_one_name_are_refused(tmp_path):
    # Given a set that names the same detector twice, whose scores could not be told apart.
    document = json.loads((SHIPPED_ROOT / "default.json").read_text())
    rows = [{**row, "path": str(SHIPPED_ROOT / row["path"])} for row in document["bundles"]]
    path = tmp_path / "set.json"
    path.write_text(json.dumps({**document, "bundles": [*rows, rows[0]]}))
    with pytest.raises(BundleIntegrityError, match=f"two bundles are called {rows[0]['name']}, expected a name of its own for each"):
        load_bundle_set(path)
