"""From a manifest, or straight from a folder, to faces in memory."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .corner_mark import covered
from .errors import DataError
from .face_pack import FacePack, concatenate
from .index_faces import read_rows
from .layouts import walked
from .manifest import BuildOptions, build_manifest, read_summary
from .material import Material, _load_pack, _save_pack, check_splits, load_material
from .split_videos import VideoRow
from .video_faces import read_videos

if TYPE_CHECKING:
    from detect_core.faces.detect import FaceDetector

Say = Callable[[str], None]
_SPLITTING: Final = "3"
"""Part of the name of a manifest in the cache: raise it when the splits or groups of a folder change."""


def gather(*, faces: Path | None, videos: Path | None, data: Path | None, cache: Path | None, say: Say) -> Material:
    """Everything that a run was given, as one material.

    Raises:
        DataError: nothing was given, or something cannot be read.
        LeakError: a group stands in two splits.
    """
    if data is None:
        return load_material(faces_root=faces, videos_root=videos, cache_dir=cache, on_progress=say)
    manifest = manifest_of(data, cache or Path("runs/cache"), say)
    pack = read_manifest(manifest, cache_dir=cache, say=say)
    mine = Material(covered(pack), f"{len(pack)} faces of {data.name}")
    if faces is None and videos is None:
        return mine
    rest = load_material(faces_root=faces, videos_root=videos, cache_dir=cache, on_progress=say)
    root = Path(read_summary(manifest)["root"])
    if root not in [path.resolve() for path in (faces, videos) if path is not None]:
        pack = _named_after(root, pack)
    joined = covered(concatenate([rest.faces, pack]))  # a mark on one side is covered on both
    check_splits(joined.rows)
    return replace(rest, faces=joined, description=f"{rest.description}, {mine.description}")


def manifest_of(data: Path, cache: Path, say: Say) -> Path:
    """A manifest file as it is; of a folder the manifest in the cache, built now if need be."""
    if data.is_file():
        return data
    if not data.is_dir():
        raise DataError(f"tried to read {data}: no such file or folder; give a manifest or the folder of a data set")
    listing = "\n".join(_named(data, path) for path in walked(data) if path.is_file())
    out = cache / f"manifest-{hashlib.sha256(f'{_SPLITTING} {data.resolve()} {listing}'.encode()).hexdigest()[:16]}.csv"
    if not out.is_file():
        summary = build_manifest(data, out, options=BuildOptions(), detector=new_detector(), say=say)
        say(f"{summary['rows']} rows: {summary['counts']}; manifest {out}")
    return out


def _named_after(root: Path, pack: FacePack) -> FacePack:
    """Files, and groups that are called like a file, under the name of their data set too: another may have files of these names.

    Groups that are called like people stay: who stands in both data sets must not stand in two splits.
    """
    files = {row.file.rpartition("@")[0] if row.kind == "video" else row.file for row in pack.rows}

    def of_set(name: str) -> str:
        return f"{root.name}:{name}"

    rows = [replace(row, file=of_set(row.file), group=of_set(row.group) if row.group in files else row.group) for row in pack.rows]
    return replace(pack, rows=tuple(rows))


def _named(data: Path, path: Path) -> str:
    """What tells a changed file: of labels and splits the content, of the many large ones size and time of change."""
    if path.suffix.lower() == ".json":
        return f"{path.relative_to(data)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    facts = path.stat()
    return f"{path.relative_to(data)} {facts.st_size} {facts.st_mtime_ns}"


def read_manifest(
    manifest: Path, *, cache_dir: Path | None = None, detector: FaceDetector | None = None, say: Say = lambda _line: None
) -> FacePack:
    """All faces of a manifest; videos are decoded once per cache folder.

    Raises:
        DataError: a file is missing, changed or unusable; the message names it.
    """
    summary = read_summary(manifest)
    root = Path(summary["root"])
    if not root.is_dir():
        raise DataError(f"{manifest}: its files lay in {root}, which is not there; mount it again or build the manifest anew")
    cached = cache_dir / f"manifest-{summary['sha256'][:16]}-{summary['num_frames']}-2.safetensors" if cache_dir is not None else None
    with manifest.open(newline="") as handle:
        records = list(csv.DictReader(handle))
    stills, videos = ([r for r in records if (r["kind"] == "video") is wanted] for wanted in (False, True))
    packs = []
    if stills:
        _same_files(root, stills, manifest)
        packs.append(read_rows(root, stills, origin=manifest))
    if videos:
        _same_files(root, videos, manifest)  # also where their crops are kept already
        if cached is not None and cached.is_file():
            packs.append(_load_pack(cached))
        else:
            packs.append(_cut_videos(root, videos, summary["num_frames"], detector or new_detector(), say))
            if cached is not None:
                cached.parent.mkdir(parents=True, exist_ok=True)
                _save_pack(packs[-1], cached)
    pack = concatenate(packs)
    check_splits(pack.rows)
    return pack


def new_detector() -> FaceDetector:
    """The face detector of screening."""
    from detect_core.faces.detect import MtcnnFaceDetector

    return MtcnnFaceDetector()


def _cut_videos(root: Path, records: list[dict[str, Any]], num_frames: int, detector: FaceDetector, say: Say) -> FacePack:
    rows = [VideoRow(r["file"], int(r["label"] == "fake"), r["source"], r["generator"], r["group"], r["split"]) for r in records]
    faceless: list[str] = []

    def seen(file: str, crops: int) -> None:
        say(f"{file}: {crops} faces")
        if not crops:
            faceless.append(file)

    pack = read_videos(root, rows, detector=detector, num_frames=num_frames, on_video=seen)
    if faceless:
        raise DataError(
            f"{len(faceless)} of {len(rows)} videos show no face that can be followed, first {root / faceless[0]}; "
            "build the manifest again with --drop-unusable, so that the run knows what it works on"
        )
    return pack


def _same_files(root: Path, records: list[dict[str, Any]], manifest: Path) -> None:
    remedy = f"restore the file or build the manifest {manifest} again"  # named, for it may lie in the cache
    for record in records:
        path = root / record["file"]
        if not path.is_file():
            raise DataError(f"{path}: is in the manifest and not on disk; {remedy}")
        with path.open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != record["sha256"]:
                raise DataError(f"{path}: was changed after the manifest was built; {remedy}")
