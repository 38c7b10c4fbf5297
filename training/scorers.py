"""The detectors that score material, as screening would load them, with the fold lines of a cross-fitted one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detect_core.bundle import Bundle, CropSpec, load_bundle
from detect_core.detectors import Detector, is_track_bundle, load_detector, load_track_detector
from detect_core.detectors.temporal import TemporalDetector
from detect_core.structs import FaceBox

from .errors import DataError


@dataclass(frozen=True, slots=True)
class Scorers:
    """Detectors of crops and of whole tracks."""

    crop: tuple[Detector, ...]
    track: tuple[TemporalDetector, ...] = ()
    folds: Mapping[str, TemporalDetector] = field(default_factory=dict)
    """Video file -> the line that saw neither its person nor its generator, in place of `track`."""

    def specs(self) -> dict[str, CropSpec]:
        """Crops that every detector wants, by its name."""
        bundles = [*(detector.bundle for detector in self.crop), *(detector.bundle for detector in self.track)]
        return {bundle.name: bundle.crop for bundle in bundles}

    def logits(self, images: Mapping[str, Sequence[NDArray[np.uint8]]], boxes: Sequence[FaceBox], *, file: str) -> dict[str, list[float]]:
        """Logits of one track, per detector one per crop; a detector that needs a longer track is left out.

        Args:
            images: the crops in time order, by detector.
            boxes: their boxes.
            file: the video that they come from.
        """
        out = {d.bundle.name: [float(v) for v in d.logits(images[d.bundle.name])] for d in self.crop}
        for detector in self.track:
            points = [box.landmarks_in_crop(detector.bundle.crop.margin) for box in boxes]
            values = self.folds.get(file, detector).track_logits(images[detector.bundle.name], points)
            if values is not None:
                out[detector.bundle.name] = [float(v) for v in values]
        return out


def load_scorers(bundles: Sequence[Bundle], *, folds_root: Path | None = None) -> Scorers:
    """Load the detectors of a set.

    Args:
        bundles: verified bundles.
        folds_root: run folder of the `temporal` recipe, to judge every video by a line that did not learn from it.

    Raises:
        DataError: the run folder does not hold folds of the bundle.
    """
    crop = tuple(load_detector(bundle) for bundle in bundles if not is_track_bundle(bundle))
    track = tuple(load_track_detector(bundle) for bundle in bundles if is_track_bundle(bundle))
    if folds_root is None or not track:
        return Scorers(crop, track)
    try:
        fold_of = json.loads((folds_root / "folds.json").read_text())
    except (OSError, ValueError) as err:
        raise DataError(f"{folds_root}: no readable folds.json ({err}); give the run folder of the temporal recipe") from err
    if load_bundle(folds_root / "bundle").sha256 != track[0].bundle.sha256:
        raise DataError(f"{folds_root}: its bundle is not the {track[0].bundle.name} that is judged; give the run that made it")
    lines = {fold: load_track_detector(load_bundle(folds_root / "folds" / str(fold))) for fold in sorted(set(fold_of.values()))}
    return Scorers(crop, track, {file: lines[fold] for file, fold in fold_of.items()})
