"""Hostile files that are made here: a verdict or a named reason, within seconds and memory, whatever the trick."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.crafted import CRAFTED, Crafted
from hostile.sweep import DEADLINE_SECONDS, decode


@pytest.mark.hostile
@pytest.mark.parametrize("crafted", CRAFTED, ids=lambda crafted: crafted.name)
def test_a_crafted_file_ends_as_it_must(crafted: Crafted, tmp_path: Path) -> None:
    path = tmp_path / "upload.mp4"
    crafted.make(path)
    result = decode(path)

    assert result.outcome in crafted.outcomes, f"{result.outcome}: {result.message}"
    if result.outcome == "verdict" and crafted.warnings:
        assert crafted.warnings & result.warnings
    assert result.seconds <= DEADLINE_SECONDS
    assert result.peak_rss_bytes <= 1_000_000_000
