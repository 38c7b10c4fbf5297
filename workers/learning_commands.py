"""Commands that learn from reviews: `veriframe learn`, `promote`, `rescore`. Heavy imports stay inside."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .logs import configure_logs
from .settings import Settings, load_settings
from .terminal import make_console, using_path

if TYPE_CHECKING:
    from .ledger import Ledger

commands = typer.Typer()
EXIT_GATE = 4
Candidate = Annotated[Path, typer.Argument(help="Bundle set (JSON)", show_default=False)]


@contextmanager
def _opened(component: str) -> Iterator[tuple[Settings, Ledger]]:
    from .ledger import Ledger

    settings = load_settings(log_level="error")
    configure_logs(level=settings.log_level, component=component)
    ledger = Ledger.open(settings.resolved_ledger_url, create=False)
    try:
        yield settings, ledger
    finally:
        ledger.close()


@commands.command()
def learn(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the recalibrated bundle set here when its gate passes")] = None,
) -> None:
    """Say what reviews teach: precision per word, and whether a calibration fitted on them holds. Exit 4: it does not."""
    from detect_core.calibration import bundle_set_path, load_bundle_set

    from .learning import precision_by_word, recalibrate
    from .promotion import bundle_set_in_charge

    with _opened("learn") as (settings, ledger):
        path = bundle_set_path(bundle_set_in_charge(settings))
        loaded = load_bundle_set(path)
        labels = list(ledger.labelled_verdicts(bundle_set=loaded.label))
    precision = precision_by_word(Counter((label.verdict, label.label) for label in labels))
    outcome = recalibrate(labels)
    report = {
        "bundle_set": loaded.label,
        "precision": [{"verdict": p.verdict, "reviewed": p.num_reviewed, "fake": p.num_fake, "interval": p.interval} for p in precision],
        "recalibration": {"passed": outcome.gate.passed, "reasons": outcome.gate.reasons, **outcome.gate.figures},
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if not outcome.gate.passed:
        raise typer.Exit(EXIT_GATE)
    if out is not None:
        document = outcome.document(dict(loaded.document), date=datetime.now(UTC).date().isoformat())
        root = path.absolute().parent
        document["bundles"] = [{**row, "path": str(root / row["path"])} for row in document["bundles"]]
        _write_set(out, document)
        _keep_golden(path, out)


def _keep_golden(path: Path, out: Path) -> None:
    """Give the new set the expected numbers of the old one: they are those of the detectors, which are the same."""
    from detect_core.self_test import golden_path

    golden = golden_path(path)
    if golden.is_file():
        with using_path(golden_path(out), doing="write the expected numbers of the self-test"):
            golden_path(out).write_bytes(golden.read_bytes())


def _write_set(out: Path, document: Mapping[str, Any]) -> None:
    """Write a bundle set that loads, or none."""
    from detect_core.calibration import load_bundle_set

    partial = out.with_name(f".{out.name}.partial")
    with using_path(out, doing="write the bundle set"):
        partial.write_text(json.dumps(document, indent=2) + "\n")
    try:
        load_bundle_set(partial)
        with using_path(out, doing="write the bundle set"):
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@commands.command()
def promote(candidate: Candidate) -> None:
    """Put a bundle set in charge that scored as a shadow and passed its gate on reviewed videos. Exit 4: it did not."""
    from detect_core.calibration import load_bundle_set

    from .learning import shadow_gate
    from .promotion import promote as put_in_charge

    with _opened("promote") as (settings, ledger):
        label = load_bundle_set(candidate).label
        gate = shadow_gate(ledger.shadow_pairs(label), ledger.labelled_verdicts())
        report = {"bundle_set": label, "passed": gate.passed, "reasons": gate.reasons, **gate.figures}
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
        if not gate.passed:
            raise typer.Exit(EXIT_GATE)
        with using_path(settings.state_dir, doing="write down who is in charge in"):
            pointer = put_in_charge(settings, candidate, label=label, report=report)
    make_console(stderr=True).print(f"{label} is in charge by {pointer}; workers without VERIFRAME_BUNDLE_SET take it at their next start")


@commands.command()
def rescore(
    candidate: Candidate,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many videos, newest first")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would flip and write nothing")] = False,
) -> None:
    """Judge the archive again with another bundle set: new revisions, never overwrites; says which verdicts flip."""
    from detect_core.calibration import load_bundle_set

    from .metrics import Metrics
    from .rescoring import RescoreReport
    from .rescoring import rescore as judge_again
    from .screener import load_screener
    from .sources import ConfiguredSources

    with _opened("rescore") as (settings, ledger):
        label = load_bundle_set(candidate).label
        alone = settings.model_copy(update={"bundle_set": str(candidate), "shadow_bundle_set": None})
        screener = load_screener(alone, Metrics())
        report = RescoreReport(label)
        try:
            for grown in judge_again(
                ledger,
                screener=screener,
                bundle_set=label,
                sources=ConfiguredSources(settings),
                urls=[settings.webhook_url] if settings.webhook_url else [],
                limit=limit,
                write=not dry_run,
            ):
                report = grown
        finally:
            screener.close()
    sys.stdout.write(json.dumps(report.to_json(), indent=1) + "\n")
