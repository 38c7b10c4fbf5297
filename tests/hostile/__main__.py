"""`make hostile`: the corpus, 5,000 seeded mutations, the canaries; a table, and reports/hostile.json."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detect_core.pipeline import Screener
from hostile.expectations import read_manifest
from hostile.mutate import make_bases, mutate
from hostile.sweep import DEADLINE_SECONDS, Outcome, decode, screen

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--corpus", type=Path, default=REPOSITORY.parent / "shared" / "hostile", help="folder with MANIFEST.tsv and files/")
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "reports" / "hostile.json")
    arguments = parser.parse_args()

    rows: list[dict[str, object]] = []
    detail: dict[str, object] = {}
    results: list[Outcome] = []
    if (arguments.corpus / "MANIFEST.tsv").is_file():
        wrong, results = sweep_corpus(arguments.corpus)
        total = len(results)
        detail["corpus_wrong"] = wrong
        rows.append(row("corpus files that end as the manifest says", 100 * (total - len(wrong)) / total, "%", 100, not wrong))
    mutations = sweep_mutations(arguments.mutations)
    untyped = [asdict(each) for each in mutations if each.outcome.startswith("UNTYPED")]
    hung = [asdict(each) for each in mutations if each.outcome == "DECODE_TIMEOUT"]
    detail["mutations"] = dict(Counter(each.outcome for each in mutations))
    detail["untyped"], detail["hung"] = untyped, hung
    every = [*results, *mutations]
    peak, longest = max(each.peak_rss_bytes for each in every), max(each.seconds for each in every)
    rows += [
        row(f"untyped errors in {len(mutations)} mutations", len(untyped), "files", 0, not untyped),
        row("mutations past the deadline", len(hung), "files", 0, not hung),
        row("peak memory of a decode child", round(peak / 1e6), "MB", 1000, peak <= 1e9),
        row("longest file", round(longest, 2), "s", DEADLINE_SECONDS, longest <= DEADLINE_SECONDS),
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"rows": rows, "detail": detail}, indent=2, default=sorted) + "\n")
    for each in rows:
        print(f"{'ok  ' if each['pass'] else 'FAIL'} {each['what']:60} {each['value']:>10} {each['unit']:6} goal {each['goal']}")
    return 0 if all(each["pass"] for each in rows) else 1


def row(what: str, value: float, unit: str, goal: float, passed: bool) -> dict[str, object]:
    return {"what": what, "value": value, "unit": unit, "goal": goal, "pass": passed}


def sweep_corpus(corpus: Path) -> tuple[list[dict[str, object]], list[Outcome]]:
    """Every file twice: through the decoder alone, and through the whole screening in one process."""
    screener = Screener.load()
    wrong, results = [], []
    for expected in read_manifest(corpus / "MANIFEST.tsv"):
        for result in (decode(corpus / "files" / expected.file), screen(corpus / "files" / expected.file, screener)):
            fits = result.outcome in expected.outcomes
            if result.outcome == "verdict":
                fits &= expected.warnings <= result.warnings and (not expected.upright or bool(result.upright))
            if not fits:
                wrong.append({**asdict(result), "expected": sorted(expected.outcomes | expected.warnings)})
            results.append(result)
    screener.close()
    return wrong, results


def sweep_mutations(count: int) -> list[Outcome]:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        payloads = [(base.name, base.read_bytes()) for base in make_bases(Path(folder))]
        path = Path(folder) / "mutation"
        started = time.monotonic()
        for seed in range(count):
            name, payload = payloads[seed % len(payloads)]
            path.write_bytes(mutate(payload, seed=seed))
            results.append(decode(path, name=f"{name} seed {seed}"))
            if seed % 500 == 499:
                print(f"   {seed + 1} mutations, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return results


if __name__ == "__main__":
    sys.exit(main())
