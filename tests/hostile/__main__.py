"""`make hostile`: corpus, crafted files, mutations, canaries, a hijacked decoder, every door; a table, and reports/hostile.json."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY)]

from detect_core.pipeline import Screener  # noqa: E402
from detect_core.video.sandbox_probe import probe_sandbox  # noqa: E402
from hostile import stubs  # noqa: E402
from hostile.api_fuzz import run_fuzz  # noqa: E402
from hostile.canary import Canary, scripts  # noqa: E402
from hostile.crafted import CRAFTED  # noqa: E402
from hostile.credentials import Matrix  # noqa: E402
from hostile.expectations import read_manifest  # noqa: E402
from hostile.live import sweep_live  # noqa: E402
from hostile.mutate import make_bases, mutate  # noqa: E402
from hostile.overhead import sandbox_overhead  # noqa: E402
from hostile.replays import replays_accepted  # noqa: E402
from hostile.sweep import DEADLINE_SECONDS, Outcome, decode, screen  # noqa: E402
from tests.chaos.report import Report  # noqa: E402
from workers.ledger import Ledger  # noqa: E402

_AT_ONCE = 4


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--corpus", type=Path, default=REPOSITORY.parent / "shared" / "hostile", help="folder with MANIFEST.tsv and files/")
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=100, help="API requests per operation and kind of data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "reports" / "hostile.json")
    arguments = parser.parse_args()
    report = Report(seed=arguments.seed, smoke=arguments.mutations < 5000)
    results: list[Outcome] = []
    with Canary() as canary:
        canary.begin_watch()
        results += corpus_rows(report, arguments.corpus)
        results += crafted_rows(report)
        results += mutation_rows(report, arguments.mutations, seed=arguments.seed)
        canary_rows(report, canary)
        decoder_rows(report)
    peak, longest = max(results, key=lambda each: each.peak_rss_bytes), max(results, key=lambda each: each.seconds)
    report.at_most("peak memory of a decode child", round(peak.peak_rss_bytes / 1e6), "MB", 1000)
    report.at_most("longest file", round(longest.seconds, 2), "s", DEADLINE_SECONDS)
    report.detail["peak"], report.detail["longest"] = peak.file, longest.file
    door_rows(report, arguments.requests, seed=arguments.seed)
    overhead_rows(report)
    report.write(arguments.out)
    report.show()
    return 0 if report.is_good else 1


def say(text: str) -> None:
    print(f"   {text}", file=sys.stderr, flush=True)


def corpus_rows(report: Report, corpus: Path) -> list[Outcome]:
    """Every file twice: through the decoder alone, and through the whole screening in one process."""
    if not (corpus / "MANIFEST.tsv").is_file():
        report.add("corpus files that end as the manifest says", "no corpus here", "", goal="100", passed=None)
        return []
    screener, wrong, results = Screener.load(), [], []
    for expected in read_manifest(corpus / "MANIFEST.tsv"):
        for result in (decode(corpus / "files" / expected.file), screen(corpus / "files" / expected.file, screener)):
            fits = result.outcome in expected.outcomes
            if result.outcome == "verdict":
                fits &= expected.warnings <= result.warnings and (not expected.upright or bool(result.upright))
            if not fits:
                wrong.append(f"{expected.file}: {result.outcome} {result.message} {sorted(result.warnings)}")
            results.append(result)
    screener.close()
    report.equals("corpus files that end as the manifest says", round(100 * (1 - len(wrong) / len(results)), 2), "%", 100)
    live = sweep_live(corpus / "files", read_manifest(corpus / "MANIFEST.tsv"))
    report.equals("corpus files through queue and worker that end otherwise", len(live.wrong), "files", 0)
    report.equals("worker deaths in the corpus", live.deaths, "deaths", 0)
    report.detail["corpus_files"], report.detail["corpus_wrong"], report.detail["live_wrong"] = len(results) // 2, wrong, live.wrong
    say(f"corpus: {len(results)} runs, {len(wrong)} wrong; through a worker {len(live.wrong)} wrong, {live.deaths} deaths")
    return results


def crafted_rows(report: Report) -> list[Outcome]:
    """The files made here."""
    results, wrong = [], []
    with tempfile.TemporaryDirectory() as folder:
        for crafted in CRAFTED:
            path = Path(folder) / "upload.mp4"
            crafted.make(path)
            result = decode(path, name=crafted.name)
            if result.outcome not in crafted.outcomes:
                wrong.append(f"{crafted.name}: {result.outcome} {result.message}")
            results.append(result)
    report.equals("crafted files that end as they must", round(100 * (1 - len(wrong) / len(results)), 2), "%", 100)
    report.detail["crafted_files"], report.detail["crafted_wrong"] = len(results), wrong
    say(f"crafted: {len(results)} files, {len(wrong)} wrong")
    return results


def mutation_rows(report: Report, count: int, *, seed: int) -> list[Outcome]:
    """Seeded damage to well-formed clips of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        payloads = [(base.name, base.read_bytes()) for base in make_bases(Path(folder))]
        started = time.monotonic()

        def one(number: int) -> Outcome:
            name, payload = payloads[number % len(payloads)]
            path = Path(folder) / f"mutation-{number}"
            path.write_bytes(mutate(payload, seed=seed + number))
            result = decode(path, name=f"{name} seed {seed + number}")
            path.unlink()
            if number % 500 == 499:
                say(f"{number + 1} mutations, {time.monotonic() - started:.0f} s")
            return result

        with ThreadPoolExecutor(_AT_ONCE) as pool:  # beside each other, as in a worker
            results = list(pool.map(one, range(count)))
    untyped = [asdict(each) for each in results if each.outcome.startswith("UNTYPED")]
    hung = [asdict(each) for each in results if each.outcome == "DECODE_TIMEOUT" or each.seconds > DEADLINE_SECONDS]
    report.equals(f"untyped errors in {len(results)} mutations", len(untyped), "files", 0)
    report.equals("mutations past the deadline", len(hung), "files", 0)
    report.detail["mutations"] = dict(Counter(each.outcome for each in results))
    report.detail["untyped"], report.detail["hung"] = [str(each) for each in untyped], [str(each) for each in hung]
    report.detail["mutation_ms"] = round(1000 * sum(each.seconds for each in results) / max(1, len(results)), 1)
    return results


