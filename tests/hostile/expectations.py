"""Read a manifest of hostile files: what each of them may end in. A row that cannot be understood is refused."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

CODES = frozenset(
    [
        "EMPTY_INPUT",
        "NOT_MEDIA",
        "FORMAT_NOT_ALLOWED",
        "CORRUPT_CONTAINER",
        "NO_VIDEO_STREAM",
        "IMAGE_ONLY",
        "UNSUPPORTED_CODEC",
        "ENCRYPTED_MEDIA",
        "TOO_MANY_STREAMS",
        "RESOLUTION_TOO_LARGE",
        "RESOLUTION_TOO_SMALL",
        "DURATION_TOO_LONG",
        "FILE_TOO_LARGE",
        "DECODE_ERROR",
    ]
)
WARNINGS = frozenset(
    [
        "PARTIAL_DECODE",
        "UNSEEN_STRETCH",
        "DECODE_ERRORS",
        "MULTIPLE_VIDEO_STREAMS",
        "HDR",
        "VFR",
        "ROTATED",
        "NON_SQUARE_PIXELS",
        "PICTURE_CHANGES",
        "DURATION_MISMATCH",
    ]
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What one file may end in."""

    file: str
    outcomes: frozenset[str]
    """`verdict` or error codes."""
    warnings: frozenset[str]
    """Warnings that a verdict must carry."""
    upright: bool


def read_manifest(path: Path) -> list[Expected]:
    """All rows of a MANIFEST.tsv.

    Raises:
        ValueError: a row names no outcome.
    """
    with path.open(newline="") as file:
        return [_expected(row["file"], row["expected"]) for row in csv.DictReader(file, delimiter="\t")]


def _expected(file: str, text: str) -> Expected:
    words = set(re.findall(r"[A-Z_]{4,}", text))
    outcomes = words & CODES
    if re.search(r"\bverdict\b", re.sub(r"never a verdict", "", text)) or "NO_FACE" in words:
        outcomes |= {"verdict"}
    if "TRUNCATED" in words:
        # a cut-off file without its index: the code is CORRUPT_CONTAINER, TRUNCATED is its detail
        outcomes |= {"CORRUPT_CONTAINER"}
    if not outcomes:
        raise ValueError(f"{file}: no outcome can be read out of {text!r}")
    return Expected(file=file, outcomes=frozenset(outcomes), warnings=frozenset(words & WARNINGS), upright="upright" in text)
