"""From a video score to a verdict word with reasons, or to an honest "cannot tell". Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from .aggregate import MIN_TRACK_CROPS, TrackWindow, crowd_corrected, num_draws
from .calibration import VideoCalibration
from .structs import VerdictWord

MIN_CROPS: Final = 5
"""Fewer accepted crops allow no judgement."""
_MOST_DIGITS: Final = 6
MAX_NOT_FOLLOWED: Final = 0.4
"""Share of the accepted faces beyond which those that could not be followed keep a video from being cleared."""
NOT_LOOKED_AT: Final = {
    "UNSEEN_STRETCH": "a stretch of the video could not be looked at",
    "PARTIAL_DECODE": "not every wanted frame could be decoded",
    "HIDDEN_PICTURE_AREA": "players show another part of the picture than the one that was looked at",
    "UNUSUAL_PIXEL_ASPECT": "the file states pixels too long to be shown, and the picture was looked at as it is stored",
    "ALPHA_IGNORED": "the picture has transparent parts, behind which players may show something else",
}
"""Warnings that keep a video from being cleared, and what they mean: players may show what was not judged."""
_OF_ONE_FACE: Final = {"LOW_EVIDENCE", "OUT_OF_DOMAIN", "DETECTORS_DISAGREE", "UNSTABLE_UNDER_RECOMPRESSION"}
"""Reasons not to judge one face that say nothing about the others of the video."""


@dataclass(frozen=True, slots=True)
class FaceCounts:
    """What there was to look at."""

    num_frames: int
    num_frames_with_face: int
    """Frames with an accepted face."""
    num_small_or_unsure: int
    """Faces found but dropped for size or face-detector confidence."""
    min_face_px: float
    """Smaller ones, in full-size pixels, were not looked for."""
    num_faces: int = 0
    """Accepted faces in all frames, of which some may be on no track that is long enough."""
    not_looked_at: tuple[str, ...] = ()
    """Those of `NOT_LOOKED_AT` that hold."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a score's worth depends on."""

    quantiser: float | None = None
    """As `VideoInfo.quantiser`."""
    distances: Mapping[int, float] = field(default_factory=dict)
    """Track -> distance from the faces of the calibration."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The word, the number if one was measured, and why."""

    verdict: VerdictWord
    p_fake: float | None
    reason_codes: tuple[str, ...]
    sentence: str
    track_id: int | None = None
    """The track that decided."""


def decide(
    windows: Sequence[TrackWindow],
    *,
    counts: FaceCounts,
    num_crops: int,
    calibration: VideoCalibration,
    track_logits: Mapping[int, Mapping[str, float]],
    circumstances: Circumstances = Circumstances(),
    again: Mapping[int, Sequence[float]] = MappingProxyType({}),
) -> Decision:
    """Judge a video by its highest-scoring face; where that one cannot be judged, another one that is suspicious decides.

    A blurred or unusual face may not hide what a clear one beside it shows, even if that is one to look at and no verdict. It keeps the
    others from being called authentic, as do faces that could not be followed and pictures that could not be looked at.

    Args:
        windows: best windows of the tracks that are long enough.
        counts: what the face detector found.
        num_crops: accepted crops on tracks that are long enough.
        calibration: thresholds, crowd correction, Platt.
        track_logits: per track and detector the logit of the deciding window, for the disagreement check.
        circumstances: how hard the video was compressed, how far its faces are from known ones.
        again: per track that was asked again, P(fake) of its window under each re-compression, see `second_opinion`.
    """
    too_little = _too_little(windows, counts=counts, num_crops=num_crops)
    if too_little is not None:
        return too_little
    decisions = [
        unstable(
            _by_face(
                window,
                num_tracks=len(windows),
                draws=num_draws(windows),
                calibration=calibration,
                logits=track_logits.get(window.track_id, {}),
                distance=circumstances.distances.get(window.track_id),
                quantiser=circumstances.quantiser,
            ),
            again=again.get(window.track_id, ()),
            calibration=calibration,
        )
        for window in sorted(windows, key=lambda window: -window.z)
    ]
    for decision in decisions:
        if not _OF_ONE_FACE & {*decision.reason_codes}:
            speaks = decision.verdict in ("suspicious", "manipulated") or "CROWD_UNCERTAIN" in decision.reason_codes
            return decision if speaks else _if_all_was_judged(decisions[0], counts=counts, num_crops=num_crops)
    return decisions[0]


