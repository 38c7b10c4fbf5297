"""Frozen, self-checking data that passes between the stages of one screening.

Images are RGB, uint8, HWC, range 0-255. Boxes are `xyxy` in float pixels of the upright full-size frame.
Times are seconds since the first presentation timestamp of the video stream. Label and scores: 1 = fake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

FAKE: Final = 1
"""The label of manipulated material, everywhere."""

REAL: Final = 0
"""The label of untouched material, everywhere."""

VerdictWord = Literal["authentic", "suspicious", "manipulated", "inconclusive"]

VERDICT_SENTENCES: Final[dict[str, str]] = {
    "authentic": "no manipulation found",
    "suspicious": "suspicious",
    "manipulated": "likely manipulated",
    "inconclusive": "cannot tell",
}
"""How each verdict word is shown to people."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_probability(value: float | None, name: str) -> None:
    if value is not None:
        _require(0.0 <= value <= 1.0, f"{name} must be a probability in [0, 1] or None, got {value!r}")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the decode child measured about a video, from packets and decoded frames, never from headers alone."""

    width_px: int
    """Width of the upright picture."""
    height_px: int
    """Height of the upright picture."""
    duration_seconds: float
    """Span of the presentation timestamps, not the container's claim."""
    num_packets: int
    """Video packets in the screened stream whose picture is shown: an edit list may leave some out."""
    num_keyframes: int
    """Packets flagged as key."""
    codec: str
    """Codec name as FFmpeg spells it, for example `h264`."""
    container: str
    """Demuxer name, for example `mov,mp4,m4a,3gp,3g2,mj2`."""
    pixel_format: str
    """Pixel format of the stream, for example `yuv420p`."""
    rotation_degrees: int
    """Clockwise rotation that was applied to stand the picture upright: 0, 90, 180 or 270."""
    frame_rate: float | None = None
    """Median frame rate by timestamps; None for a single frame."""
    bit_rate: float | None = None
    """Bits per second of the video packets; None for a single frame."""
    quantiser: float | None = None
    """Mean H.264 quantiser, up to 51 (0 is nearly lossless, deep pictures go below): that of a key picture or the median of the
    looked-at ones, whichever is lower, because a coarse one here and there takes nothing from the others. None for other codecs."""
    warnings: tuple[str, ...] = ()
    """Public warning codes, for example `VFR`."""

    def __post_init__(self) -> None:
        _require(self.width_px > 0 and self.height_px > 0, f"video size must be positive, got {self.width_px}x{self.height_px}")
        _require(self.rotation_degrees in (0, 90, 180, 270), f"rotation must be 0/90/180/270, got {self.rotation_degrees}")
        _require(self.duration_seconds >= 0, f"duration must be >= 0 s, got {self.duration_seconds}")
        _require(self.quantiser is None or -40 <= self.quantiser <= 51, f"quantiser must be in -40 to 51, got {self.quantiser}")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded, upright, down-scaled picture for the face detector."""

    frame_id: int
    """Handle of the full-size picture that the decode child still holds."""
    pts_seconds: float
    """Presentation time."""
    image_hwc: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    scale: float
    """Full-size pixels per pixel of `image_hwc`, >= 1 unless the source is smaller."""
    quantiser: float | None = None
    """Mean H.264 quantiser of the picture, with what scaling matrices add; None for other codecs and pictures that a graphics card decoded."""

    def __post_init__(self) -> None:
        image = self.image_hwc
        _require(
            image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
            f"image_hwc must be uint8 (H, W, 3), got {image.dtype} {image.shape}",
        )
        _require(self.scale > 0, f"scale must be positive, got {self.scale}")
        _require(self.quantiser is None or -40 <= self.quantiser <= 51, f"quantiser must be in -40 to 51, got {self.quantiser}")


@dataclass(frozen=True, slots=True, eq=False)
class FaceBox:
    """One found face in one frame."""

    frame_id: int
    pts_seconds: float
    xyxy: NDArray[np.float32]
    """(4,) pixels of the full-size upright frame."""
    landmarks: NDArray[np.float32]
    """(5, 2) left eye, right eye, nose, left and right mouth corner, same pixels as `xyxy`."""
    confidence: float
    """The face detector's own probability that this is a face."""

    def __post_init__(self) -> None:
        _require(self.xyxy.shape == (4,), f"xyxy must have shape (4,), got {self.xyxy.shape}")
        _require(self.landmarks.shape == (5, 2), f"landmarks must have shape (5, 2), got {self.landmarks.shape}")
        _require(bool(np.isfinite(self.xyxy).all()), f"xyxy must be finite, got {self.xyxy}")
        _require(self.side_px > 0, f"the box must have an area, got {self.xyxy}")

    @property
    def side_px(self) -> float:
        """Longer side of the box in full-size pixels."""
        return float(max(self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1]))

    def landmarks_in_crop(self, margin: float) -> NDArray[np.float32]:
        """The five points (5, 2) in units of the side of a square crop of `margin` times the box's longer side."""
        side = self.side_px * margin
        corner = (self.xyxy[:2] + self.xyxy[2:]) / 2 - side / 2
        return np.asarray((self.landmarks - corner) / side, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """A square crop of one face out of the full-size frame, as one crop specification asks for it."""

    box: FaceBox
    image_hwc: NDArray[np.uint8]
    """(S, S, 3) RGB."""
    source_side_px: float
    """Side of the cut square in the full-size frame before it was resized to S."""
    sharpness: float
    """Variance of the Laplacian of the grey crop (0-255 scale)."""

    def __post_init__(self) -> None:
        image = self.image_hwc
        _require(
            image.ndim == 3 and image.shape[0] == image.shape[1] and image.shape[2] == 3 and image.dtype == np.uint8,
            f"image_hwc must be uint8 (S, S, 3), got {image.dtype} {image.shape}",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The same face followed over the sampled frames, in time order."""

    track_id: int
    boxes: tuple[FaceBox, ...]

    def __post_init__(self) -> None:
        _require(len(self.boxes) > 0, "a track needs at least one box")
        times = [box.pts_seconds for box in self.boxes]
        _require(times == sorted(times), f"boxes of a track must be in time order, got {times}")


@dataclass(frozen=True, slots=True)
class CropScore:
    """What the detectors said about one crop of one track."""

    track_id: int
    pts_seconds: float
    logits: dict[str, float]
    """Temperature-scaled logit per detector name; > 0 leans fake."""
    weight: float
    """Quality weight in [0, 1]: face confidence, size, sharpness."""
    side_px: float
    """Longer side of the face box in full-size pixels."""
    xyxy: tuple[float, float, float, float]
    """Face box in full-size pixels."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.weight <= 1.0, f"weight must be in [0, 1], got {self.weight}")
        _require(all(np.isfinite(v) for v in self.logits.values()), f"logits must be finite, got {self.logits}")


@dataclass(frozen=True, slots=True)
class TrackScore:
    """One track's part in the verdict."""

    track_id: int
    num_crops: int
    time_seconds: tuple[float, float]
    """First and last sampled time of the face."""
    p_fake: float | None
    """Calibrated probability of this track alone; None when the track was not scored."""
    z: float | None
    """Raw track score (logit units) before crowd correction and calibration."""
    worst: Evidence | None
    """The crop that speaks loudest."""
    scores: tuple[tuple[float, float], ...] = ()
    """(pts_seconds, fused crop score in [0, 1]) over time, for charts."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Face box per entry of `scores`, `xyxy` in full-size pixels; empty when not kept."""
    window_seconds: tuple[float, float] | None = None
    """First and last time of the window that made `p_fake`; None when the track was not scored."""

    def __post_init__(self) -> None:
        _require_probability(self.p_fake, "p_fake")
        _require(
            not self.boxes or len(self.boxes) == len(self.scores),
            f"a track needs one box per score or none, got {len(self.boxes)} boxes and {len(self.scores)} scores",
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """One moment that justifies a verdict."""

    track_id: int
    pts_seconds: float
    xyxy: tuple[float, float, float, float]
    score: float
    """Fused crop score in [0, 1]."""
    detector: str | None = None
    """The detector that spoke loudest here: whose heat-map explains this moment."""
    thumbnail_jpeg: bytes | None = field(default=None, repr=False)
    """Small JPEG of the crop; None unless the caller asked for thumbnails."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one track in which the window score passes the review threshold."""

    track_id: int
    start_seconds: float
    end_seconds: float
    peak: float


@dataclass(frozen=True, slots=True)
class DetectorReport:
    """What one detector did in one screening."""

    name: str
    version: str
    sha256: str | None
    state: Literal["scored", "not_loaded", "no_crops"]
    p_fake: float | None = None
    """Sigmoid of its mean logit over the window that decided (the best one of the fused score), uncalibrated across detectors; None
    unless scored."""
    seconds: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    """What its net was computed in: scores of the two differ by up to 0.01."""

    def __post_init__(self) -> None:
        _require_probability(self.p_fake, "p_fake")
        _require(self.state == "scored" or self.p_fake is None, f"{self.name} did not score but has p_fake {self.p_fake}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which moments were looked at."""

    policy: str
    num_requested: int
    num_decoded: int
    num_faces: int
    pts_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one video. `p_fake` is null unless it was measured; no failure is ever expressed as a score."""

    verdict: VerdictWord
    p_fake: float | None
    reason_codes: tuple[str, ...]
    sentence: str
    """One sentence for people: what was found or why nothing could be said, and the next step."""
    video: VideoInfo
    sampling: Sampling
    tracks: tuple[TrackScore, ...] = ()
    deciding_track: int | None = None
    """Number of the track that the word and `p_fake` rest on, if they rest on one."""
    segments: tuple[Segment, ...] = ()
    detectors: tuple[DetectorReport, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    bundle_set: str = ""
    """Name and hash of the bundle set, `name@sha256[:12]`."""
    policy: str = ""
    t_review: float | None = None
    t_fake: float | None = None
    calibration: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.verdict in VERDICT_SENTENCES, f"unknown verdict word {self.verdict!r}")
        _require_probability(self.p_fake, "p_fake")
        if self.verdict != "inconclusive":
            _require(self.p_fake is not None, f"verdict {self.verdict!r} needs a measured p_fake")
        else:
            _require(len(self.reason_codes) > 0, "an inconclusive verdict needs at least one reason code")
