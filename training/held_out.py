"""Scores of all held-out videos and of fakes simulated from the real ones, ready for calibration and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from torch import nn

from detect_core.bundle import Bundle, load_net
from detect_core.detectors import is_track_bundle
from detect_core.faces.detect import MtcnnFaceDetector

from .distortions import score_distorted
from .errors import DataError
from .scorers import load_scorers
from .simulators.base import Simulator
from .simulators.blends import CrossBlend, DecoderBlend, MouthResynthesis, SelfBlend, WarpBlend
from .simulators.classical_swap import ClassicalSwap
from .split_videos import read_video_manifest
from .still_clips import score_still_clips
from .video_faces import TrackCrops
from .video_scores import VideoLogits, score_simulated, score_video

CRFS: Final = (18, 23, 28)
FAMILIES_PER_VIDEO: Final = 2
_SCORING: Final = "2"
"""Part of what names kept scores: raise it when the same videos and bundles get other scores, copies, fakes or clips than before."""


def score_held_out(
    videos_root: Path,
    bundles: Sequence[Bundle],
    *,
    faces_root: Path | None = None,
    splits: tuple[str, ...] = ("valid", "test"),
    folds_root: Path | None = None,
    on_video: Callable[[str], None] = lambda _line: None,
) -> list[VideoLogits]:
    """Score every held-out video as it is and distorted, each real one also as a re-encoded twin and as simulated fakes.

    Of these, two are of families that were trained on; the third is a classical swap, which no training uses.

    Args:
        videos_root: folder of videos with a manifest.
        bundles: verified bundles.
        faces_root: folder of face crops whose test portraits are scored as clips, if given.
        splits: which rows of the manifest.
        folds_root: run folder of a cross-fitted detector, see `load_scorers`.
        on_video: told what was done.

    Raises:
        DataError: no held-out real video is there.
    """
    rows = [row for row in read_video_manifest(videos_root) if row.split in splits]
    scorers = load_scorers(bundles, folds_root=folds_root)
    face_detector = MtcnnFaceDetector()
    out: list[VideoLogits] = []
    tracks: list[tuple[int, TrackCrops]] = []
    for i, row in enumerate(rows):
        scores, track = score_video(videos_root, row, scorers=scorers, face_detector=face_detector)
        out.append(scores)
        if track is not None:
            out += score_distorted(row, track, scorers)
        if track is not None and row.label == 0:
            tracks.append((i, track))
        on_video(f"scored {i + 1}/{len(rows)} {row.file}")
    if not tracks:
        raise DataError(f"{videos_root}: no held-out real video with a face; calibration needs some, see split_videos")
    simulators = simulators_for(bundles)
    for number, (i, track) in enumerate(tracks):
        donor = _donor(number, [(rows[j].group, t) for j, t in tracks])
        trained = [simulators[(number + k) % len(simulators)] for k in range(FAMILIES_PER_VIDEO)]
        chosen: list[Simulator | None] = [None, *trained, ClassicalSwap()]
        for simulator in chosen:
            out.append(score_simulated(rows[i], track, donor, simulator, scorers=scorers, seed=number, crf=CRFS[number % len(CRFS)]))
        on_video(f"simulated fakes of {number + 1}/{len(tracks)} {rows[i].file}")
    if faces_root is not None:
        out += score_still_clips(faces_root, scorers)
    return out


def material_sha256(videos_root: Path, *, faces_root: Path | None, folds_root: Path | None) -> str:
    """Names what `score_held_out` would score, how, and by which cross-fitted lines: kept scores are good for that alone.

    Raises:
        DataError: the folder of videos has no usable manifest.
    """
    digest = hashlib.sha256(_SCORING.encode())
    for row in read_video_manifest(videos_root):
        digest.update(f"{row} {(videos_root / row.file).stat().st_size}\n".encode())
    for path in (faces_root and faces_root / "index.csv", folds_root and folds_root / "folds.json"):
        digest.update(path.read_bytes() if path is not None and path.is_file() else b"-")
    return digest.hexdigest()


def simulators_for(bundles: Sequence[Bundle]) -> list[Simulator]:
    """The blend families, and decoder traces by the autoencoders inside the bundles, if any has one."""
    simulators: list[Simulator] = [SelfBlend(), CrossBlend(), WarpBlend(), MouthResynthesis()]
    autoencoders: list[nn.Module] = []
    for bundle in bundles:
        if is_track_bundle(bundle):
            continue
        inner = getattr(load_net(bundle), "autogan", None)
        if isinstance(inner, nn.Module):
            autoencoders.append(inner)
    if autoencoders:
        simulators.append(DecoderBlend(autoencoders, whole_share=0.4))
    return simulators


def _donor(number: int, tracks: Sequence[tuple[str, TrackCrops]]) -> TrackCrops:
    """The next track of another person; the same one when there is only one person."""
    group = tracks[number][0]
    for step in range(1, len(tracks)):
        other, track = tracks[(number + step) % len(tracks)]
        if other != group:
            return track
    return tracks[number][1]
