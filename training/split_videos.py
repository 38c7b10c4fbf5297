"""Which videos are trained on: whole people and whole sources are held out, never single clips."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from .errors import DataError

HELD_OUT_SOURCES: Final = frozenset(
    {"hellomeme", "video_retalking", "gipal_pair", "tpsmm", "xportrait", "iplap", "dagan", "wav2lip_gfpgan", "aniportrait"}
)
"""Sources of the development videos that training never sees; other material may use its own set."""
ALIASES: Final[Mapping[str, str]] = {
    "manA2": "manA",
    "womanB (as styletalk happyenglish)": "womanB",
    "HDTF man Radio51": "HDTF man",
}
"""Identities that are one person (as far as eyes can tell)."""
_GENERIC: Final = frozenset({"man", "woman"})

_COLUMNS: Final = ("file", "label", "source", "generator", "identity")


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One video of a manifest."""

    file: str
    label: int
    source: str
    generator: str
    group: str
    """The person."""
    split: str = "test"


def read_video_manifest(root: Path | str) -> tuple[VideoRow, ...]:
    """Read `MANIFEST.tsv` (file, label, source, generator, identity) and assign splits.

    Raises:
        DataError: the manifest or a named file is missing.
    """
    root = Path(root)
    manifest = root / "MANIFEST.tsv"
    if not manifest.is_file():
        raise DataError(f"tried to read videos from {root}: no MANIFEST.tsv there; give the folder that holds it")
    rows = []
    with manifest.open(newline="") as handle:
        reader = csv.DictReader(handle, delimiter="\t")
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"{manifest}: columns {', '.join(missing)} are missing; it needs {', '.join(_COLUMNS)}, separated by tabs")
        for record in reader:
            if not (root / record["file"]).is_file():
                raise DataError(f"{manifest}: {record['file']} is not there; restore the file or take its row out")
            if "#" in record["file"]:  # marks copies and simulated fakes of a video in its scores
                raise DataError(f"{manifest}: the name {record['file']} holds a #, which names copies of a video here; rename the file")
            if record["label"] not in ("real", "fake"):
                raise DataError(f"{manifest}: label of {record['file']} is {record['label']!r}, expected real or fake")
            label = int(record["label"] == "fake")
            # a clip of nobody in particular is tied to nobody else's
            group = person(record["source"], record["identity"]) if record["identity"].strip() else record["file"]
            rows.append(VideoRow(record["file"], label, record["source"], record["generator"] if label else "", group))
    if not rows:
        raise DataError(f"{manifest}: names no video; add a row for each, or give another folder")
    return assign_splits(rows)


def person(source: str, identity: str) -> str:
    """The name that ties clips of one person together across sources."""
    name = identity.split(":", 1)[1] if ":" in identity and identity.split(":", 1)[1].isalpha() else identity
    name = ALIASES.get(name, name)
    return f"{source}:{name}" if name in _GENERIC else name


def assign_splits(rows: Sequence[VideoRow], *, held_out_sources: frozenset[str] = HELD_OUT_SOURCES) -> tuple[VideoRow, ...]:
    """Give every row a split.

    Fakes are always `test`. A real person who appears in a held-out source is `test` everywhere; of the other people
    a fixed hash sends 1 in 8 to `test` and 1 in 6 to `valid`.
    """
    held_out = {row.group for row in rows if row.label or row.source in held_out_sources}
    out = []
    for row in rows:
        draw = int(hashlib.sha256(row.group.encode()).hexdigest()[:8], 16) / 2**32
        split = "test" if row.group in held_out or draw < 1 / 8 else "valid" if draw < 1 / 8 + 1 / 6 else "train"
        out.append(replace(row, split=split))
    return tuple(out)
