"""A manifest: one row per picture or video of a data set, and a sealed summary beside it.

Rows have the columns of `index.csv` and three more (kind, sha256, phash). The summary says where the files lie, how
many rows there are and what was left out: a run on a manifest that lost rows, or whose files changed, is refused.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detect_core.faces.detect import FaceDetector

from .errors import DataError
from .face_pack import PACK_MARGIN
from .layout_notes import notes_on
from .layouts import REALS_ONLY, Item, Layout, read_layout, recognise
from .near_duplicates import near_pairs, perceptual_hash
from .pictures import UNREADABLE, read_picture
from .simulators.face_swap import CANONICAL
from .splits import assign
from .video_faces import WIDE, cut_tracks

POINTS: Final = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
COLUMNS: Final = (
    "file", "source", "label", "generator", "group", "split", "face_px_original", "x1", "y1", "x2", "y2",
    *(f"{point}_{axis}" for point in POINTS for axis in "xy"), "kind", "sha256", "phash",
)  # fmt: skip
_MIN_FACE_PX: Final = 24


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a manifest is built."""

    layout: Layout | None = None
    """Recognised by its folders when None."""
    whole: bool = False
    """Pictures are aligned face crops already: no face is looked for."""
    resplit: bool = False
    """Forget the splits that the data set gives."""
    by_file: bool = False
    """Folders below `real` are collections, not people: nothing ties files but near-duplicates."""
    drop_unusable: bool = False
    """Leave out files that are broken or show no face, and say so, instead of refusing."""
    drop_leaks: bool = False
    seed: int = 0
    num_frames: int = 16
    """Faces taken from each video."""


