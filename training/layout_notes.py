"""What the summary of a manifest says about how its files were read: who counts as one person, what was not read at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .layouts import FOLDER_PERSON, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Item, Layout, walked

_TEXTS: Final = frozenset({".json", ".csv", ".tsv", ".txt", ".md"})
"""Lists and notes beside the data: nobody expects to see them counted."""
_DFDC_ACTORS: Final = (
    "metadata.json names no people: fakes stay with their original, but one actor may stand in several splits; where that matters, "
    "sort whole dfdc_train_part_* folders into train, valid and test, each with real and fake inside"
)


def notes_on(root: Path, layout: Layout, items: Sequence[Item]) -> list[str]:
    """Sentences for whoever builds or checks the manifest.

    Args:
        root: the folder that the items' files start from.
        layout: as which it was read.
        items: what was read.
    """
    people = _on_people(items) if layout in ("splits", "two_folders") else [_DFDC_ACTORS] if layout == "dfdc" else []
    return [*people, *_on_unread(root, layout, items)]


def _on_people(items: Sequence[Item]) -> list[str]:
    folders = {name for item in items for name in item.identities if name.startswith(FOLDER_PERSON)}
    if folders:
        return [
            f"real files lie in {len(folders)} folders, each is taken as one person, fakes go by file; "
            "if the folders are collections, build with --by-file"
        ]
    return [
        "split by file: nothing says who is shown, so one person may stand in two splits; give each person a folder below real/, "
        "where that is known"
    ]


def _on_unread(root: Path, layout: Layout, items: Sequence[Item]) -> list[str]:
    read = {item.file for item in items}
    outside, unknown = Counter[str](), Counter[str]()
    for path in walked(root):
        inner = path.relative_to(root)
        if inner.as_posix() in read or path.name.startswith(".") or not path.is_file():
            continue
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            outside[f"in {inner.parts[0]}/" if len(inner.parts) > 1 else "beside the folders"] += 1
        elif suffix not in _TEXTS:
            unknown[suffix or "without a suffix"] += 1
    notes = []
    if outside:
        notes.append(f"not read, pictures and videos where layout {layout} has none: {_counted(outside)}")
    if unknown:
        notes.append(f"not read, no known picture or video: {_counted(unknown)}")
    return notes


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
