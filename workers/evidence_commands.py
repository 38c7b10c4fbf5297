"""Commands about a finished verdict: `veriframe evidence`, `explain`, `replay`. Heavy imports stay inside."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import UnknownVideoError
from .logs import configure_logs
from .settings import Settings, load_settings
from .terminal import make_console, using_path

if TYPE_CHECKING:
    from .explaining import ExplainedVideo
    from .ledger import JobRow, Ledger
    from .sources import FetchedMedia

commands = typer.Typer()
EXIT_DIFFERS = 4
_WHICH = "Video ID, or the ID of one job"
Tenant = Annotated[str, typer.Option(help="Whose video; empty: the house's own")]
Which = Annotated[str, typer.Argument(help=_WHICH, show_default=False)]


@contextmanager
def _opened(component: str, which: str, *, tenant: str, **overrides: str | None) -> Iterator[tuple[Settings, Ledger, JobRow]]:
    from .ledger import Ledger

    settings = load_settings(log_level="error", **overrides)
    configure_logs(level=settings.log_level, component=component)
    ledger = Ledger.open(settings.resolved_ledger_url, create=False)
    try:
        job = ledger.outcome(which) if len(which) == 32 else None
        job = job or ledger.latest_outcome(which, tenant=tenant)
        if job is None:
            raise UnknownVideoError(f"no job or video {which!r:.80} is on record here: check the ID, and --tenant if it is a tenant's")
        yield settings, ledger, job
    finally:
        ledger.close()


@contextmanager
def _media(settings: Settings, ledger: Ledger, job: JobRow, *, file: Path | None) -> Iterator[FetchedMedia]:
    """The video behind a job: from where it was taken, or the file that is given instead."""
    from .sources import ConfiguredSources

    recorded = (job.body or {}).get("content_sha256")
    if file is not None:
        settings = settings.model_copy(update={"media_roots": (file.absolute().parent,)})
    named = ledger.media_of(job.ledger_id)
    source = str(file.absolute()) if file is not None else named[1] if named else None
    tenant = job.tenant if file is None else ""  # the file that an operator names lies anywhere
    sources = ConfiguredSources(settings)
    fetched = sources.fetch(job.video_id, source=source, content_sha256=recorded, cancel=threading.Event(), tenant=tenant)
    try:
        yield fetched
    finally:
        fetched.close()


def _explained(settings: Settings, ledger: Ledger, job: JobRow, *, file: Path | None) -> ExplainedVideo:
    from detect_core.calibration import load_bundle_set

    from .explaining import explain_video
    from .messages import VerdictBody
    from .outcome import job_body
    from .promotion import bundle_set_in_charge

    verdict = VerdictBody.model_validate(job_body(job))
    with _media(settings, ledger, job, file=file) as media:
        return explain_video(media.file, verdict, bundle_set=load_bundle_set(bundle_set_in_charge(settings)))


@commands.command()
def evidence(
    which: Annotated[str, typer.Argument(help=_WHICH + "; with --check, a case file", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the case file goes; default: <video>-case.zip here")] = None,
    pictures: Annotated[bool, typer.Option(help="Put heat-maps and the annotated clip in: they show faces")] = False,
    file: Annotated[Path | None, typer.Option(help="The video, when it is no longer where it was taken from")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the hashes of a case file instead of making one")] = False,
    tenant: Tenant = "",
) -> None:
    """Write everything on record about a verdict into one zip with hashes, for an appeal."""
    from .case_file import case_zip, check_case, read_case

    if check:
        with using_path(Path(which), doing="read the case file"), Path(which).open("rb") as case:
            manifest = check_case(case)
        make_console().print(f"unchanged: case {manifest['case_sha256']} about {manifest['video_id']}, {len(manifest['files'])} files")
        return
    with _opened("evidence", which, tenant=tenant) as (settings, ledger, job):
        shown: dict[str, bytes] = {}
        if pictures:
            made = _explained(settings, ledger, job, file=file)
            shown = {**made.pictures, **({"annotated.mp4": made.clip} if made.clip is not None else {})}
        target = out or Path(f"{job.video_id}-case.zip")
        packed = case_zip(read_case(ledger, job), pictures=shown)
    with using_path(target, doing="write the case file"):
        target.write_bytes(packed)
        with target.open("rb") as case:
            manifest = check_case(case)
    make_console().print(f"{target}: {len(manifest['files'])} files, case {manifest['case_sha256']}")


@commands.command()
def explain(
    which: Which,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures; they show faces")] = Path("explanation"),
    file: Annotated[Path | None, typer.Option(help="The video, when it is no longer where it was taken from")] = None,
    tenant: Tenant = "",
) -> None:
    """Show where the detectors looked: heat-maps of the worst moments and an annotated clip."""
    with _opened("explain", which, tenant=tenant) as (settings, ledger, job):
        made = _explained(settings, ledger, job, file=file)
    with using_path(out, doing="write the pictures into"):
        out.mkdir(parents=True, exist_ok=True)
        for name, payload in made.pictures.items():
            (out / name).write_bytes(payload)
        if made.clip is not None:
            (out / "annotated.mp4").write_bytes(made.clip)
    make_console().print(f"{len(made.pictures)} pictures in {out}, made in {made.body['seconds']['total']} s")


@commands.command()
def replay(
    which: Which,
    file: Annotated[Path | None, typer.Option(help="The video, when it is no longer where it was taken from")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every difference as one JSON object")] = False,
    bundles: Annotated[str | None, typer.Option(help="Bundle set: a path or the name of a shipped one")] = None,
    tenant: Tenant = "",
) -> None:
    """Judge a finished video again and prove that the verdict repeats. Exit 0: bit for bit, or but for the order of additions; 4: it differs."""
    from .messages import VerdictBody
    from .outcome import job_body
    from .replay import BATCHING_NOISE
    from .replay import replay as judge_again

    with _opened("replay", which, tenant=tenant, bundle_set=bundles) as (settings, ledger, job):
        recorded = VerdictBody.model_validate(job_body(job))
        with _media(settings, ledger, job, file=file) as media:
            outcome = judge_again(recorded, media.file, content_sha256=media.sha256, settings=settings)
    if as_json:
        sys.stdout.write(json.dumps(outcome.to_json()) + "\n")
    else:
        make_console().print(outcome.sentence())
        for each in (*outcome.circumstances, *outcome.differences[:20]):
            make_console().print(f"  {each.where}: {each.recorded} -> {each.replayed}", highlight=False, soft_wrap=True)
    step = outcome.largest_step
    raise typer.Exit(0 if outcome.is_bit_equal or (step is not None and step < BATCHING_NOISE) else EXIT_DIFFERS)
