"""The command `veriframe`. Heavy imports (torch, celery) stay inside the command that needs them."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from detect_core.errors import DetectCoreError

from .door_commands import commands as door_commands
from .errors import UnknownVideoError, WorkerError
from .evidence_commands import commands as evidence_commands
from .learning_commands import commands as learning_commands
from .logs import configure_logs
from .policy_command import commands as policy_commands
from .settings import Settings, load_settings
from .terminal import make_console
from .tracing import configure_tracing, stop_tracing

app = typer.Typer(
    name="veriframe",
    help="Screens uploaded videos for deepfakes: video IDs in, explained verdicts out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(evidence_commands)
app.add_typer(learning_commands)
app.add_typer(door_commands)
app.add_typer(policy_commands)

EXIT_REFUSED = 1


def _refuse(error: Exception) -> None:
    """Say in one sentence what cannot be done."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    said = Text.assemble((getattr(error, "code", "INTERNAL"), "bold red"), f": {text}")
    make_console(stderr=True, soft_wrap=True).print(said, highlight=False)


def _settings(component: str, **overrides: Any) -> Settings:
    settings = load_settings(**overrides)
    configure_logs(level=settings.log_level, component=component)
    configure_tracing(settings.otlp_endpoint, component=component)
    return settings


@app.command()
def scan(
    files: Annotated[list[Path], typer.Argument(help="Video files, or folders of them", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One verdict/1 object per line and file")] = False,
    bundles: Annotated[str | None, typer.Option(help="Bundle set: a path or the name of a shipped one")] = None,
    device: Annotated[str | None, typer.Option(help="torch device")] = None,
) -> None:
    """Judge video files, offline. Exit 0: every file was judged or inconclusive; 3: some failed; 2: wrong usage."""
    from .allocator import keep_freed_memory
    from .metrics import Metrics
    from .scan import files_of, run_scan
    from .screener import load_screener

    found = files_of(files)
    if not found:
        raise typer.BadParameter(f"no video in {', '.join(str(path) for path in files)}; name the files themselves, or another folder")
    keep_freed_memory()
    settings = _settings("scan", bundle_set=bundles, device=device, log_level="error")
    raise typer.Exit(run_scan(found, as_json=as_json, load=lambda: load_screener(settings, Metrics(), alone=True)))


@app.command()
def bench(
    clips: Annotated[
        list[Path] | None, typer.Argument(help="Clips to measure on; none: it encodes its own", exists=True, show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes")] = Path("reports/bench.json"),
    repeats: Annotated[int, typer.Option(min=1, help="Runs per figure after a warm-up; the shortest counts")] = 3,
    quick: Annotated[bool, typer.Option(help="Fewer lengths and videos, no hour of 4K")] = False,
    device: Annotated[str, typer.Option(help="torch device of the workers to plan with; cuda adds the table of the GPU")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of every net, the peers' too; 1 is fair on a machine with other load")
    ] = None,
    recall: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of videos: compare the face search with MTCNN at native size")
    ] = None,
) -> None:
    """Measure what a video costs here, beside the usual loop. Exit 3 when a goal was missed."""
    from .allocator import keep_freed_memory

    keep_freed_memory()
    from .bench.run import run_bench

    raise typer.Exit(run_bench(clips or [], out=out, repeats=repeats, quick=quick, device=device, threads=threads, recall_folder=recall))


@app.command()
def capacity(
    uploads_per_hour: Annotated[float, typer.Option(min=0.001, help="Of the busiest hour")],
    mix: Annotated[Path, typer.Option(help="CSV file with the columns share,duration_seconds,height,num_faces")],
    bench: Annotated[list[Path] | None, typer.Option(help="Report of `veriframe bench`, one per kind of worker")] = None,
    slo_seconds: Annotated[float, typer.Option(min=1, help="Intake to verdict, kept for 95 % of uploads")] = 300.0,
    utilisation: Annotated[float, typer.Option(min=0.05, max=0.95, help="Workers are not planned to be used above this share")] = 0.7,
) -> None:
    """Say how many workers of which kind a load needs, from measured times."""
    from .capacity import capacity_table, read_bench, read_mix, workers_needed

    uploads, kinds = read_mix(mix), [read_bench(path) for path in bench or [Path("reports/bench.json")]]
    needs = [
        workers_needed(kind, uploads, uploads_per_hour=uploads_per_hour, slo_seconds=slo_seconds, utilisation=utilisation) for kind in kinds
    ]
    make_console().print(capacity_table(needs))
    for kind in kinds:
        make_console().print(f"{kind.name}: the straight line through its clips is off by {kind.spread:.0%} (root mean square)")


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port of the API")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded broker and ledger")] = None,
    media_template: Annotated[str | None, typer.Option(help="Where a bare ID is looked up, e.g. /media/{video_id}.mp4")] = None,
) -> None:
    """Run everything on this machine: broker, ledger, ingest, janitor, API and one worker."""
    from .up import run_up

    run_up(_settings("up", api_port=port, state_dir=state_dir, media_template=media_template))


