"""What a score's worth depends on, fitted beside the thresholds: known compression, known faces, agreement, a clear first look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from detect_core.aggregate import best_window
from detect_core.calibration import VideoCalibration
from detect_core.domain import Domain
from detect_core.evidence import mean_logits
from detect_core.judging import loudest_crop
from detect_core.policy import Circumstances, Decision, FaceCounts, decide
from detect_core.structs import VerdictWord

from .errors import DataError
from .video_scores import DISTORTED, UNDISTORTED, TrackLogits, VideoLogits

FLAGGED: Final[tuple[VerdictWord, ...]] = ("suspicious", "manipulated")
CLEAR_MARGIN: Final = 0.05
"""Between the quietest first look of a flagged video and the score that lets a video go."""
MAX_FPR_RATIO: Final = 2.0
"""A distortion that raises the share of flagged reals by more is beyond what is known."""
LEAST_HEARD: Final = 0.2
"""Share of a fading detector that a video must leave for "nothing found" to be said."""
_KNOWN_QUANTILE: Final = 0.99
_RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Limits:
    """Fitted limits, and what the first look rests on."""

    calibration: VideoCalibration
    """With the limits in it."""
    num_flagged: int
    """Held-out videos that the whole look flags."""
    num_missed: int
    """Those of them that the first look would let go."""
    cleared_reals: float
    """Share of held-out real videos that the first look lets go."""

    def document(self) -> dict[str, Any]:
        """The part of the bundle set's JSON."""
        c = self.calibration
        assert c.domain is not None
        return {
            "max_disagreement": _rounded_up(c.max_disagreement, digits=4),
            "max_quantiser": _rounded(c.max_quantiser),
            "domain": {
                "mean": [round(float(v), 4) for v in c.domain.mean],
                "precision": [[round(float(v), 8) for v in row] for row in c.domain.precision],
                "limit": _rounded_up(c.domain.limit, digits=3),
            },
            "first_look_clear": _rounded(c.first_look_clear),
        }

    def protocol(self) -> dict[str, Any]:
        """What the set's protocol says about the first look."""
        return {
            "flagged": self.num_flagged,
            "missed": self.num_missed,
            "cleared_reals": round(self.cleared_reals, 4),
        }


def decision_of(video: VideoLogits, calibration: VideoCalibration) -> Decision:
    """What screening would decide about these scores, a second opinion on re-compressed crops left out."""
    calibration = calibration.under(video.quantiser)
    windows = []
    for number, track in enumerate(video.tracks):
        window = best_window([calibration.fusion.fuse(row) for row in _rows(track)], track.weights, track_id=number)
        if window is not None:
            windows.append(window)
    seen = max((len(track.weights) for track in video.tracks), default=0)
    distances = (
        {
            window.track_id: calibration.domain.distance(np.asarray(video.tracks[window.track_id].appearance, np.float64))
            for window in windows
            if video.tracks[window.track_id].appearance
        }
        if calibration.domain is not None
        else {}
    )
    return decide(
        windows,
        counts=FaceCounts(num_frames=seen, num_frames_with_face=seen, num_small_or_unsure=0, min_face_px=0.0),
        num_crops=sum(window.num_crops for window in windows),
        calibration=calibration,
        track_logits={window.track_id: mean_logits(_rows(video.tracks[window.track_id]), window) for window in windows},
        circumstances=Circumstances(quantiser=video.quantiser, distances=distances),
    )


def fit_limits(videos: Sequence[VideoLogits], calibration: VideoCalibration) -> Limits:
    """Fit all limits on held-out videos, with thresholds and fusion already in `calibration`.

    Args:
        videos: real, fake, simulated and distorted ones, photographs shown as clips.
        calibration: without limits.

    Raises:
        DataError: the scores carry no appearance (they are of an older version).
    """
    bare = replace(calibration, max_disagreement=None, max_quantiser=None, domain=None, first_look_clear=None)
    reals = [video for video in videos if video.role in ("real", "twin", "still_real")]
    known = replace(
        bare,
        max_disagreement=_fit_disagreement([v for v in videos if v.role != "distorted"], bare),
        domain=_fit_domain(reals),
        max_quantiser=_fit_quantiser(reals, [video for video in videos if video.role == "distorted"], bare),
    )
    flagged = [video for video in videos if decision_of(video, bare).verdict in FLAGGED]
    loudness = [value for video in flagged if (value := first_look(video, bare)) is not None]
    ceiling = calibration.t_review - CLEAR_MARGIN
    clear = max(min([*(value - CLEAR_MARGIN for value in loudness), ceiling]), 0.0)
    cleared = [value is not None and value < clear for video in videos if video.role == "real" for value in [first_look(video, bare)]]
    return Limits(
        calibration=replace(known, first_look_clear=clear),
        num_flagged=len(loudness),
        num_missed=sum(value < clear for value in loudness),
        cleared_reals=float(np.mean(cleared)) if cleared else 0.0,
    )


