"""Anyone may upload anything: a verdict or a named reason, and the worker lives on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostile.canary import Canary, scripts
from hostile.expectations import Expected, read_manifest
from hostile.mutate import make_bases, mutate
from hostile.overhead import sandbox_overhead
from hostile.replays import replays_accepted
from hostile.sweep import DEADLINE_SECONDS, decode

CORPUS = Path(os.environ.get("VERIFRAME_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "hostile"
NUM_MUTATIONS = 500


def rows() -> list[Expected]:
    return read_manifest(CORPUS / "MANIFEST.tsv") if (CORPUS / "MANIFEST.tsv").is_file() else []


@pytest.mark.hostile
@pytest.mark.real
@pytest.mark.parametrize("expected", rows(), ids=lambda expected: expected.file)
def test_a_corpus_file_ends_as_the_manifest_says(expected: Expected) -> None:
    result = decode(CORPUS / "files" / expected.file)

    assert result.outcome in expected.outcomes, result.message
    if result.outcome == "verdict":
        assert expected.warnings <= result.warnings
        assert not expected.upright or result.upright
    assert result.seconds <= DEADLINE_SECONDS
    assert result.peak_rss_bytes <= 1_000_000_000


@pytest.mark.hostile
def test_damaged_clips_of_every_kind_end_typed_and_in_time(tmp_path: Path) -> None:
    bases = make_bases(tmp_path)
    payloads = [(base.name, base.read_bytes()) for base in bases]
    bad = []
    for seed in range(NUM_MUTATIONS):
        name, payload = payloads[seed % len(payloads)]
        path = tmp_path / f"mutation-{seed}"
        path.write_bytes(mutate(payload, seed=seed))
        result = decode(path, name=f"{name} seed {seed}")
        path.unlink()
        if result.outcome.startswith("UNTYPED") or result.outcome == "DECODE_TIMEOUT" or result.peak_rss_bytes > 1_000_000_000:
            bad.append(result)
    assert bad == []


@pytest.mark.hostile
def test_scripts_that_name_files_and_hosts_reach_neither(tmp_path: Path) -> None:
    with Canary() as canary:
        canary.begin_watch()
        for number, script in enumerate(scripts(canary)):
            file = tmp_path / f"script-{number}.mp4"
            file.write_bytes(script)
            assert not decode(file).outcome.startswith("UNTYPED"), script[:60]
        assert canary.calls == []
        assert canary.num_reads() == 0
        canary.file.read_bytes()
        assert canary.num_reads() > 0  # it would have been seen


def test_no_replay_is_taken_and_isolation_is_measured() -> None:
    accepted, tried = replays_accepted()
    assert (accepted, tried > 800) == (0, True)
    measured = sandbox_overhead(repeats=1, num_frames=8)
    assert min(measured.sandboxed_ms, measured.bare_child_ms, measured.inline_ms) > 0