def _if_all_was_judged(decision: Decision, *, counts: FaceCounts, num_crops: int) -> Decision:
    """The decision, but nothing found in a part is not nothing found."""
    if decision.verdict != "authentic":
        return decision
    missing = {code: NOT_LOOKED_AT[code] for code in counts.not_looked_at}
    num_lost = counts.num_faces - num_crops
    if num_lost > MAX_NOT_FOLLOWED * counts.num_faces:
        missing["FACES_NOT_FOLLOWED"] = (
            f"{num_lost} of {counts.num_faces} faces could not be followed over at least {MIN_TRACK_CROPS} frames"
        )
    if not missing:
        return decision
    sentence = f"What was judged shows no manipulation, but {' and '.join(missing.values())}; a person should look."
    return replace(decision, verdict="inconclusive", reason_codes=tuple(missing), sentence=sentence)


def _by_face(
    best: TrackWindow,
    *,
    num_tracks: int,
    draws: int,
    calibration: VideoCalibration,
    logits: Mapping[str, float],
    distance: float | None,
    quantiser: float | None,
) -> Decision:
    """What one face says about a video of `num_tracks`, of which `draws` can be judged."""
    raw = calibration.probability(best.z)
    p_fake = calibration.probability(crowd_corrected(best.z, num_draws=draws, beta=calibration.beta))
    if not best.is_judgeable:
        return Decision(
            verdict="inconclusive",
            p_fake=None,
            reason_codes=("LOW_EVIDENCE",),
            sentence=f"{_name(best, num_tracks).capitalize()} is too small or too blurred to judge; a sharper or larger rendition may allow a verdict.",
        )
    if any(raw >= threshold > p_fake for threshold in (calibration.t_review, calibration.t_fake)):
        return Decision(
            verdict="inconclusive",
            p_fake=p_fake,
            reason_codes=("CROWD_UNCERTAIN",),
            sentence=f"Face {best.track_id} scores high, but among {draws} faces one such score can be chance; look at that face.",
            track_id=best.track_id,
        )
    spread = float(np.std(list(logits.values()) or [0.0]))
    if calibration.max_disagreement is not None and spread > calibration.max_disagreement and p_fake >= calibration.t_review:
        return Decision(
            verdict="inconclusive",
            p_fake=p_fake,
            reason_codes=("DETECTORS_DISAGREE",),
            sentence="The detectors contradict each other on the same face; a person should look.",
            track_id=best.track_id,
        )
    if calibration.domain is not None and distance is not None and distance > calibration.domain.limit:
        return Decision(
            verdict="inconclusive",
            p_fake=p_fake,
            reason_codes=("OUT_OF_DOMAIN",),
            sentence=f"Face {best.track_id} looks unlike all faces that the detectors were measured on (light, colour or detail); its score says little.",
            track_id=best.track_id,
        )
    if (
        calibration.max_quantiser is not None
        and quantiser is not None
        and quantiser > calibration.max_quantiser
        and p_fake < calibration.t_fake
    ):
        return Decision(
            verdict="inconclusive",
            p_fake=p_fake,
            reason_codes=("HEAVY_COMPRESSION",),
            sentence=_too_hard(quantiser, calibration.max_quantiser),
            track_id=best.track_id,
        )
    return _by_threshold(p_fake, best, raw=raw, draws=draws, calibration=calibration, num_tracks=num_tracks)


def _too_hard(quantiser: float, known: float) -> str:
    digits = _digits(quantiser, known, at_least=0)
    return (
        f"The video is compressed too hard to judge (quantiser {quantiser:.{digits}f} of 51, known up to {known:.{digits}f}); "
        "a better rendition may allow a verdict."
    )


def _digits(value: float, *lines: float, at_least: int) -> int:
    """Decimals with which a value reads differently from each line that it is not on."""
    for digits in range(at_least, _MOST_DIGITS):
        if all(f"{value:.{digits}f}" != f"{line:.{digits}f}" for line in lines if line != value):
            return digits
    return _MOST_DIGITS


def _name(window: TrackWindow, num_tracks: int) -> str:
    return "the face" if num_tracks == 1 else f"face {window.track_id} of {num_tracks}"