@app.command()
def worker(
    concurrency: Annotated[int | None, typer.Option("--concurrency", "-c", min=1, help="Videos in flight")] = None,
    lanes: Annotated[list[str] | None, typer.Option("--lane", help="Dispatch lanes to serve, in order (default: all)")] = None,
) -> None:
    """Run one worker process: `-P threads`, one device, drains on SIGTERM."""
    from .allocator import keep_freed_memory
    from .embedded import resolve_broker_url
    from .lifecycle import run_worker, signal_self
    from .screener import load_checked_screener

    keep_freed_memory()
    settings = _settings("worker", concurrency=concurrency, dispatch_lanes=tuple(lanes) if lanes else None)
    raise typer.Exit(
        run_worker(
            settings, broker_url=resolve_broker_url(settings), screener_factory=partial(load_checked_screener, on_failure=signal_self)
        )
    )


@app.command()
def ingest() -> None:
    """Read the public inbox lanes and the event stream into the ledger."""
    from .embedded import resolve_broker_url
    from .services import run_ingest

    settings = _settings("ingest")
    run_ingest(settings, broker_url=resolve_broker_url(settings))


@app.command()
def janitor() -> None:
    """Take back expired leases, dispatch due videos, deliver webhooks. Several may run, one leads."""
    from .embedded import resolve_broker_url
    from .services import run_janitor

    settings = _settings("janitor")
    run_janitor(settings, broker_url=resolve_broker_url(settings))


@app.command()
def api(port: Annotated[int | None, typer.Option(help="Port of the API")] = None) -> None:
    """Serve the HTTP API."""
    from .embedded import require_free_port, resolve_broker_url
    from .services import open_control
    from .up import serve
    from .web.app import create_app

    settings = _settings("api", api_port=port)
    require_free_port(settings.api_host, settings.api_port, setting="VERIFRAME_API_PORT")
    with open_control(settings, broker_url=resolve_broker_url(settings)) as control:
        serve(create_app(control), settings=settings)


@app.command("login-link")
def login_link(name: Annotated[str, typer.Argument(help="Name of the reviewer, as the log shows it", show_default=False)]) -> None:
    """Print a link that signs one reviewer in once."""
    from .door_commands import operator
    from .ledger import Ledger
    from .web.session import LINK_SECONDS, NAMES, login_address, reviewer_name

    reviewer = reviewer_name(name)
    if reviewer is None:
        raise typer.BadParameter(NAMES)
    settings = _settings("login-link", log_level="error")
    ledger = Ledger.open(settings.resolved_ledger_url, create=False)
    token = ledger.make_login(reviewer, seconds=LINK_SECONDS)
    ledger.audit(actor=operator(), action="login_link_made", target=reviewer)
    ledger.close()
    sys.stdout.write(login_address(settings, token) + "\n")


