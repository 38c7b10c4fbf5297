"""What the review pages serve beside pages: ranges of a video, and the vendored scripts with their licences."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from workers.web.media import wanted_range
from workers.web.pages import STATIC


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-", 10, (0, 9)),
        ("bytes=2-3", 10, (2, 3)),
        ("bytes=2-99", 10, (2, 9)),
        ("bytes=-3", 10, (7, 9)),
        ("bytes=-99", 10, (0, 9)),
        ("bytes=-0", 10, None),
        ("bytes=5-2", 10, None),
        ("bytes=10-", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("chars=0-1", 10, None),
        ("bytes=0-", 0, None),
    ],
)
def test_ranges(header, size, expected):
    assert wanted_range(header, size) == expected


# --- what is vendored ------------------------------------------------------------------------------------------------

VENDORED = {
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",  # 2.0.11, 0BSD
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",  # 1.6.32, MIT
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_vendored_files_are_the_released_ones_with_their_licences():
    folder: Path = STATIC / "vendor"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix != ".LICENSE"} == VENDORED
    assert {path.name for path in folder.glob("*.LICENSE")} == {"htmx.LICENSE", "uPlot.LICENSE"}


# --- heat-maps -------------------------------------------------------------------------------------------------------
