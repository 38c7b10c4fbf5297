"""`veriframe demo`: real videos through the real system on this machine, and a table at the end.

Broker, ledger, ingest, janitor and a worker process are those of `veriframe up`; the IDs go onto the public queue by
`send_task`, as a platform would push them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from celery import Celery
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from detect_core.calibration import DEFAULT_SET, load_bundle_set

from .app import celery_url
from .demo_clips import DemoClip, make_demo_clips
from .errors import MediaGoneError
from .ledger import Ledger
from .logs import configure_logs
from .messages import JobFacts, VerdictBody, pending_body
from .scan import files_of, table_cells, verdict_table
from .settings import Settings, load_settings
from .terminal import make_console, using_path
from .up import System, apart, start_system
from .web.app import job_body

_WAIT_SECONDS: Final = 600.0


def demo_command(
    video: Annotated[Path | None, typer.Argument(help="Your own video, or a folder of them", show_default=False)] = None,
    keep: Annotated[bool, typer.Option(help="Keep the demo's broker and ledger for a look")] = False,
) -> None:
    """Run the demo; exits 0 when every video got its outcome."""
    console = make_console()
    state = Path(tempfile.mkdtemp(prefix="veriframe-demo-"))
    evidence = Path.cwd() / "reports" / "demo"
    try:
        clips = _own_clips(video) if video is not None else _made_clips(state / "clips", console)
        settings = apart(
            load_settings(
                state_dir=state / "system",
                media_roots=tuple({clip.path.parent.resolve() for clip in clips}),
                evidence_thumbnails=True,
                log_level="error",
            )
        )
        configure_logs(level="error", component="demo")
        # a worker that cannot load its bundles would leave the demo waiting; say so at once instead
        load_bundle_set(settings.bundle_set or DEFAULT_SET)
        bodies = _run(clips, settings, console)
        with using_path(evidence, doing="write the verdicts into"):
            _write_evidence(bodies, evidence)
    finally:
        if not keep:
            shutil.rmtree(state, ignore_errors=True)
    console.print(verdict_table(bodies))
    shown = Text(str(evidence.relative_to(Path.cwd())), style="bold")
    console.print(Text("Verdicts as JSON, and small pictures of the worst moments: ").append(shown))
    if any(body.state not in ("complete", "failed") for body in bodies):
        console.print("Not every video got its outcome in time.", style="red")
        sys.exit(1)


def _made_clips(folder: Path, console: Console) -> list[DemoClip]:
    console.print("Making four clips from a public-domain portrait ...")
    clips = make_demo_clips(folder)
    for clip in clips:
        console.print(f"  {clip.video_id:18} {clip.what}", highlight=False)
    return clips


def _own_clips(video: Path) -> list[DemoClip]:
    """The user's file, or the videos of a folder, under IDs made from their names and content.

    Raises:
        MediaGoneError: there is no such file, or the folder holds no video.
    """
    paths = files_of([video])
    if not paths or not all(path.is_file() for path in paths):
        raise MediaGoneError(f"tried to screen {video}: found no video there; give a video file or a folder with some")
    clips = []
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)[:80].strip("-") or "video"
        clips.append(DemoClip(f"{stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]}", path.resolve(), path.name))
    return clips


def _run(clips: Sequence[DemoClip], settings: Settings, console: Console) -> list[VerdictBody]:
    console.print("Starting broker, ledger, ingest, janitor and a worker ...")
    with start_system(settings, worker_log=settings.state_dir.parent / "worker.log") as system:
        producer = Celery(broker=celery_url(system.broker_url))
        producer.conf.update(task_serializer="json", broker_connection_retry_on_startup=True)
        for clip in clips:
            producer.send_task("veriframe.screen", kwargs={"video_id": clip.video_id, "source": clip.path.as_uri()}, queue="default")
        producer.close()
        console.print(f"{len(clips)} video IDs are on the queue.")
        return _watch([clip.video_id for clip in clips], system, console)


def _watch(video_ids: Sequence[str], system: System, console: Console) -> list[VerdictBody]:
    """Show the jobs until each has its outcome.

    Raises:
        WorkerDiedError: the worker cannot start.
    """
    until = time.monotonic() + _WAIT_SECONDS
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            bodies = [_outcome(video_id, system.control.ledger) for video_id in video_ids]
            live.update(_progress(bodies))
            if all(body.state in ("complete", "failed") for body in bodies) or time.monotonic() > until:
                return bodies
            if not any(body.state in ("complete", "failed") for body in bodies):
                system.require_worker()
            time.sleep(0.25)


def _outcome(video_id: str, ledger: Ledger) -> VerdictBody:
    job = ledger.latest_job(video_id)
    if job is None:
        return pending_body(state="queued", job=JobFacts(video_id=video_id))
    return VerdictBody.model_validate(job_body(job))


def _progress(bodies: Sequence[VerdictBody]) -> Table:
    table = Table(box=None, show_header=False)
    for body in bodies:
        done = body.state in ("complete", "failed")
        table.add_row(body.video_id, table_cells(body)[1] if done else Text(f"{body.state} ...", style="dim"))
    return table


def _write_evidence(bodies: Sequence[VerdictBody], folder: Path) -> None:
    """One folder per video: the verdict, and the worst moments as pictures."""
    shutil.rmtree(folder, ignore_errors=True)
    for body in bodies:
        place = folder / body.video_id
        place.mkdir(parents=True, exist_ok=True)
        document = body.to_json()
        for number, moment in enumerate(document["evidence"], start=1):
            if moment["thumb"]:
                name = f"worst-{number}-at-{moment['t']:.2f}s.jpg"
                (place / name).write_bytes(base64.b64decode(moment["thumb"]))
                moment["thumb"] = name
        (place / "verdict.json").write_text(json.dumps(document, indent=2) + "\n")
