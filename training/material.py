"""The material of a run: faces from stills and videos, cut once and kept in a cache that knows what it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .corner_mark import covered
from .errors import DataError, LeakError
from .face_pack import FacePack, FaceRow, concatenate
from .index_faces import read_faces
from .near_duplicates import NearRule, settle_near_duplicates
from .split_videos import VideoRow, read_video_manifest
from .video_faces import read_videos

AUXILIARY_SOURCES = frozenset({"lfw_grey"})
"""Greyscale photos would teach "grey = real"."""
_CODE_VERSION = "5"
"""Part of the cache key: raise it when cutting changes."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a recipe may use."""

    faces: FacePack
    """Stills and video frames, real and fake, all splits."""
    description: str
    videos_root: Path | None = None
    """Folder of the videos, for recipes that look at them over time."""

    def settled(self, rule: NearRule, say: Callable[[str], None]) -> Material:
        """The material after a look for near-duplicates across splits (see `settle_near_duplicates`).

        Raises:
            LeakError: there are some, and the rule is to refuse.
        """
        faces, words = settle_near_duplicates(self.faces, rule, say)
        return replace(self, faces=faces, description=f"{self.description}, {words}") if words else self

    def reals(self, split: str) -> FacePack:
        """Untouched faces of a split, without auxiliary sources.

        Raises:
            DataError: there are none.
        """
        pack = self.faces.where(split=split, label=0)
        pack = pack.take([i for i, row in enumerate(pack.rows) if row.source not in AUXILIARY_SOURCES])
        if not len(pack):
            raise DataError(f"no real face in split {split!r}; recipes make their fakes from reals, give a folder that has some")
        return pack


def load_material(
    *,
    faces_root: Path | None = None,
    videos_root: Path | None = None,
    cache_dir: Path | None = None,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Material:
    """Read faces and videos; videos are decoded once per cache folder.

    Raises:
        DataError: nothing was given, or something cannot be read.
        LeakError: a group stands in two splits.
    """
    packs, parts = [], []
    if faces_root is not None:
        packs.append(read_faces(faces_root))
        parts.append(f"{len(packs[-1])} face crops")
    if videos_root is not None:
        packs.append(_videos(Path(videos_root), cache_dir, on_progress))
        parts.append(f"{len(packs[-1])} faces of videos{_told_faceless(Path(videos_root), packs[-1], on_progress)}")
    if not packs:
        raise DataError("no data was given: name a folder of face crops (--faces) or of videos (--videos)")
    pack = covered(concatenate(packs))
    check_splits(pack.rows)
    return Material(pack, ", ".join(parts), Path(videos_root) if videos_root is not None else None)


def check_splits(rows: Sequence[FaceRow]) -> None:
    """Refuse groups and files that stand in more than one split.

    Raises:
        LeakError: names the first offender.
    """
    for what in ("group", "file"):
        seen: dict[str, str] = {}
        for row in rows:
            name = getattr(row, what)
            if name and seen.setdefault(name, row.split) != row.split:
                raise LeakError(f"{what} {name!r} stands in splits {seen[name]} and {row.split}; keep it in one")


def _videos(root: Path, cache_dir: Path | None, on_progress: Callable[[str], None]) -> FacePack:
    rows = read_video_manifest(root)
    path = cache_dir / f"videos-{_cache_key(root, rows)}.safetensors" if cache_dir is not None else None
    if path is not None and path.is_file():
        return _load_pack(path)
    from detect_core.faces.detect import MtcnnFaceDetector

    done = [0]

    def progress(file: str, crops: int) -> None:
        done[0] += 1
        on_progress(f"video {done[0]}/{len(rows)}: {file}, {crops} crops")

    pack = read_videos(root, rows, detector=MtcnnFaceDetector(), on_video=progress)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save_pack(pack, path)
    return pack


def _told_faceless(root: Path, pack: FacePack, say: Callable[[str], None]) -> str:
    """Words for the description when videos gave no face: a run says what it goes without."""
    seen = {row.file.rpartition("@")[0] for row in pack.rows}
    faceless = [row.file for row in read_video_manifest(root) if row.file not in seen]
    if not faceless:
        return ""
    say(
        f"warning: {len(faceless)} videos show no face that can be followed, first {root / faceless[0]}; take their rows out, or go without them"
    )
    return f" ({len(faceless)} videos without a face)"


def _cache_key(root: Path, rows: Sequence[VideoRow]) -> str:
    """Content and split of every video decide, so that a stale cache is never read."""
    digest = hashlib.sha256(_CODE_VERSION.encode())
    for row in rows:
        digest.update(repr(astuple(row)).encode())
        with (root / row.file).open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]


def _save_pack(pack: FacePack, path: Path) -> None:
    columns = "\n".join(json.dumps(astuple(row)) for row in pack.rows)
    temporary = path.with_suffix(".tmp")  # a kill must not leave half a cache
    save_file({"images": pack.images, "landmarks": pack.landmarks.contiguous()}, temporary, metadata={"rows": columns})
    temporary.replace(path)


def _load_pack(path: Path) -> FacePack:
    from safetensors import safe_open

    tensors = load_file(path)
    with safe_open(path, framework="pt") as handle:
        lines = (handle.metadata() or {})["rows"].split("\n")
    rows = tuple(FaceRow(*json.loads(line)) for line in lines)
    return FacePack(tensors["images"], tensors["landmarks"].to(torch.float32), rows)
