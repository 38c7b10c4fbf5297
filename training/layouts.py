"""The folder layouts that published data sets come in, read into items: file, label, generator, identities, split."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .errors import DataError

Layout = Literal["splits", "two_folders", "ffpp", "celebdf", "dfdc", "pictures"]
REALS_ONLY: Final[Layout] = "pictures"
"""Any pictures, all of them real, for recipes that need no fakes; never recognised, always asked for."""
IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
SPLIT_NAMES: Final = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
LABEL_NAMES: Final = {
    "real": 0, "0_real": 0, "reals": 0, "original": 0, "originals": 0, "authentic": 0, "training_real": 0, "pristine": 0,
    "fake": 1, "1_fake": 1, "fakes": 1, "manipulated": 1, "generated": 1, "synthetic": 1, "training_fake": 1, "deepfake": 1,
}  # fmt: skip
"""Folder names that say what is inside, in lower case. Alphabetical order says nothing: it once made fake 0 and real 1."""


FOLDER_PERSON: Final = "person:"
"""In front of an identity that is the name of a folder."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture or video of a data set."""

    file: str
    """Path below the root, with forward slashes."""
    label: int
    source: str
    generator: str
    """Empty for real ones."""
    identities: tuple[str, ...]
    """Whoever or whatever must stay on one side of a split: people, or the video that all its fakes were made from."""
    split: str = ""
    """Given by the data set, or empty."""

    @property
    def kind(self) -> Literal["still", "video"]:
        """By the file's suffix."""
        return "video" if Path(self.file).suffix.lower() in VIDEO_SUFFIXES else "still"


def recognise(root: Path) -> Layout:
    """The layout of a folder, by what only that layout has.

    Raises:
        DataError: the folder is missing or empty, or no layout fits.
    """
    if not root.is_dir():
        raise DataError(f"tried to read a data set from {root}: no such folder; give the folder that the data set was unpacked to")
    if (root / "manipulated_sequences").is_dir():
        return "ffpp"
    if (root / "Celeb-synthesis").is_dir():
        return "celebdf"
    if any(_metadata_files(root)):
        return "dfdc"
    names = {path.name.lower() for path in root.iterdir() if path.is_dir()}
    if names & set(SPLIT_NAMES):
        return "splits"
    if {LABEL_NAMES.get(name) for name in names} >= {0, 1}:
        return "two_folders"
    inner = [path for path in root.iterdir() if path.is_dir()]
    if len(inner) == 1:
        return recognise(inner[0])
    if not any(_media(root)):
        raise DataError(f"{root}: holds no picture and no video; give the folder that the data set was unpacked to")
    raise DataError(
        f"{root}: no known layout (folders {', '.join(sorted(names)[:8]) or 'none'}); expected train|valid|test with real and fake inside, "
        "real and fake, FaceForensics++, Celeb-DF or DFDC; sort the files into real/ and fake/, or, for a recipe that needs no fakes, "
        "build a manifest with --layout pictures"
    )


def read_layout(root: Path, layout: Layout) -> tuple[Path, list[Item]]:
    """All items, and the folder that their paths start from.

    Raises:
        DataError: nothing is there, or a file's label cannot be told.
    """
    if not root.is_dir():
        raise DataError(f"tried to read a data set from {root}: no such folder; give the folder that the data set was unpacked to")
    while layout in ("splits", "two_folders") and _only_folder(root) is not None:
        root = _only_folder(root) or root
    items = sorted(_READERS[layout](root), key=lambda item: item.file)
    if not items:
        raise DataError(f"{root}: no picture and no video found in layout {layout}; give the folder that the data set was unpacked to")
    labels = {item.label for item in items}
    if len(labels) < 2 and layout != REALS_ONLY:
        missing = "fake" if labels == {0} else "real"
        raise DataError(f"{root}: {len(items)} files, none of them {missing}; a detector needs both classes, look for the other folder")
    return root, items


def _splits(root: Path) -> Iterator[Item]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is not None:
            for item in _labelled(folder, root):
                yield Item(item.file, item.label, root.name, item.generator, item.identities, split)


def _two_folders(root: Path) -> Iterator[Item]:
    yield from _labelled(root, root)


def _labelled(folder: Path, root: Path) -> Iterator[Item]:
    """Files below folders that are named after a label; deeper folders are people on the real side, generators on the other."""
    for label_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        label = LABEL_NAMES.get(label_folder.name.lower())
        if label is None:
            raise DataError(
                f"{label_folder}: cannot tell whether it holds real or fake; name it real or fake (known: {', '.join(LABEL_NAMES)})"
            )
        for path in _media(label_folder):
            inner = path.relative_to(label_folder).parts
            generator = inner[0] if label and len(inner) > 1 else "unnamed" if label else ""
            file = path.relative_to(root).as_posix()
            identity = file if label or len(inner) == 1 else f"{FOLDER_PERSON}{'/'.join(inner[:-1])}"
            yield Item(file, label, root.name, generator, (identity,))