def build_manifest(
    root: Path, out: Path, *, options: BuildOptions, detector: FaceDetector | None, say: Callable[[str], None] = lambda _line: None
) -> dict[str, Any]:
    """Read a data set, look at every file, split it and write `out` and its summary; returns the summary.

    Raises:
        DataError: nothing usable, a class missing, or unusable files without `drop_unusable`; names the first ones.
        LeakError: given splits leak.
    """
    layout = options.layout or recognise(root)
    base, items = read_layout(root, layout)
    say(f"{len(items)} files in layout {layout}")
    if options.resplit:
        items = [replace(item, split="") for item in items]
    if options.by_file and layout in ("splits", "two_folders"):
        items = [replace(item, identities=(item.file,)) for item in items]
    notes = notes_on(base, layout, items)
    for note in notes:  # told before anything is refused: a note may be the reason
        say(note)
    looked = [_look(base, item, options, detector, say) for item in items]
    bad = [(item.file, found) for item, found in zip(items, looked, strict=True) if isinstance(found, str)]
    if bad and not options.drop_unusable:
        first = "; ".join(f"{base / file}: {why}" for file, why in bad[:3])
        raise DataError(f"{len(bad)} of {len(items)} files cannot be used ({first}); repair them, or build with --drop-unusable")
    pairs = [(item, found) for item, found in zip(items, looked, strict=True) if not isinstance(found, str)]
    if not pairs:
        raise DataError(f"{base}: no file can be used, first {bad[0][0]}: {bad[0][1]}")
    near = near_in([found for _, found in pairs])
    labels = (0,) if layout == REALS_ONLY else (0, 1)
    placed = assign([item for item, _ in pairs], near, seed=options.seed, drop_leaks=options.drop_leaks, labels=labels)
    if placed.filled:
        notes.append(f"{placed.filled} files lie outside the splits that the data set gives and were placed beside them")
        say(notes[-1])
    found_of = {item.file: found for item, found in pairs}
    rows = [_row(item, group, found_of[item.file]) for item, group in zip(placed.items, placed.groups, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    counts = Counter(f"{row['split']} {row['label']}" for row in rows)
    summary = {
        "schema": "manifest/1",
        "root": str(base.resolve()),
        "layout": layout,
        "num_frames": options.num_frames,
        "rows": len(rows),
        "counts": dict(sorted(counts.items())),
        "near_duplicates": len(near),
        "notes": notes,
        "left_out": [{"file": file, "why": why} for file, why in (*bad, *placed.unused)],
        "sha256": _file_hash(out),
    }
    summary_path(out).write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def read_summary(manifest: Path) -> dict[str, Any]:
    """The summary of a manifest, after checking that the manifest is as it was written.

    Raises:
        DataError: one of the two is missing, or rows were taken out or changed.
    """
    path = summary_path(manifest)
    if not manifest.is_file() or not path.is_file():
        raise DataError(f"tried to read the manifest {manifest} and {path.name}: both must be there; build it with `manifest build`")
    summary: dict[str, Any] = json.loads(path.read_text())
    if summary.get("schema") != "manifest/1":
        raise DataError(f"{path}: schema is {summary.get('schema')!r}, expected manifest/1; build the manifest again")
    if _file_hash(manifest) != summary["sha256"]:
        with manifest.open(newline="") as handle:
            rows = sum(1 for _ in csv.DictReader(handle))
        raise DataError(
            f"{manifest}: was changed after it was built ({summary['rows']} rows then, {rows} now); build it again, so that a run never "
            "goes on with less data than it says"
        )
    return summary


def summary_path(manifest: Path) -> Path:
    """`data.csv` -> `data.summary.json`."""
    return manifest.with_suffix(".summary.json")


def _look(base: Path, item: Item, options: BuildOptions, detector: FaceDetector | None, say: Callable[[str], None]) -> dict[str, Any] | str:
    """Box, points and hashes of a file, or why it cannot be used."""
    path = base / item.file
    if not path.is_file():
        return "a link that leads nowhere"
    found: dict[str, Any] = {"sha256": _file_hash(path), "phash": "", "face_px_original": 0}
    if item.kind == "video":
        if detector is None:
            return found
        from detect_core.options import ScreeningOptions

        try:
            tracks = cut_tracks(path, {"wide": WIDE}, detector=detector, options=ScreeningOptions(num_frames=options.num_frames))
        except DataError as err:
            return str(err)
        say(f"looked at {item.file}")
        return found if tracks else "no face that can be followed was found"
    pixels = read_picture(path)
    if pixels is None:
        return UNREADABLE
    found["phash"] = f"{perceptual_hash(pixels):016x}"
    place = _whole_picture(pixels) if options.whole or detector is None else _largest_face(pixels, detector)
    return "no face was found" if place is None else {**found, **place}


def _largest_face(image: NDArray[np.uint8], detector: FaceDetector) -> dict[str, Any] | None:
    faces = detector.find([image], min_face_px=min(_MIN_FACE_PX, min(image.shape[:2]) / 4))[0]
    if not faces:
        return None
    face = max(faces, key=lambda f: float(f.xyxy[2] - f.xyxy[0]))
    return _place(face.xyxy, face.landmarks)


def _whole_picture(image: NDArray[np.uint8]) -> dict[str, Any]:
    """An aligned crop: the box is chosen so that the packed crop is the picture itself."""
    height, width = image.shape[:2]
    side = max(height, width)
    half = side / PACK_MARGIN / 2
    box = np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half], np.float32)
    corner = np.array([width / 2 - side / 2, height / 2 - side / 2], np.float32)
    points = (CANONICAL.numpy() - 0.5) * 0.7 + 0.5
    return _place(box, points * side + corner)


def _place(xyxy: NDArray[np.float32], points: NDArray[np.float32]) -> dict[str, Any]:
    out: dict[str, Any] = {name: round(float(value), 1) for name, value in zip(("x1", "y1", "x2", "y2"), xyxy, strict=True)}
    out["face_px_original"] = round(float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])), 1)
    for name, (x, y) in zip(POINTS, points, strict=True):
        out |= {f"{name}_x": round(float(x), 1), f"{name}_y": round(float(y), 1)}
    return out


def _row(item: Item, group: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "file": item.file,
        "source": item.source,
        "label": "fake" if item.label else "real",
        "generator": item.generator,
        "group": group,
        "split": item.split,
        "kind": item.kind,
        **found,
    }


def near_in(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Index pairs of near-duplicate pictures and of equal files, by the columns `phash` and `sha256`."""
    hashed = [i for i, row in enumerate(rows) if row["phash"]]
    near = [(hashed[i], hashed[j]) for i, j in near_pairs([int(rows[i]["phash"], 16) for i in hashed])]
    return near + _equal_files([row["sha256"] for row in rows])


def _equal_files(hashes: Sequence[str]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    pairs = []
    for i, value in enumerate(hashes):
        if first.setdefault(value, i) != i:
            pairs.append((first[value], i))
    return pairs


def _file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
