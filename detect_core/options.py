"""Options of one screening: what is sampled, what is allowed, how long it may take. Checked when made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from .errors import OptionError

HardwareDecode = Literal["off", "cuda"]
"""What decodes beside software. The other device kinds of the FFmpeg that PyAV brings (qsv, drm, amf) offer none of our decoders."""
HARDWARE_DECODES: Final = get_args(HardwareDecode)
HARDWARE_OUTCOMES: Final = ("device", "unsupported", "failed", "unavailable")
"""How a video was decoded with the option on: on the card; in software because the card does not offer its codec or pixel
format, because something went wrong on the card, or because the card could not be had."""


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise OptionError(f"option {name} must be positive, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What one decode may cost. The decode child is killed beyond them; the worker never is."""

    wall_seconds: float = 60.0
    """Wall clock of all decoding for one video, waiting for detectors not counted."""
    cpu_seconds: int = 120
    """CPU time of the decode child (RLIMIT_CPU)."""
    memory_bytes: int = 2 * 1024**3
    """Address space of the decode child (RLIMIT_AS)."""
    file_bytes: int = 4 * 1024**3
    """Larger files are refused before anything opens them."""
    frame_pixels: int = 7680 * 4320
    """Largest decoded picture."""
    short_side_px: int = 32
    """Smallest short side that is worth a look."""
    num_streams: int = 16
    """Streams in a container."""
    duration_seconds: float = 4 * 3600.0
    """Longest real time span."""
    num_packets: int = 2_000_000
    """Video packets in a file: four hours at 120 per second and some."""
    hold_bytes: int = 256 * 1024**2
    """Full-size pictures that the child keeps at a time while it waits for crop requests."""

    hardware_decode: HardwareDecode = "off"
    """Decode on a graphics card where it can be had; its driver needs a weaker sandbox (deploy/README.md)."""

    def __post_init__(self) -> None:
        if self.hardware_decode not in HARDWARE_DECODES:
            raise OptionError(f"hardware_decode must be one of {', '.join(HARDWARE_DECODES)}, got {self.hardware_decode!r}")
        for name in self.__slots__:
            if name != "hardware_decode":
                _positive(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningOptions:
    """How one video is looked at."""

    num_frames: int = 32
    """Frames that are looked at, decoded in one pass."""
    first_look: int | None = 8
    """Let a video go after this many of them when its score stays below the bundle set's `first_look_clear`; None or a set
    without that threshold: every video gets the whole look."""
    num_looks_undecided: int = 3
    """Looks of `num_frames` other frames that an undecided ("suspicious") video gets; the middle one counts. 1: no further look. When they
    fail, the verdict of the first look stays, with the warning `LOOKS_FAILED`."""
    within_seconds: tuple[float, float] | None = None
    """Only this stretch is sampled, [start, end]; None: the whole video. Verdicts are about whole videos, annotated clips are not."""
    small_long_side_px: int = 640
    """Long side of the pictures that the face detector sees."""
    min_face_px: float = 40.0
    """Smaller faces (longer side, full-size pixels) are not followed; nor are those below a 32nd of the picture's long side, which
    the face search cannot see on its small pictures (`SMALLEST_FACE_PX` of 640)."""
    min_confidence: float = 0.9
    """Face-detector probability below which a box is dropped."""
    max_faces_per_frame: int = 24
    """The largest ones are kept: 10,000 faces must not starve the neighbours."""
    decode: DecodeLimits = field(default_factory=DecodeLimits)
    """Limits of the decode child."""
    total_seconds: float = 840.0
    """Wall clock of the whole screening."""
    thumbnails: bool = False
    """Whether the verdict carries small JPEGs of the worst moments. They are face data, so nobody gets them unasked."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "small_long_side_px", "min_face_px", "max_faces_per_frame", "total_seconds"):
            _positive(name, getattr(self, name))
        if self.within_seconds is not None and not 0.0 <= self.within_seconds[0] < self.within_seconds[1]:
            raise OptionError(f"within_seconds must be (start, end) with 0 <= start < end, got {self.within_seconds}")
        if self.first_look is not None and self.first_look < 5:
            raise OptionError(f"first_look must be at least 5, got {self.first_look}: fewer crops allow no verdict")
        if self.num_looks_undecided not in (1, 3, 5):
            raise OptionError(
                f"num_looks_undecided must be 1, 3 or 5, got {self.num_looks_undecided}: of an even number none is the middle one"
            )
        if not 0.0 <= self.min_confidence <= 1.0:
            raise OptionError(f"min_confidence must be in [0, 1], got {self.min_confidence}")