def canary_rows(report: Report, canary: Canary) -> None:
    """Scripts that name the canary and the listener; both were watched through everything above, too."""
    with tempfile.TemporaryDirectory() as folder:
        for number, script in enumerate(scripts(canary)):
            path = Path(folder) / f"script-{number}.mp4"
            path.write_bytes(script)
            decode(path)
    report.equals("connections to the listener", len(canary.calls), "connections", 0)
    report.equals("reads of the canary file", canary.num_reads(), "reads", 0)


def decoder_rows(report: Report) -> None:
    """A decoder in the hands of its file."""
    with stubs.open_world() as world:
        wrong = [each for each in (stubs.try_stub(world, kind) for kind in stubs.ENDS) if each is not None]
        wrong += [each for each in (stubs.try_reach(world, kind) for kind in stubs.REACHES) if each is not None]
        report.equals("hijacked decoders that end typed, in time, alone", len(stubs.ENDS) + len(stubs.REACHES) - len(wrong), "stubs", 26)
        report.equals("connections and files of hijacked decoders", len(world.calls) + world.num_stolen(), "", 0)
    report.detail["decoder_wrong"] = wrong
    say(f"decoder stubs: {len(wrong)} wrong")


def door_rows(report: Report, requests: int, *, seed: int) -> None:
    """Every route with every bad credential, replayed webhooks, and requests that the schema makes up."""
    ledger = Ledger.in_memory()
    matrix = Matrix(ledger)
    tries = matrix.tries()
    ledger.close()
    rejected = sum(each.rejected for each in tries)
    report.equals("bad credentials rejected", round(100 * rejected / len(tries), 2), "%", 100)
    report.detail["credentials"] = {"routes": len(matrix.doors), "tries": len(tries)}
    accepted, replayed = replays_accepted()
    report.equals("webhook replays older than 5 minutes accepted", accepted, f"of {replayed}", 0)
    found = run_fuzz(examples=requests, seed=seed)
    report.equals("broken promises of the API under made-up requests", len(found["failures"]), f"of {found['requests']}", 0)
    report.detail["api"] = found


def overhead_rows(report: Report) -> None:
    """What the sandbox costs one video."""
    measured = sandbox_overhead()
    report.at_most("overhead of the sandbox per video", measured.overhead_ms, "ms CPU", 30)
    isolation = round(measured.sandboxed_ms - measured.inline_ms, 2)
    report.add("the same by the clock of a shared machine", measured.overhead_wall_ms, "ms", goal="for comparison", passed=None)
    report.add("decoding in a child instead of in the worker", isolation, "ms", goal="for comparison", passed=None)
    report.detail["sandbox"] = {**asdict(measured), **probe_sandbox().as_json()}


if __name__ == "__main__":
    sys.exit(main())
