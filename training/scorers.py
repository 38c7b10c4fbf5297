"""The detectors that score material, as screening would load them, with the fold lines of a cross-fitted one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detect_core.bundle import Bundle, CropSpec, load_bundle
from detect_core.detectors import Detector, is_track_bundle, load_detector, load_track_detector
from detect_core.detectors.temporal import TemporalDetector
from detect_core.structs import FaceBox

from .errors import ConfigError, DataError
from .face_pack import PACK_MARGIN

TrackLines = Literal["cross_fitted", "unseen", "no_track_detector"]
"""How videos were judged over time: by fold lines that did not learn from them, by a detector that whoever measured says never
saw them, or not at all."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """Detectors of crops and of whole tracks."""

    crop: tuple[Detector, ...]
    track: tuple[TemporalDetector, ...] = ()
    folds: Mapping[str, TemporalDetector] = field(default_factory=dict)
    """Video file -> the line that saw neither its person nor its generator, in place of `track`; a video that is not named is not judged."""

    def specs(self) -> dict[str, CropSpec]:
        """Crops that every detector wants, by its name."""
        bundles = [*(detector.bundle for detector in self.crop), *(detector.bundle for detector in self.track)]
        return {bundle.name: bundle.crop for bundle in bundles}

    def logits(
        self, images: Mapping[str, Sequence[NDArray[np.uint8]]], boxes: Sequence[FaceBox], *, file: str | None
    ) -> dict[str, list[float]]:
        """Logits of one track, per detector one per crop; a detector that needs a longer track is left out.

        Args:
            images: the crops in time order, by detector.
            boxes: their boxes.
            file: the video that they come from; None where no line can have learned from it.
        """
        out = {d.bundle.name: [float(v) for v in d.logits(images[d.bundle.name])] for d in self.crop}
        for detector in self.track:
            points = [box.landmarks_in_crop(detector.bundle.crop.margin) for box in boxes]
            line = self.folds.get(file) if self.folds and file is not None else detector
            values = line.track_logits(images[detector.bundle.name], points) if line is not None else None
            if values is not None:
                out[detector.bundle.name] = [float(v) for v in values]
        return out


def track_lines(bundles: Sequence[Bundle], *, folds_root: Path | None, unseen: bool) -> TrackLines:
    """How track detectors among the bundles will judge videos: never as those that they learned from.

    Args:
        bundles: everything that scores.
        folds_root: run folder of the `temporal` recipe, see `load_scorers`.
        unseen: somebody says that they learned from none of the videos.

    Raises:
        ConfigError: there is such a detector, and neither was given.
    """
    names = [bundle.name for bundle in bundles if is_track_bundle(bundle)]
    if not names:
        return "no_track_detector"
    if folds_root is not None:
        return "cross_fitted"
    if unseen:
        return "unseen"
    raise ConfigError(
        f"tried to judge videos with {' and '.join(names)}, got no fold lines: it may have learned from these very videos, and would look "
        "better than it is; give the run folder that made it (--folds), or --unseen when it learned from none of them"
    )


def load_scorers(bundles: Sequence[Bundle], *, folds_root: Path | None = None) -> Scorers:
    """Load the detectors of a set.

    Args:
        bundles: verified bundles.
        folds_root: run folder of the `temporal` recipe, to judge every video by a line that did not learn from it.

    Raises:
        ConfigError: a bundle looks further around the face than the material is cut.
        DataError: the run folder does not hold folds of a bundle.
    """
    for bundle in bundles:
        if bundle.crop.margin > PACK_MARGIN:
            raise ConfigError(
                f"tried to score with {bundle.name}, which wants crops of margin {bundle.crop.margin:g}; material is cut to {PACK_MARGIN:g}, "
                "beyond that there is nothing to show it; train it with a smaller margin"
            )
    crop = tuple(load_detector(bundle) for bundle in bundles if not is_track_bundle(bundle))
    track = tuple(load_track_detector(bundle) for bundle in bundles if is_track_bundle(bundle))
    if folds_root is None or not track:
        return Scorers(crop, track)
    try:
        fold_of = json.loads((folds_root / "folds.json").read_text())
    except (OSError, ValueError) as err:
        raise DataError(f"{folds_root}: no readable folds.json ({err}); give the run folder of the temporal recipe") from err
    made = load_bundle(folds_root / "bundle")
    for detector in track:
        if _line(detector.bundle) != _line(made):
            raise DataError(f"{folds_root}: its bundle is not the {detector.bundle.name} that is judged; give the run that made it")
    lines = {fold: load_track_detector(load_bundle(folds_root / "folds" / str(fold))) for fold in sorted(set(fold_of.values()))}
    return Scorers(crop, track, {file: lines[fold] for file, fold in fold_of.items()})


def _line(bundle: Bundle) -> tuple[object, ...]:
    """What a line is, whatever it is called: a bundle may have been exported under another name."""
    weights = [shard["sha256"] for shard in bundle.weights]
    return bundle.net, dict(bundle.net_options), bundle.crop, bundle.temperature, weights