def unstable(decision: Decision, *, again: Sequence[float], calibration: VideoCalibration) -> Decision:
    """The decision after a second opinion on re-compressed crops: a suspicion that most of them drop is no verdict.

    Args:
        decision: what the video would be called.
        again: P(fake) of the deciding window under each re-compression.
        calibration: whose thresholds count.
    """
    dropped = sum(p < calibration.t_review for p in again)
    if decision.verdict not in ("suspicious", "manipulated") or 2 * dropped <= len(again):
        return decision
    return Decision(
        verdict="inconclusive",
        p_fake=decision.p_fake,
        reason_codes=("UNSTABLE_UNDER_RECOMPRESSION",),
        sentence=(
            f"The suspicion about face {decision.track_id} goes away in {dropped} of {len(again)} re-compressed copies of the same pictures; "
            "it rests on traces too faint for a verdict."
        ),
        track_id=decision.track_id,
    )


def _by_threshold(p_fake: float, best: TrackWindow, *, raw: float, draws: int, calibration: VideoCalibration, num_tracks: int) -> Decision:
    """The word of a face that can be judged; `raw` is its score before the correction for a crowd of `draws`, as charts show it."""
    faces, review, fake = _name(best, num_tracks), calibration.t_review, calibration.t_fake
    if p_fake >= fake:
        digits = _digits(p_fake, fake, at_least=2)
        return Decision(
            verdict="manipulated",
            p_fake=p_fake,
            reason_codes=("SCORE_ABOVE_T_FAKE",),
            sentence=f"Likely manipulated: {faces} scores {_among(p_fake, raw, draws, digits)}, at or above the threshold {fake:.{digits}f}.",
            track_id=best.track_id,
        )
    if p_fake >= review:
        digits = _digits(p_fake, review, fake, at_least=2)
        return Decision(
            verdict="suspicious",
            p_fake=p_fake,
            reason_codes=("SCORE_IN_BAND",),
            sentence=(
                f"Suspicious: {faces} scores {_among(p_fake, raw, draws, digits)}, between {review:.{digits}f} and {fake:.{digits}f}; "
                "a person should look."
            ),
            track_id=best.track_id,
        )
    score = _among(p_fake, raw, draws, _digits(p_fake, review, at_least=2))
    return Decision(
        verdict="authentic",
        p_fake=p_fake,
        reason_codes=(),
        sentence=f"No manipulation found: the highest of {num_tracks} face track{'s' if num_tracks > 1 else ''} scores {score}.",
        track_id=best.track_id,
    )


def _among(p_fake: float, raw: float, draws: int, digits: int) -> str:
    """The score of a face as charts show it and, where they differ, what counts among several."""
    shown, counts_as = f"{raw:.{digits}f}", f"{p_fake:.{digits}f}"
    return shown if shown == counts_as else f"{shown}, which counts as {counts_as} among {draws} faces"


def _too_little(windows: Sequence[TrackWindow], *, counts: FaceCounts, num_crops: int) -> Decision | None:
    """The verdict when there was not enough to look at, or None."""
    if counts.num_frames_with_face == 0 and counts.num_small_or_unsure == 0:
        sentence = f"No face of {counts.min_face_px:.0f} pixels or more in {counts.num_frames} looked-at frames; only faces are judged."
        return Decision(verdict="inconclusive", p_fake=None, reason_codes=("NO_FACE",), sentence=sentence)
    if counts.num_frames_with_face == 0:
        sentence = f"Faces were found, but none of at least {counts.min_face_px:.0f} pixels that is surely a face; a larger rendition may allow a verdict."
        return Decision(verdict="inconclusive", p_fake=None, reason_codes=("FACE_TOO_SMALL",), sentence=sentence)
    if not windows or num_crops < MIN_CROPS:
        sentence = (
            f"{counts.num_frames_with_face} of {counts.num_frames} frames had a usable face, and {num_crops} of those faces could be followed over at least "
            f"{MIN_TRACK_CROPS} frames; not enough to judge. A longer clip may allow a verdict."
        )
        return Decision(verdict="inconclusive", p_fake=None, reason_codes=("TOO_FEW_FRAMES",), sentence=sentence)
    return None