def _ffpp(root: Path) -> Iterator[Item]:
    """`original_sequences/<who>/<quality>/videos/000.mp4`, `manipulated_sequences/<method>/<quality>/videos/000_003.mp4`."""
    official = _ffpp_splits(root)
    for folder, label in (("original_sequences", 0), ("manipulated_sequences", 1)):
        for path in _media(root / folder):
            inner = path.relative_to(root / folder).parts
            if inner[1:2] == ("masks",):  # where the faces were changed: no pictures of anybody
                continue
            name = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.parent.name
            people = tuple(f"{'dfd' if '__' in name else 'ff'}:{part}" for part in name.split("__")[0].split("_"))
            split = official.get(people[0].removeprefix("ff:"), "")
            yield Item(path.relative_to(root).as_posix(), label, "ffpp", inner[0] if label else "", people, split)


def _ffpp_splits(root: Path) -> dict[str, str]:
    """Video number -> split, from the official `splits/{train,val,test}.json` when they are there."""
    out = {}
    for file in ("train", "val", "test"):
        path = root / "splits" / f"{file}.json"
        if path.is_file():
            for pair in json.loads(path.read_text()):
                out.update(dict.fromkeys(pair, SPLIT_NAMES[file]))
    return out


def _celebdf(root: Path) -> Iterator[Item]:
    """`Celeb-real/id0_0000.mp4`, `Celeb-synthesis/id0_id1_0000.mp4`, `YouTube-real/00000.mp4`; as frames, folders of these names.

    The official test list is not used: it shares people with the rest, and splits here are by person.
    """
    for folder, label in (("Celeb-real", 0), ("YouTube-real", 0), ("Celeb-synthesis", 1)):
        for path in _media(root / folder):
            name = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.parent.name
            identities = _celebrities(name) or _celebrities(path.stem) or (f"youtube:{name}",)
            yield Item(path.relative_to(root).as_posix(), label, "celebdf", "celeb_synthesis" if label else "", identities)


def _celebrities(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("_") if part.startswith("id"))


def _dfdc(root: Path) -> Iterator[Item]:
    """`metadata.json` beside the videos: label and, for fakes, the original. Fakes and their original stay together."""
    for path in _metadata_files(root):
        for name, facts in sorted(json.loads(path.read_text()).items()):
            file = path.parent / name
            if not file.is_file():
                raise DataError(f"{path}: names {name}, which is not there; restore the file or take its entry out")
            if facts.get("label") not in ("REAL", "FAKE"):
                raise DataError(f"{path}: label of {name} is {facts.get('label')!r}, expected REAL or FAKE")
            label = int(facts["label"] == "FAKE")
            original = str(facts.get("original") or name) if label else name
            yield Item(file.relative_to(root).as_posix(), label, "dfdc", "dfdc" if label else "", (f"dfdc:{original}",))


def _pictures(root: Path) -> Iterator[Item]:
    """Whatever pictures lie below the folder; each is its own group, near-duplicates are joined later."""
    for path in _media(root):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(root).as_posix()
            yield Item(name, 0, root.name, "", (name,))


_READERS: Final[dict[Layout, Callable[[Path], Iterator[Item]]]] = {
    "splits": _splits,
    "two_folders": _two_folders,
    "ffpp": _ffpp,
    "celebdf": _celebdf,
    "dfdc": _dfdc,
    "pictures": _pictures,
}


def walked(root: Path) -> list[Path]:
    """Every file below a folder, sorted, also in folders that are links (data sets are often gathered from several disks).

    A link that leads nowhere is among them: whoever reads it says so. A folder that is met again on its own way down, or that
    holds one on that way, is not entered.

    Raises:
        DataError: a name is no text in the file system's encoding, so no table could hold it.
    """
    found: list[Path] = []
    way: dict[Path, set[Path]] = {}  # what lies above a folder by the links that led there, which its true place does not tell
    for folder, folders, files in os.walk(root, followlinks=True):
        true = Path(folder).resolve()
        above = {true, *true.parents} | way.pop(Path(folder), set())
        folders[:] = [name for name in folders if Path(folder, name).resolve() not in above]
        way.update((Path(folder, name), above) for name in folders)
        found += [Path(folder, name) for name in files]
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError as err:
            raise DataError(f"{str(path)!a}: its name is not valid UTF-8; rename the file") from err
    return sorted(found)


def _media(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in walked(folder) if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def _metadata_files(root: Path) -> list[Path]:
    return [path for path in (root / "metadata.json", *sorted(root.glob("*/metadata.json"))) if path.is_file()]


def _only_folder(root: Path) -> Path | None:
    """The one folder inside, when it is neither a split nor a label."""
    inner = [path for path in root.iterdir() if path.is_dir()]
    known = set(SPLIT_NAMES) | set(LABEL_NAMES)
    return inner[0] if len(inner) == 1 and inner[0].name.lower() not in known else None
