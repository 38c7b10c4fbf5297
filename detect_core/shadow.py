"""A second bundle set that scores the same crops of the same video: what it would have said, beside the verdict. It never decides.

Decoding and face search cost most of a screening and are done once; the shadow adds its nets only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .aggregate import of_track, windows_of
from .bundle import Bundle
from .calibration import BundleSet
from .evidence import mean_logits
from .familiarity import distances_of, first_crop_bundle
from .policy import Circumstances, FaceCounts, decide
from .structs import CropScore, VerdictWord

_PREFIX: Final = "shadow/"


@dataclass(frozen=True, slots=True)
class ShadowOpinion:
    """What the shadow would have said."""

    bundle_set: str
    verdict: VerdictWord
    p_fake: float | None


def with_shadow(bundle_set: BundleSet, shadow: BundleSet | None) -> BundleSet:
    """The set that is loaded and scored: the shadow's bundles stand behind the others, under names of their own."""
    if shadow is None:
        return bundle_set
    renamed: tuple[Bundle, ...] = tuple(replace(bundle, name=_PREFIX + bundle.name) for bundle in shadow.bundles)
    return replace(bundle_set, bundles=(*bundle_set.bundles, *renamed))


def without_shadow(score: CropScore) -> CropScore:
    """One crop's score without what the shadow said."""
    return replace(score, logits={name: value for name, value in score.logits.items() if not name.startswith(_PREFIX)})


def of_shadow(score: CropScore) -> CropScore:
    """One crop's score with the shadow's logits only, under their own names."""
    return replace(score, logits={name.removeprefix(_PREFIX): value for name, value in score.logits.items() if name.startswith(_PREFIX)})


def shadow_opinion(
    scores: Sequence[CropScore],
    *,
    crops: Mapping[tuple[int, float], Mapping[str, NDArray[np.uint8]]],
    shadow: BundleSet,
    counts: FaceCounts,
    quantiser: float | None = None,
) -> ShadowOpinion:
    """Judge the same crops by the shadow's own calibration.

    Args:
        scores: with the shadow's logits among the others.
        crops: (track, seconds) -> bundle's name -> (S, S, 3) RGB crop, the shadow's under the names that `with_shadow` gave.
        shadow: its bundle set.
        counts: what the face detector found, the same for both.
        quantiser: of the video, the same for both.
    """
    calibration = shadow.calibration.under(quantiser)
    mine = [of_shadow(score) for score in scores]
    scored = [score for score in mine if score.logits]
    windows = windows_of(scored, calibration.fusion.fuse)
    tracks = {window.track_id: of_track(scored, window.track_id) for window in windows}
    first = first_crop_bundle(shadow.bundles)
    pictures = {key: cuts[_PREFIX + first.name] for key, cuts in crops.items()} if first is not None else {}
    decision = decide(
        windows,
        counts=counts,
        num_crops=sum(window.num_crops for window in windows),
        calibration=calibration,
        track_logits={window.track_id: mean_logits([s.logits for s in tracks[window.track_id]], window) for window in windows},
        circumstances=Circumstances(quantiser=quantiser, distances=distances_of(windows, tracks, pictures, calibration)),
    )
    return ShadowOpinion(bundle_set=shadow.label, verdict=decision.verdict, p_fake=decision.p_fake)
