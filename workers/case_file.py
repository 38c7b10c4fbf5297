"""A case file: everything on record about one verdict in one zip, with hashes, for an appeal or an auditor.

The same record gives the same bytes. `SHA256SUMS` is readable by `sha256sum -c`; the manifest's own hash over it names the whole
case in one line that can be written on paper.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from .errors import WorkerError
from .ledger import JobRow, Ledger, LogEntry
from .messages import VerdictBody, evidence_body
from .outcome import job_body

SCHEMA: Final = "case/1"
_MANIFEST: Final = "manifest.json"
_SUMS: Final = "SHA256SUMS"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can hold: the same record must give the same bytes."""
_MEMBER_BYTES: Final = 64 * 1024**2


class BrokenCaseError(WorkerError, ValueError):
    """Raised when a case file was changed after it was made, or is none."""

    code = "BROKEN_CASE"


@dataclass(frozen=True, slots=True)
class Case:
    """One verdict and what happened to it."""

    job: JobRow
    history: Sequence[Mapping[str, Any]]
    """The job's events, oldest first."""
    revisions: Sequence[Mapping[str, Any]]
    """Every verdict of the video, oldest first."""
    reviews: Sequence[LogEntry]
    """What people did with those verdicts, oldest first."""


def read_case(ledger: Ledger, job: JobRow) -> Case:
    """Collect a case from the ledger: of the job's own tenant, whoever else has a video of that ID."""
    revisions = ledger.verdicts_of(job.video_id, tenant=job.tenant)
    reviews = [entry for row in revisions for entry in ledger.review_entries(row.seq)]
    return Case(
        job=job,
        history=ledger.history_of(job.ledger_id),
        revisions=[row.body for row in revisions],
        reviews=sorted(reviews, key=lambda entry: entry.seq),
    )


def case_zip(case: Case, *, pictures: Mapping[str, bytes] | None = None) -> bytes:
    """Write a case file.

    Args:
        case: what is on record.
        pictures: heat-maps and the annotated clip by file name; they show faces, so only where somebody asked for them.
    """
    verdict = job_body(case.job)
    files: dict[str, bytes] = {
        "verdict.json": _json(verdict),
        "evidence.json": _json(evidence_body(VerdictBody.model_validate(verdict)).to_json()),
        "history.json": _json([dict(event) for event in case.history]),
        "revisions.json": _json(list(case.revisions)),
        "reviews.json": _json([_review(entry) for entry in case.reviews]),
        **{f"pictures/{name}": payload for name, payload in sorted((pictures or {}).items())},
    }
    manifest = _manifest(files)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, payload in ((_MANIFEST, _json(manifest)), (_SUMS, _sums(files)), *sorted(files.items())):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), payload, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def check_case(file: BinaryIO) -> dict[str, Any]:
    """Check every hash of a case file; gives its manifest, drawn up again from the files that the hashes cover.

    Raises:
        BrokenCaseError: a file is missing, added or changed, or the manifest says other than the files; the message names it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(names) != len(set(names)) or any(info.file_size > _MEMBER_BYTES for info in archive.infolist()):
                raise BrokenCaseError("the case file holds a name twice or a member that is too large: it was not made here")
            claimed = json.loads(archive.read(_MANIFEST))
            sums = archive.read(_SUMS)
            files = {name: archive.read(name) for name in names if name not in (_MANIFEST, _SUMS)}
        hashes = {row["path"]: row["sha256"] for row in claimed["files"]}
        named = claimed["case_sha256"]
        known = claimed["schema"] == SCHEMA
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, NotImplementedError) as err:
        raise BrokenCaseError(f"this is no case file, or it was damaged ({type(err).__name__}): ask for it again") from err
    if not known:
        raise BrokenCaseError(f"the case file has schema {claimed['schema']!r:.40}, this build reads {SCHEMA!r}")
    found = {name: hashlib.sha256(payload).hexdigest() for name, payload in files.items()}
    changed = sorted(name for name in found.keys() | hashes.keys() if found.get(name) != hashes.get(name))
    if changed or _sums(files) != sums or hashlib.sha256(sums).hexdigest() != named:
        raise BrokenCaseError(f"the case file was changed after it was made: {', '.join(changed) or _SUMS} does not fit its hash")
    try:
        manifest = _manifest(files)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BrokenCaseError(f"the case file holds no verdict with a history ({type(err).__name__}): it was not made here") from err
    changed = sorted(name for name, value in manifest.items() if claimed.get(name) != value)
    if changed:
        raise BrokenCaseError(f"the case file was changed after it was made: {', '.join(changed)} in {_MANIFEST} is not what the files say")
    return manifest


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What a case is about, from the files alone: no hash covers the manifest, so that it may say nothing of its own."""
    verdict = json.loads(files["verdict.json"])
    history = json.loads(files["history.json"])
    return {
        "schema": SCHEMA,
        "video_id": verdict["video_id"],
        # a job may have been given the verdict of an earlier one about the same bytes
        "job_id": history[0]["ledger_id"] if history else verdict.get("job_id"),
        **{name: verdict.get(name) for name in ("content_sha256", "bundle_set", "verdict", "revision")},
        "case_sha256": hashlib.sha256(_sums(files)).hexdigest(),
        "files": [
            {"path": name, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()} for name, payload in sorted(files.items())
        ],
    }


def _sums(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(payload).hexdigest()}  {name}\n" for name, payload in sorted(files.items())).encode()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _review(entry: LogEntry) -> dict[str, Any]:
    names = ("seq", "at", "verdict_seq", "actor", "kind", "reading", "decision", "reason", "note", "undoes")
    return {name: getattr(entry, name) for name in names}