@app.command()
def submit(
    video_ids: Annotated[list[str], typer.Argument(help="Video IDs", show_default=False)],
    lane: Annotated[str | None, typer.Option(help="urgent, default or bulk")] = None,
    source: Annotated[str | None, typer.Option(help="file, s3 or https URI; for one ID only")] = None,
) -> None:
    """Push video IDs onto the public inbox, as a platform would."""
    from .broker import connect, translated
    from .embedded import resolve_broker_url
    from .messages import DEFAULT_LANE, enqueue_message, parse_enqueue

    settings = _settings("submit", log_level="error")
    if source is not None and len(video_ids) > 1:
        raise typer.BadParameter("--source goes with one video ID")
    fields = {name: value for name, value in (("lane", lane), ("source", source)) if value is not None}
    requests = [parse_enqueue({"video_id": video_id, **fields}) for video_id in video_ids]
    client = connect(resolve_broker_url(settings))
    with translated():
        for request in requests:
            client.lpush(request.lane or DEFAULT_LANE, enqueue_message(request))
    client.close()
    make_console().print(f"{len(requests)} on the inbox; ask with: veriframe verdict {video_ids[0]}")


@app.command()
def verdict(
    video_id: Annotated[str, typer.Argument(help="Video ID", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="The verdict/1 object")] = False,
    tenant: Annotated[str, typer.Option(help="Whose video; empty: the house's own")] = "",
) -> None:
    """Show the newest outcome of one video."""
    from .ledger import Ledger
    from .messages import VerdictBody
    from .outcome import job_body
    from .scan import verdict_table

    settings = _settings("verdict", log_level="error")
    ledger = Ledger.open(settings.resolved_ledger_url, create=False)
    job = ledger.latest_outcome(video_id, tenant=tenant)
    ledger.close()
    if job is None:
        raise UnknownVideoError(
            f"no video {video_id!r:.80} is on record here: check the ID, and --tenant if it is a tenant's, or `veriframe submit` it"
        )
    body = job_body(job)
    if as_json:
        sys.stdout.write(json.dumps(body) + "\n")
    else:
        make_console().print(verdict_table([VerdictBody.model_validate(body)]))


@app.command()
def migrate(
    to: Annotated[
        str | None, typer.Option(help="Take the tables back to this revision, before an older image runs", show_default=False)
    ] = None,
) -> None:
    """Bring the ledger's tables to this build's schema."""
    from .ledger import Ledger
    from .ledger import migrate as revisions

    settings = _settings("migrate", log_level="error")
    ledger = Ledger.open(settings.resolved_ledger_url)
    if to is not None:
        revisions.downgrade(ledger.engine, revision=to)
    make_console().print(f"the ledger has schema {revisions.current(ledger.engine)}")
    ledger.close()


@app.command("dead-letters")
def dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    code: Annotated[str | None, typer.Option(help="Only this code")] = None,
) -> None:
    """Print the newest dead letters as JSON lines."""
    from .ledger import Ledger

    settings = _settings("dead-letters", log_level="error")
    ledger = Ledger.open(settings.resolved_ledger_url, create=False)
    for letter in ledger.list_dead_letters(limit=limit, code=code):
        sys.stdout.write(json.dumps(letter) + "\n")
    ledger.close()


@app.command()
def requeue(job_id: Annotated[str, typer.Argument(help="Ledger ID of a FAILED or POISONED job", show_default=False)]) -> None:
    """Give a dead video another life: a new job for the same request; the old one stays on record."""
    from .door_commands import operator
    from .ledger import Ledger

    settings = _settings("requeue", log_level="error")
    ledger = Ledger.open(settings.resolved_ledger_url, create=False)
    try:
        outcome = ledger.resubmit(job_id)
        ledger.audit(actor=operator(), action="requeued", target=job_id, detail={"new_job": outcome.ledger_id})
    finally:
        ledger.close()
    make_console().print(f"new job {outcome.ledger_id}; the janitor sends it")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Watch real videos go through the real system."""
    from .demo import demo_command

    typer.main.get_command(_command_app(demo_command))(args=context.args, prog_name="veriframe demo")


def _command_app(command: Any) -> typer.Typer:
    single = typer.Typer(add_completion=False)
    single.command()(command)
    return single


def main() -> None:
    """Entry point: our errors become one sentence and an exit status, never a trace."""
    try:
        app()
    except (WorkerError, DetectCoreError) as err:
        _refuse(err)
        sys.exit(EXIT_REFUSED)
    finally:
        stop_tracing()
