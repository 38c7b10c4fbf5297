"""Fit what turns track scores into verdicts: crowd correction, Platt scaling, thresholds. Pure functions over scores.

Everything is fitted on videos of people that no training saw, over the whole chain (fusion, best window).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from detect_core.aggregate import STRATEGY, crowd_corrected, num_draws
from detect_core.bundle import Bundle
from detect_core.calibration import Fade, Fusion, VideoCalibration

from .errors import DataError
from .limits import Limits
from .metrics import fpr_upper_bound
from .video_scores import DISTORTED, UNDISTORTED, Role, VideoLogits

REVIEW_SHARE: Final = 0.05
"""Share of held-out reals that people may be asked to look at: between 5 and 10 % the shipped detectors find no further fake."""
MIN_SLOPE: Final = 0.05
ALIGN_QUANTILE: Final = 0.5
"""Where a detector's scores of real videos count as zero."""
SHARES_OF_KINDS: Final[Mapping[str, float]] = {"blend": 1.0, "synthesis": 1.0, "autogan": 0.3, "temporal": 1.0}
"""Chosen on held-out videos over three kinds of fakes (animated portraits, generated portraits, simulated blends): see the card."""

FADING_KINDS: Final = ("blend", "synthesis")
"""Detectors that look at fine traces of single pictures."""
FADE_STEPS: Final = 10.0
"""Quantiser steps from fully heard to not at all: ten of them make the coder's steps three times as coarse."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted numbers of a bundle set."""

    beta: float
    platt_a: float
    platt_c: float
    t_review: float
    t_fake: float
    num_real_videos: int
    num_false: int
    """Held-out real videos at or above `t_fake`."""
    real_scores: tuple[float, ...]
    """Calibrated scores of the held-out real videos, ascending: what a policy is derived from. Photographs and re-encoded copies are
    no further uploads."""
    fake_scores: tuple[float, ...]
    """The same of labelled fake videos, of generators that the scoring lines had not seen."""

    def with_fusion(self, fusion: Fusion) -> VideoCalibration:
        """As screening uses it, without limits."""
        return VideoCalibration(
            fusion=fusion,
            strategy=STRATEGY,
            beta=self.beta,
            platt_a=self.platt_a,
            platt_c=self.platt_c,
            t_review=self.t_review,
            t_fake=self.t_fake,
            name="fitted",
        )

    def document(self) -> dict[str, Any]:
        """The part of the bundle set's JSON."""
        return {
            "strategy": STRATEGY,
            "beta": round(self.beta, 4),
            "platt": {"a": round(self.platt_a, 5), "c": round(self.platt_c, 5)},
            "thresholds": {"t_review": round(self.t_review, 4), "t_fake": round(self.t_fake, 4)},
        }


def default_shares(bundles: Sequence[Bundle]) -> dict[str, float]:
    """How much each detector counts: what its kind does, over the root of how many of that kind there are, as their errors are partly the same."""
    kinds = Counter(bundle.detector for bundle in bundles)
    return {b.name: round(SHARES_OF_KINDS.get(b.detector, 1.0) / math.sqrt(kinds[b.detector]), 1) for b in bundles}


def fading(bundles: Sequence[Bundle]) -> list[str]:
    """Names of the detectors that compression takes the ground from."""
    return [bundle.name for bundle in bundles if bundle.detector in FADING_KINDS]


def fit_fusion(reals: Sequence[VideoLogits], shares: Mapping[str, float]) -> Fusion:
    """A sum of the evidence that each detector finds, in units of its own spread over real videos.

    Args:
        reals: untouched videos and twins of them.
        shares: detector name -> how much one of its standard deviations counts.

    Raises:
        DataError: a detector scored no real video, or gave all of them the same score.
    """
    alone = Fusion(kind="max", offsets={}, weights={})
    weights, offsets = {}, {}
    for name, share in shares.items():
        worst = [max(tracks) for video in reals if (tracks := video.track_scores(alone, only=name))]
        spread = float(np.std(worst)) if worst else 0.0
        if spread <= 0:
            raise DataError(f"{name} has no spread over {len(worst)} held-out real videos; score the videos again or leave it out")
        weights[name] = round(share / spread, 4)
        offsets[name] = round(-share / spread * float(np.quantile(worst, ALIGN_QUANTILE)), 4)
    return Fusion(kind="evidence_sum", offsets=offsets, weights=weights)


def fit_fades(videos: Sequence[VideoLogits], names: Iterable[str]) -> dict[str, Fade]:
    """How compression carries the fading detectors' scores of reals away, from pairs of a real video and its coarser copies.

    A detector is fully heard up to the coarsest of the real videos themselves: that is what it was measured on.

    Args:
        videos: real ones with their own quantiser, and distorted copies beside undistorted ones; without them nothing fades.
        names: detectors that may fade, see `fading`.
    """
    own = [video.quantiser for video in videos if video.role == "real" and video.quantiser is not None]
    copies = [video for video in videos if video.role == "distorted" and not video.label]
    if not own or not copies:
        return {}
    full_until = round(max(own), 2)
    fades = {}
    for name in names:
        levels = {video.file: np.mean([np.mean(t.logits[name]) for t in video.tracks if t.logits.get(name)]) for video in copies}
        pairs = [
            (max(0.0, video.quantiser - full_until), levels[video.file] - levels[video.file.split(DISTORTED)[0] + DISTORTED + UNDISTORTED])
            for video in copies
            if video.file in levels and video.quantiser is not None
        ]
        steps, gains = (np.array([pair[k] for pair in pairs], np.float64) for k in (0, 1))
        known = np.isfinite(gains)
        if known.any() and steps[known].any():
            drift = float((steps[known] * gains[known]).sum() / (steps[known] ** 2).sum())
            fades[name] = Fade(full_until=full_until, none_from=round(full_until + FADE_STEPS, 2), drift=round(drift, 4))
    return fades


