"""The only way in which swapped faces leave the program: small marked crops in a folder of labelled training data.

Every crop carries a visible mark in its corner, a random name and the label fake; the list beside them is the
`index.csv` that `--faces` reads, where the mark is covered before anything learns (see `corner_mark`). Names and order say nothing about the pictures or times they came from.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import torch
from torch import Tensor

from .corner_mark import is_marked, mark_corner
from .errors import DataError
from .face_pack import FaceRow
from .simulators.base import Fakes

POINTS: Final = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
MAX_SIDE_PX: Final = 256
NOTICE: Final = "Generated faces for training a detector of such faces. Not pictures of real events; not for publication."


@dataclass(frozen=True, slots=True)
class Written:
    """What lies in the folder."""

    count: int
    marked: int
    folder: Path


def write_training_fakes(
    folder: Path, batches: Sequence[tuple[Fakes, Sequence[FaceRow], Tensor]], *, generator_name: str, salt: str, settings: dict[str, Any]
) -> Written:
    """Write fakes as labelled training data.

    Args:
        folder: gets `index.csv`, `NOTICE.txt`, `made_by.json` and the crops; must be empty or missing.
        batches: fakes, the rows of the reals behind them and their landmarks (B, 5, 2) in units of the side.
        generator_name: goes into the manifest.
        salt: makes the names; the same run writes the same names.
        settings: recorded.

    Raises:
        DataError: the folder holds something else, nothing is to be written, or a real is not of the training split.
    """
    if not batches:
        raise DataError("no fake passed the checks, nothing to write; train longer or on more faces")
    if folder.exists() and not (folder / "made_by.json").is_file() and any(folder.iterdir()):
        raise DataError(f"{folder}: holds something else; training fakes get a folder of their own")
    if any(row.split != "train" or row.label for _, rows, _ in batches for row in rows):
        raise DataError("training fakes are made from reals of the training split only; a fake of a held-out person would leak it")
    (folder / "fake").mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for fakes, rows, landmarks in batches:
        if fakes.images.shape[-1] > MAX_SIDE_PX:
            raise DataError(f"training fakes are at most {MAX_SIDE_PX} px, got {fakes.images.shape[-1]}; lower the size")
        pixels = (fakes.images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        for image, row, points in zip(pixels, rows, landmarks, strict=True):
            name = hashlib.sha256(f"{salt} {len(records)} {row.group}".encode()).hexdigest()[:20]
            marked = mark_corner(image)
            if not is_marked(marked):
                raise DataError(f"{name}: the corner mark did not take; nothing unmarked is written")
            cv2.imwrite(str(folder / "fake" / f"{name}.png"), cv2.cvtColor(marked, cv2.COLOR_RGB2BGR))
            records.append(_record(f"fake/{name}.png", row, points, image.shape[0], generator_name))
    records.sort(key=lambda record: str(record["file"]))
    with (folder / "index.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    (folder / "NOTICE.txt").write_text(NOTICE + "\n")
    (folder / "made_by.json").write_text(json.dumps({"generator": generator_name, "count": len(records), **settings}, indent=2) + "\n")
    return Written(len(records), len(records), folder)


def _record(file: str, row: FaceRow, points: Tensor, side: int, generator_name: str) -> dict[str, Any]:
    inner = side / 1.6
    low, high = (side - inner) / 2, (side + inner) / 2
    record: dict[str, Any] = {"file": file, "source": row.source, "label": "fake", "generator": generator_name, "group": row.group}
    record |= {"split": "train", "face_px_original": round(row.face_px, 1)}
    record |= {"x1": round(low, 1), "y1": round(low, 1), "x2": round(high, 1), "y2": round(high, 1)}
    for name, (x, y) in zip(POINTS, (points * side).tolist(), strict=True):
        record |= {f"{name}_x": round(x, 1), f"{name}_y": round(y, 1)}
    return record
