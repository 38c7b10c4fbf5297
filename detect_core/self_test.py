"""A worker checks itself: decoding and every detector against what they gave when the bundles were made.

Weights that load but compute wrong numbers (another library version, a damaged kernel, a wrong precision) look like work
well done. So at start and every now and then procedural pictures go through the real decode child and through every
detector, and the numbers are compared with those written beside the bundle set.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .calibration import BundleSet
from .detectors import is_track_bundle, load_detector, load_track_detector
from .detectors.runtime import SCORE_TOLERANCE
from .engine import Engine
from .errors import BundleIntegrityError, DetectCoreError
from .options import ScreeningOptions
from .video.decode import DecodeSession

SCHEMA: Final = "golden/1"
TOLERANCE: Final = 0.02
"""Logits of the same weights differ by about 1e-5 between processors."""
_NUM_CROPS: Final = 4
_NUM_LOOKS: Final = 8
_MIN_PSNR_DB: Final = 30.0
_CLIP_WH: Final = (160, 128)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    subject: str
    """A bundle's name, or `decoding`."""
    drift: float
    """Distance from what is expected, as a share of what is allowed; above 1 it fails."""
    found: str
    expected: str

    @property
    def passed(self) -> bool:
        """Whether it is near enough."""
        return self.drift <= 1.0


@dataclass(frozen=True, slots=True)
class SelfTest:
    """All checks of one run."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether this process may judge videos."""
        return all(check.passed for check in self.checks)

    @property
    def sentence(self) -> str:
        """What failed, for people."""
        bad = [f"{c.what}: got {c.found}, expected {c.expected}" for c in self.checks if not c.passed]
        return "; ".join(bad) if bad else f"{len(self.checks)} checks passed"


def golden_path(bundle_set_path: Path) -> Path:
    """Where the expected numbers of a bundle set lie: `<set>.golden.json` beside it."""
    return bundle_set_path.with_suffix(".golden.json")


def golden_document(bundle_set: BundleSet) -> dict[str, object]:
    """The expected numbers of a bundle set, in fp32 on the CPU."""
    return {
        "schema": SCHEMA,
        "logits": {bundle.sha256: [round(value, 5) for value in _logits(bundle)] for bundle in bundle_set.bundles},
    }


def run_self_test(bundle_set: BundleSet, golden: Path, *, engine: Engine | None = None) -> SelfTest:
    """Check decoding and every detector of a set.

    Args:
        bundle_set: the set that this process judges with.
        golden: the expected numbers.
        engine: checks the detectors as this process loaded them, whatever their precision; else they are loaded anew.

    Raises:
        BundleIntegrityError: the expected numbers are missing, malformed or of other bundles.
    """
    expected = _read(golden, bundle_set)
    checks = [_decoding()]
    for bundle in bundle_set.bundles:
        values = np.asarray(_logits(bundle, engine))
        wanted = np.asarray(expected[bundle.sha256])
        what, tolerance = "logits", TOLERANCE
        if engine is not None and not is_track_bundle(bundle) and engine.precision(bundle.name) == "bf16":
            # what bf16 rounds away grows with the logit: what is promised, and decides, is the score
            what, tolerance = "scores", SCORE_TOLERANCE["bf16"]
            values, wanted = 1 / (1 + np.exp(-values)), 1 / (1 + np.exp(-wanted))
        worst = float(np.abs(values - wanted).max()) if values.shape == wanted.shape else math.inf
        checks.append(Check(f"{what} of {bundle.name}", bundle.name, worst / tolerance, f"{worst:.5f} away", f"at most {tolerance}"))
    return SelfTest(tuple(checks))


