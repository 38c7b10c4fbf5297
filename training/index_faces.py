"""Read a folder of face crops with an `index.csv` (file, source, label, generator, group, split, box, landmarks)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .corner_mark import mark_reach
from .errors import DataError, LeakError
from .face_pack import FacePack, FaceRow, build_pack, cut_square
from .pictures import UNREADABLE, read_picture

_POINTS: Final = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
HAND_MADE: Final = frozenset({"ciplab"})
"""Sources whose fakes no net made."""
_NEEDED: Final = ("file", "source", "label", "generator", "group", "split", "face_px_original", "x1", "y1", "x2", "y2")


def read_faces(root: Path | str, *, keep: Callable[[FaceRow], bool] = lambda _row: True) -> FacePack:
    """Cut every indexed crop that `keep` accepts.

    Raises:
        DataError: the index or an image is missing or unreadable; the message names the file.
        LeakError: a group stands in two splits.
    """
    return read_rows(Path(root), _records(Path(root)), origin=Path(root) / "index.csv", keep=keep)


def _records(root: Path) -> list[dict[str, str]]:
    index = root / "index.csv"
    if not index.is_file():
        raise DataError(f"tried to read face crops from {root}: no index.csv there; give the folder that holds it")
    with index.open(newline="") as handle:
        reader = csv.DictReader(handle)
        missing = [name for name in _NEEDED if name not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"{index}: columns {', '.join(missing)} are missing; build the index again")
        return list(reader)


def both_labels_in_test(root: Path | str, *, hand_made: bool = False) -> tuple[str, ...]:
    """Sources of an indexed folder with real and fake test faces: fakes are compared with reals of their own kind alone.

    Args:
        root: the folder.
        hand_made: also those whose fakes no net made.

    Raises:
        DataError: the index is missing or malformed.
    """
    labels: dict[str, set[str]] = {}
    for record in _records(Path(root)):
        if record["split"] == "test" and (hand_made or record["source"] not in HAND_MADE):
            labels.setdefault(record["source"], set()).add(record["label"])
    return tuple(sorted(source for source, found in labels.items() if {"real", "fake"} <= found))


def read_rows(
    root: Path, records: Sequence[Mapping[str, str]], *, origin: Path, keep: Callable[[FaceRow], bool] = lambda _row: True
) -> FacePack:
    """Cut the crops of rows that were read from `origin`.

    Raises:
        DataError: an image is missing or unreadable; the message names the file.
        LeakError: a group stands in two splits.
    """
    crops, landmarks, rows = [], [], []
    reach = 0.0
    split_of_group: dict[str, str] = {}
    for record in records:
        row, box, points = _parsed(record, origin)
        if split_of_group.setdefault(row.group, row.split) != row.split:
            raise LeakError(f"{origin}: group {row.group} stands in {split_of_group[row.group]} and {row.split}; keep a group together")
        if not keep(row):
            continue
        image = read_picture(root / row.file)
        if image is None:
            raise DataError(f"{root / row.file}: {UNREADABLE}; restore the file or take its row out of {origin.name}")
        crop, points = cut_square(image, box, points)
        reach = max(reach, mark_reach(image, box))
        crops.append(crop)
        landmarks.append(points)
        rows.append(row)
    if not rows:
        raise DataError(
            f"{origin}: names no face that this run can use ({len(records)} rows); give a folder with faces, or build the index again"
        )
    return replace(build_pack(crops, landmarks, rows), mark_reach=reach)


def _parsed(record: Mapping[str, str], origin: Path) -> tuple[FaceRow, NDArray[np.float32], NDArray[np.float32]]:
    """The row, its box (4,) and its landmarks (5, 2) in pixels."""
    try:
        row = FaceRow(
            file=record["file"],
            source=record["source"],
            label={"real": 0, "fake": 1}.get(record["label"], -1),
            generator=record["generator"],
            group=record["group"],
            split=record["split"],
            kind="still",
            face_px=float(record["face_px_original"]),
        )
        points = np.array([[record[f"{p}_x"], record[f"{p}_y"]] for p in _POINTS], np.float32)
        box = np.array([record[k] for k in ("x1", "y1", "x2", "y2")], np.float32)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(f"{origin}: the row of {record.get('file')!r} cannot be read ({err}); build the index again") from err
    return row, box, points