def fit_beta(track_scores: ArrayLike) -> float:
    """Mean excess of real tracks' scores above their 90th percentile (exponential tail)."""
    scores = np.asarray(track_scores, np.float64)
    if len(scores) < 10:
        raise DataError(f"the crowd correction needs at least 10 real tracks, got {len(scores)}; add held-out real videos")
    high = np.quantile(scores, 0.9)
    return float((scores[scores > high] - high).mean())


def fit_platt(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Slope a > 0 and offset c of sigmoid(a z + c); classes weigh the same, targets are smoothed (Platt 1999)."""
    z, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    num_fake, num_real = y.sum(), (1 - y).sum()
    if num_fake == 0 or num_real == 0:
        raise DataError(f"Platt scaling needs both classes, got {int(num_fake)} fake and {int(num_real)} real")
    target = np.where(y == 1, (num_fake + 1) / (num_fake + 2), 1 / (num_real + 2))
    weight = np.where(y == 1, 0.5 / num_fake, 0.5 / num_real)

    def loss(parameters: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        logit = math.exp(parameters[0]) * z + parameters[1]
        return float((weight * (np.logaddexp(0, logit) - target * logit)).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000})
    return max(float(math.exp(best.x[0])), MIN_SLOPE), float(best.x[1])


def video_scores(videos: Sequence[VideoLogits], fusion: Fusion, beta: float) -> list[float | None]:
    """Crowd-corrected raw score per video, of the faces that can be judged if there are any; None where no track was long enough."""
    out: list[float | None] = []
    for video in videos:
        windows = video.track_windows(fusion)
        judged = [window for window in windows if window.is_judgeable] or windows
        out.append(crowd_corrected(max(w.z for w in judged), num_draws=num_draws(windows), beta=beta) if judged else None)
    return out


def calibrate(reals: Sequence[VideoLogits], fakes: Sequence[VideoLogits], *, fusion: Fusion, headroom: float) -> Calibration:
    """Fit the chain.

    Args:
        reals: held-out real videos, re-encoded twins of them, photographs shown as clips.
        fakes: cross-fitted labelled fakes, fakes made from held-out real videos, generated portraits shown as clips.
        fusion: how detectors are joined.
        headroom: `t_fake` lies this many betas above the highest held-out real video: unseen cameras differ more.
    """
    tracks = [score for video in reals for score in video.track_scores(fusion)]
    beta = fit_beta(tracks)
    judged = [(video, z) for video, z in zip(reals, video_scores(reals, fusion, beta), strict=True) if z is not None]
    real = np.array([z for _, z in judged])
    fake = np.array([z for z in video_scores(fakes, fusion, beta) if z is not None])
    a, c = fit_platt(np.concatenate([real, fake]), np.concatenate([np.zeros(len(real)), np.ones(len(fake))]))
    z_fake = float(real.max()) + headroom * max(beta, 0.1)
    z_review = float(np.quantile(real, 1 - REVIEW_SHARE))
    t_fake, t_review = _sigmoid(a * z_fake + c), _sigmoid(a * min(z_review, z_fake) + c)
    t_fake = min(max(t_fake, 0.5), 0.995)
    return Calibration(
        beta=beta,
        platt_a=a,
        platt_c=c,
        t_review=min(max(t_review, 0.02), t_fake),
        t_fake=t_fake,
        num_real_videos=len({_original(video) for video, _ in judged if video.role != "still_real"}),
        num_false=len({_original(video) for video, z in judged if video.role != "still_real" and _sigmoid(a * z + c) >= t_fake}),
        real_scores=_sorted_scores(zip(reals, video_scores(reals, fusion, beta), strict=True), ("real",), a, c),
        fake_scores=_sorted_scores(zip(fakes, video_scores(fakes, fusion, beta), strict=True), ("fake",), a, c),
    )


def set_document(
    *,
    name: str,
    bundles: Sequence[Mapping[str, str]],
    optional: Sequence[str],
    fusion: Fusion,
    calibration: Calibration,
    limits: Limits | None = None,
    dataset_sha256: str,
    date: str,
) -> dict[str, Any]:
    """The whole bundle set."""
    return {
        "schema": "bundle_set/1",
        "name": name,
        "bundles": [dict(bundle) for bundle in bundles],
        "optional": list(optional),
        "fusion": {
            "kind": fusion.kind,
            "offsets": dict(fusion.offsets),
            "weights": dict(fusion.weights),
            "fades": {name: asdict(fade) for name, fade in fusion.fades.items()},
        },
        **calibration.document(),
        **(limits.document() if limits is not None else {}),
        "protocol": {
            "num_real_videos": calibration.num_real_videos,
            "fpr_at_t_fake": calibration.num_false / calibration.num_real_videos,
            "real_scores": list(calibration.real_scores),
            "fake_scores": list(calibration.fake_scores),
            "fpr_upper_95": round(fpr_upper_bound(calibration.num_false, calibration.num_real_videos), 4),
            **({"first_look": limits.protocol()} if limits is not None else {}),
            "dataset_sha256": dataset_sha256,
            "date": date,
        },
    }


def _sorted_scores(judged: Iterable[tuple[VideoLogits, float | None]], roles: Sequence[Role], a: float, c: float) -> tuple[float, ...]:
    return tuple(sorted(round(_sigmoid(a * z + c), 4) for video, z in judged if z is not None and video.role in roles))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _original(video: VideoLogits) -> str:
    """The video behind a re-encoded twin: twins are no further evidence."""
    return video.file.split("#")[0]
