"""From what was seen and scored in one video to its verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .aggregate import TrackWindow, of_track, windows_of
from .calibration import BundleSet, VideoCalibration
from .detectors import Precision
from .evidence import crop_score, mean_logits, suspicious_segments, track_score, worst_moments
from .faces.detect import FoundFace
from .familiarity import distances_of, first_crop_bundle
from .options import ScreeningOptions
from .policy import NOT_LOOKED_AT, Circumstances, Decision, FaceCounts, decide
from .shadow import shadow_opinion, without_shadow
from .structs import CropScore, DetectorReport, FaceBox, Frame, Sampling, Verdict, VideoInfo
from .versions import POLICY, runtime_versions


@dataclass(slots=True)
class Look:
    """What has been gathered about one video so far."""

    frames: list[Frame] = field(default_factory=list)
    boxes: list[list[FaceBox]] = field(default_factory=list)
    crops: dict[tuple[int, int], dict[str, tuple[NDArray[np.uint8], float]]] = field(default_factory=dict)
    """(frame_id, box number) -> detector name -> (picture, sharpness)."""
    logits: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    """(frame_id, box number) -> detector name -> logit, of the detectors that score single crops."""
    waited: dict[str, float] = field(default_factory=dict)
    """Seconds that were spent waiting for each of them after the last frame."""
    found_last: list[FoundFace] | None = None
    """What the face detector found on the newest frame."""
    num_dropped: int = 0
    min_face_px: float = 0.0
    """The smallest face, in full-size pixels, that was looked for."""
    warnings: set[str] = field(default_factory=set)

    def quantiser(self, of_key: float | None) -> float | None:
        """As `VideoInfo.quantiser`.

        Args:
            of_key: that of a key picture.
        """
        seen = [frame.quantiser for frame in self.frames if frame.quantiser is not None]
        return min(of_key, float(np.median(seen))) if seen and of_key is not None else of_key

    def part(self, number: int, num_parts: int) -> Look:
        """One of several looks at the same video: one of every `num_parts` frames that follow each other.

        Another one each time, because the face search has a rhythm of its own: it looks at every third frame as a whole.
        """
        chosen = [i for i in range(len(self.frames)) if (i + i // num_parts) % num_parts == number]
        return replace(self, frames=[self.frames[i] for i in chosen], boxes=[self.boxes[i] for i in chosen])


@dataclass(frozen=True, slots=True)
class Scored:
    """What the detectors said about the crops of one video."""

    scores: Sequence[CropScore]
    crops: Mapping[tuple[int, float], Mapping[str, NDArray[np.uint8]]]
    """(track, seconds) -> detector name -> crop."""
    seconds: Mapping[str, float]
    """Per detector, how long the video waited for it."""
    precision: Mapping[str, Precision]
    """Per detector, what it was computed in."""


def judge(
    look: Look,
    scored: Scored,
    *,
    info: VideoInfo,
    bundle_set: BundleSet,
    shadow: BundleSet | None,
    options: ScreeningOptions,
    num_requested: int,
    num_planned: int,
    sampling_policy: str,
    device: str,
    warnings: Sequence[str],
    stage_seconds: Mapping[str, float],
    decode_cpu: float,
    again: Mapping[int, Sequence[float]] = MappingProxyType({}),
    looks: Sequence[float] = (),
) -> Verdict:
    """Judge one video.

    Args:
        look: frames and faces.
        scored: their scores.
        info: facts about the file.
        bundle_set: whose calibration decides.
        shadow: whose opinion is noted beside it.
        options: how it was looked at.
        num_requested: frames that were asked for.
        num_planned: frames that the video has for them: pictures that are gone at once, or that no decoder gives, are no looks.
        sampling_policy: name of the rule that chose them.
        device: torch device that computed the scores.
        warnings: what was noticed on the way.
        stage_seconds: wall seconds per stage so far.
        decode_cpu: CPU seconds of the decode child.
        again: per track that was asked again, P(fake) of its window on re-compressed crops, see `second_opinion`.
        looks: P(fake) of every whole look, when there were several.
    """
    calibration = bundle_set.calibration.under(info.quantiser)
    scores = [without_shadow(score) for score in scored.scores]
    tracks = {track_id: of_track(scores, track_id) for track_id in sorted({score.track_id for score in scores})}
    judged = windows_of(scores, calibration.fusion.fuse)
    windows: dict[int, TrackWindow | None] = {**dict.fromkeys(tracks), **{window.track_id: window for window in judged}}
    num_wanted = min(num_requested, num_planned)
    if len(look.frames) < 0.8 * num_wanted and "PARTIAL_DECODE" not in warnings:
        warnings = [*warnings, "PARTIAL_DECODE"]
    # of a file that is cut off all there is may have been seen: players show no more
    is_complete = len(look.frames) >= num_wanted
    counts = FaceCounts(
        num_frames=len(look.frames),
        num_frames_with_face=sum(bool(kept) for kept in look.boxes),
        num_small_or_unsure=look.num_dropped,
        min_face_px=max(options.min_face_px, look.min_face_px),
        num_faces=sum(len(kept) for kept in look.boxes),
        not_looked_at=tuple(w for w in warnings if w in NOT_LOOKED_AT and not (w == "PARTIAL_DECODE" and is_complete)),
    )
    first = first_crop_bundle(bundle_set.bundles)
    pictures = {key: crops[first.name] for key, crops in scored.crops.items()} if first is not None else {}
    circumstances = Circumstances(quantiser=info.quantiser, distances=distances_of(judged, tracks, pictures, calibration))
    decision = decide(
        judged,
        counts=counts,
        num_crops=sum(window.num_crops for window in judged),
        calibration=calibration,
        track_logits={window.track_id: mean_logits([s.logits for s in tracks[window.track_id]], window) for window in judged},
        circumstances=circumstances,
        again=again,
    )
    asked = again.get(decision.track_id, ()) if decision.track_id is not None else ()
    judged_tracks = {n: track_score(track, windows[n], calibration=calibration) for n, track in tracks.items()}
    deciding = judged_tracks.get(decision.track_id) if decision.track_id is not None else None
    return Verdict(
        verdict=decision.verdict,
        p_fake=decision.p_fake,
        reason_codes=decision.reason_codes,
        sentence=decision.sentence,
        video=info,
        sampling=Sampling(
            policy=sampling_policy,
            num_requested=num_requested,
            num_decoded=len(look.frames),
            num_faces=counts.num_faces,
            pts_seconds=tuple(round(frame.pts_seconds, 6) for frame in look.frames),
        ),
        tracks=tuple(judged_tracks.values()),
        deciding_track=decision.track_id,
        segments=tuple(s for track in tracks.values() for s in suspicious_segments(track, calibration=calibration)),
        detectors=_reports(bundle_set, tracks, windows, decision, scored),
        evidence=worst_moments(scores, calibration=calibration, pictures=pictures, thumbnails=options.thumbnails, deciding=deciding),
        warnings=tuple(warnings),
        bundle_set=bundle_set.label,
        policy=POLICY,
        t_review=calibration.t_review,
        t_fake=calibration.t_fake,
        calibration=calibration.name,
        stage_seconds={name: round(seconds, 4) for name, seconds in stage_seconds.items()},
        cpu_seconds=round(decode_cpu, 4),
        extra={
            "runtime": runtime_versions(device),
            "shadow": shadow_opinion(scored.scores, crops=scored.crops, shadow=shadow, counts=counts, quantiser=info.quantiser)
            if shadow is not None
            else None,
            **({"p_fake_recompressed": [round(p, 4) for p in asked]} if asked else {}),
            **({"p_fake_of_looks": [round(p, 4) for p in looks]} if looks else {}),
        },
    )


def loudest_crop(logits: Iterable[Mapping[str, float]], calibration: VideoCalibration) -> float:
    """The highest P(fake) of any single crop; 1 without crops, of which nothing is known."""
    return max((crop_score(calibration.fusion.fuse(each), calibration=calibration) for each in logits), default=1.0)


def _reports(
    bundle_set: BundleSet,
    tracks: dict[int, list[CropScore]],
    windows: dict[int, TrackWindow | None],
    decision: Decision,
    scored: Scored,
) -> tuple[DetectorReport, ...]:
    """What each detector said about the deciding track; optional detectors without a bundle are listed, not scored."""
    window = windows.get(decision.track_id) if decision.track_id is not None else None
    means = mean_logits([s.logits for s in tracks[window.track_id]], window) if window is not None else {}
    reports = [
        DetectorReport(
            name=bundle.name,
            version=bundle.version,
            sha256=bundle.sha256,
            state="scored" if bundle.name in means else "no_crops",
            p_fake=float(1.0 / (1.0 + np.exp(-np.clip(means[bundle.name], -40, 40)))) if bundle.name in means else None,
            seconds=round(scored.seconds.get(bundle.name, 0.0), 4),
            precision=scored.precision[bundle.name],
        )
        for bundle in bundle_set.bundles
    ]
    reports += [DetectorReport(name=name, version="", sha256=None, state="not_loaded") for name in bundle_set.missing]
    return tuple(reports)