def first_look(video: VideoLogits, calibration: VideoCalibration) -> float | None:
    """The highest P(fake) of any crop of a first look; None where a track is too short for one."""
    rows = [row for track in video.tracks for row in _rows(track, first=True)]
    return loudest_crop(rows, calibration.under(video.quantiser)) if rows and all(track.first_look for track in video.tracks) else None


def _fit_domain(reals: Sequence[VideoLogits]) -> Domain:
    looks = np.array([track.appearance for video in reals for track in video.tracks if track.appearance])
    if len(looks) < 30:
        raise DataError(f"the known faces need at least 30 real tracks with their appearance, got {len(looks)}; score the videos again")
    mean, covariance = looks.mean(axis=0), np.cov(looks.T)
    precision = np.asarray(np.linalg.inv(covariance + _RIDGE * np.diag(np.diag(covariance))), np.float64)
    domain = Domain(mean=mean, precision=precision, limit=1.0)
    # beyond every real face of the calibration: a rare face is no unknown one
    return replace(domain, limit=max(domain.distance(look) for look in looks))


def _fit_disagreement(videos: Sequence[VideoLogits], calibration: VideoCalibration) -> float:
    spreads = []
    for video in videos:
        fusion = calibration.fusion.under(video.quantiser)
        for track in video.tracks:
            window = best_window([fusion.fuse(row) for row in _rows(track)], track.weights)
            if window is not None:
                spreads.append(float(np.std(list(mean_logits(_rows(track), window).values()))))
    # the detectors know different kinds of fakes and disagree by trade: only more than any held-out video showed is doubt
    return float(np.max(spreads))


def _fit_quantiser(reals: Sequence[VideoLogits], distorted: Sequence[VideoLogits], calibration: VideoCalibration) -> float | None:
    """What all but one in a hundred known pictures stay below; copies count that flag no more than twice as many reals.

    Where a fading detector is hardly heard, "nothing found" would say nothing: no limit lies beyond.
    """
    copies: dict[str, list[VideoLogits]] = {}
    for video in distorted:
        if video.label == 0:
            copies.setdefault(video.file.split(DISTORTED)[1], []).append(video)
    known = list(reals)
    if UNDISTORTED in copies:
        before = max(_flagged_share(copies[UNDISTORTED], calibration), 1 / len(copies[UNDISTORTED]))
        known += [v for videos in copies.values() if _flagged_share(videos, calibration) <= MAX_FPR_RATIO * before for v in videos]
    quantisers = [video.quantiser for video in known if video.quantiser is not None]
    fades = calibration.fusion.fades.values()
    hardly_heard = [fade.none_from - LEAST_HEARD * (fade.none_from - fade.full_until) for fade in fades]
    return min([float(np.quantile(quantisers, _KNOWN_QUANTILE)), *hardly_heard]) if quantisers else None


def _flagged_share(videos: Sequence[VideoLogits], calibration: VideoCalibration) -> float:
    return float(np.mean([decision_of(video, calibration).verdict in FLAGGED for video in videos]))


def _rows(track: TrackLogits, *, first: bool = False) -> list[Mapping[str, float]]:
    """Per crop the logit of every detector."""
    logits = track.first_look if first else track.logits
    count = len(next(iter(logits.values()), []))
    return [{name: values[i] for name, values in logits.items()} for i in range(count)]


def _rounded_up(value: float | None, *, digits: int) -> float | None:
    """For a limit that is the largest value seen: rounded down it would shut out the very video that it was taken from."""
    return None if value is None else math.ceil(value * 10**digits) / 10**digits


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
