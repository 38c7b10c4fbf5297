"""What the summary of a manifest says about how its files were read: who counts as one person, what was not read at all."""

from __future__ import annotations

from collections.abc import Sequence

from .layouts import FOLDER_PERSON, Item, Layout


def notes_on(layout: Layout, items: Sequence[Item]) -> list[str]:
    """Sentences for whoever builds or checks the manifest."""
    return _on_people(items) if layout in ("splits", "two_folders") else []


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