def procedural_picture(seed: int, side_px: int) -> NDArray[np.uint8]:
    """(S, S, 3) RGB waves and soft blobs: structure at all scales, the same on every machine."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    planes = []
    for _ in range(3):
        plane = np.zeros((side_px, side_px))
        for octave in range(1, 6):
            fx, fy = rng.uniform(-(2**octave), 2**octave, 2)
            phase = rng.uniform(0, 2 * np.pi)
            plane += np.sin(2 * np.pi * (fx * x + fy * y) + phase) / octave
        cx, cy, radius = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.3)
        plane += 2 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
        planes.append(plane)
    picture = np.stack(planes, axis=-1)
    low, high = picture.min(), picture.max()
    return np.asarray(np.round(255 * (picture - low) / (high - low)), np.uint8)


def _logits(bundle: Bundle, engine: Engine | None = None) -> list[float]:
    size = bundle.crop.size_px
    if is_track_bundle(bundle):
        points = np.array([[0.4, 0.42], [0.6, 0.42], [0.5, 0.52], [0.42, 0.62], [0.58, 0.62]], np.float32)
        looks = [procedural_picture(seed // 2, size) for seed in range(_NUM_LOOKS)]
        tracker = engine.track_detectors[bundle.name] if engine is not None else load_track_detector(bundle)
        values = tracker.track_logits(looks, [points] * _NUM_LOOKS)
        return [] if values is None else [float(values[0])]
    crops = [procedural_picture(seed, size) for seed in range(_NUM_CROPS)]
    detector = engine.detectors[bundle.name] if engine is not None else load_detector(bundle)
    return [float(value) for value in detector.logits(crops)]


def _read(golden: Path, bundle_set: BundleSet) -> dict[str, list[float]]:
    remedy = "calibrate the set again: that writes them"
    try:
        document = json.loads(golden.read_text())
        if document["schema"] != SCHEMA:
            raise BundleIntegrityError(f"{golden}: schema {document['schema']!r}, expected {SCHEMA!r}; {remedy}")
        logits = {str(key): [float(value) for value in values] for key, values in document["logits"].items()}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise BundleIntegrityError(f"{golden}: no readable expected numbers ({err!r}); {remedy}") from err
    missing = [bundle.name for bundle in bundle_set.bundles if bundle.sha256 not in logits]
    if missing:
        raise BundleIntegrityError(f"{golden}: has no numbers of {', '.join(missing)} as loaded; {remedy}")
    return logits


def _decoding() -> Check:
    """A procedural clip through the encoder and the real decode child must look like itself."""
    check = partial(Check, "decoding a procedural clip", "decoding")
    pictures = [_clip_picture(i) for i in range(_NUM_LOOKS)]
    try:
        with tempfile.TemporaryFile() as file:
            file.write(_encoded(pictures))
            file.seek(0)
            options = ScreeningOptions(num_frames=_NUM_LOOKS)
            with DecodeSession(file, options=options) as session:
                session.open()
                frames, _more = session.next_frames(_NUM_LOOKS)
                decoded = {round(frame.pts_seconds * 25): frame.image_hwc.copy() for frame in frames}
    except DetectCoreError as err:
        return check(math.inf, str(err), "every frame")
    if not decoded or not set(decoded) <= set(range(_NUM_LOOKS)):
        return check(math.inf, f"frames {sorted(decoded)}", f"frames of 0..{_NUM_LOOKS - 1}")
    worst = min(_psnr(pictures[i], image) for i, image in decoded.items())
    amplitude = 10 ** ((_MIN_PSNR_DB - worst) / 20)
    return check(amplitude, f"{worst:.1f} dB", f"at least {_MIN_PSNR_DB:.0f} dB")


def _clip_picture(number: int) -> NDArray[np.uint8]:
    width, height = _CLIP_WH
    return np.ascontiguousarray(procedural_picture(number, width)[:height] // 2 + 64)


def _encoded(pictures: list[NDArray[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as sink:
        stream = sink.add_stream("libx264", rate=25, options={"crf": "8", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *_CLIP_WH, "yuv444p"
        for picture in pictures:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode(None))
    return buffer.getvalue()


def _psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    if a.shape != b.shape:
        return 0.0
    error = float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255.0**2 / error))
