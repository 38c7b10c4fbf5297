"""`veriframe scan`: files in, verdicts out, offline, on the same code path as the cluster."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import structlog
from rich import box
from rich.table import Table
from rich.text import Text

from detect_core.errors import DetectCoreError
from detect_core.structs import VERDICT_SENTENCES

from .errors import MediaGoneError, WorkerError
from .messages import JobFacts, VerdictBody, failure_body, verdict_body
from .retry import Action, decide
from .screening import Screener
from .terminal import make_console

log = structlog.get_logger(__name__)
EXIT_FAILED: Final = 3
VIDEO_SUFFIXES: Final = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".flv", ".ts", ".3gp", ".mpg", ".mpeg", ".gif"}
"""Names that count as videos in a folder; a file that is named itself is judged whatever its name."""
_STYLE: Final = {"authentic": "green", "suspicious": "yellow", "manipulated": "bold red", "inconclusive": "cyan"}
_UNSEEN: Final = {"MULTIPLE_VIDEO_STREAMS": "Its other video streams were not judged."}
"""Warnings without which a verdict would promise too much."""


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the videos in them and below, by name."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        else:
            found.append(path)
    return found


def scan_files(paths: Iterable[Path], *, screener: Screener) -> Iterator[VerdictBody]:
    """Judge files one after the other; a file that cannot be judged gives a `failed` body and the next one goes on."""
    for path in paths:
        yield _scan_one(path, screener=screener)


def _scan_one(path: Path, *, screener: Screener) -> VerdictBody:
    name, digest, retries = name_of(path), None, 0
    while True:
        started = time.monotonic()
        try:
            with _opened(path) as file:
                digest = _sha256(file)
                verdict = screener.screen(file, cancel=threading.Event())
            timing = {"queue": 0, "fetch": 0, "total": round((time.monotonic() - started) * 1000)}
            return verdict_body(verdict, job=JobFacts(video_id=name, content_sha256=digest, timing_ms=timing))
        except (DetectCoreError, WorkerError, MemoryError, OSError, ValueError) as err:
            decision = decide(err, retries=retries)
            if decision.action is Action.RETRY and retries == 0:  # nobody waits minutes for one file
                retries += 1
                continue
            message = decision.message.encode(errors="backslashreplace").decode()  # the system's words may quote the file's name
            facts = JobFacts(video_id=name, content_sha256=digest)
            return failure_body(code=decision.code, message=message, retryable=decision.retryable, job=facts)


def name_of(path: Path) -> str:
    r"""The path as it was given or found, with `\xe9` for a byte that is no UTF-8: JSON holds characters, and a name may be any bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as err:
        raise MediaGoneError(f"cannot read {name_of(path)} ({err.strerror}): check the path") from err


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest


def verdict_table(bodies: Iterable[VerdictBody]) -> Table:
    """The verdicts as a table for people."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("video", overflow="fold", max_width=24)
    table.add_column("verdict", overflow="fold", max_width=20)
    table.add_column("p(fake)", justify="right", no_wrap=True, min_width=7)
    table.add_column("why", overflow="fold", ratio=1)
    table.add_column("faces", justify="right", no_wrap=True, min_width=5)
    table.add_column("seconds", justify="right", no_wrap=True, min_width=7)
    for body in bodies:
        table.add_row(*table_cells(body))
    return table


def table_cells(body: VerdictBody) -> tuple[str, str | Text, str, str, str, str]:
    """One row: video, verdict, p(fake), why, faces, seconds."""
    seconds = f"{body.timing_ms['total'] / 1000:.1f}" if "total" in body.timing_ms else "-"
    if body.error is not None:
        return body.video_id, Text(f"failed: {body.error.code}", style="red"), "-", body.error.message, "-", seconds
    if body.verdict is None:
        return body.video_id, body.state, "-", "-", "-", "-"
    p_fake = body.score.p_fake if body.score is not None else None
    words = Text(VERDICT_SENTENCES[body.verdict], style=_STYLE[body.verdict])
    unseen = [sentence for warning, sentence in _UNSEEN.items() if warning in body.warnings]
    why = " ".join([body.sentence or ", ".join(body.reason_codes), *unseen])
    return body.video_id, words, "-" if p_fake is None else f"{p_fake:.2f}", why, str(len(body.tracks)), seconds


def run_scan(paths: list[Path], *, as_json: bool, load: Callable[[], Screener]) -> int:
    """The command: 0 when every file was judged or inconclusive, 3 when some failed."""
    screener = load()
    failed = False
    shown: list[VerdictBody] = []
    try:
        for body in scan_files(paths, screener=screener):
            failed |= body.state == "failed"
            if as_json:
                sys.stdout.write(body.model_dump_json(by_alias=True) + "\n")
                sys.stdout.flush()
            shown.append(body)
    finally:
        screener.close()
    if not as_json:
        make_console().print(verdict_table(_shortened(shown)))
    return EXIT_FAILED if failed else 0


def _shortened(bodies: list[VerdictBody]) -> list[VerdictBody]:
    """The same, named from the last folder that holds them all: a table has little room."""
    if not bodies:
        return []
    paths = [Path(body.video_id).absolute() for body in bodies]
    folder = os.path.commonpath([path.parent for path in paths])
    return [body.model_copy(update={"video_id": str(path.relative_to(folder))}) for body, path in zip(bodies, paths, strict=True)]
