"""Explain stored moments of a finished verdict: decode them again, cut the same crops, ask the detector that spoke where it looked.

Nothing of this is done while videos are screened: it costs a second decode and shows faces, so it is made when a person asks.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray

from .bundle import CropSpec
from .calibration import BundleSet
from .detectors import is_track_bundle, load_detector
from .detectors.crop_net import CropNetDetector
from .errors import BundleMismatchError, OptionError
from .heatmap import blend_mask, coloured, grad_cam, log_spectrum, overlay
from .options import ScreeningOptions
from .video.decode import CropRequest, DecodeSession

Kind = Literal["crop", "grad_cam", "blend_mask", "spectrum"]
MAX_MOMENTS: Final = 6
_SPECTRAL: Final = {"synthesis", "autogan"}
"""Detectors whose cue is what upsampling leaves in the spectrum."""
_SAME_MOMENT_SECONDS: Final = 1e-5
_SEVERAL_LOOKS: Final = re.compile(r"\+([0-9]+)_looks/", re.ASCII)


@dataclass(frozen=True, slots=True)
class Moment:
    """One face at one time, as a verdict's evidence names it."""

    track_id: int
    pts_seconds: float
    xyxy: tuple[float, float, float, float]
    """Face box in pixels of the upright full-size frame."""
    detector: str
    """The detector that spoke loudest; where it judges whole tracks, the loudest of those that look at crops is drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What the detector saw in one moment."""

    moment: Moment
    detector: str
    """The one that is drawn."""
    logit: float
    """Its temperature-scaled logit, computed again on the re-cut crop."""
    pictures: dict[Kind, NDArray[np.uint8]]
    """RGB pictures by kind; what a net cannot give is left out."""


def num_frames_decoded(sampling: str, *, num_requested: int) -> int:
    """How many frames the decoder was asked for in the screening that a verdict's sampling names.

    A look at an undecided video is one of several that were decoded together; a first look is a part of the usual one.
    """
    several = _SEVERAL_LOOKS.search(sampling)
    if several is not None:
        return num_requested * int(several[1])
    return ScreeningOptions().num_frames if "+first_look/" in sampling else num_requested


def drawable_detectors(bundle_set: BundleSet) -> tuple[str, ...]:
    """Detectors that look at single crops, in the set's order: only what they saw can be drawn on one."""
    return tuple(bundle.name for bundle in bundle_set.bundles if not is_track_bundle(bundle))


def explain(
    file: BinaryIO,
    moments: Sequence[Moment],
    *,
    bundle_set: BundleSet,
    num_frames: int,
    device: str = "cpu",
    options: ScreeningOptions | None = None,
    cancel: threading.Event | None = None,
) -> list[Explanation]:
    """Show where the detectors looked.

    Args:
        file: the video that the verdict is about.
        moments: at most `MAX_MOMENTS`, from the verdict's evidence.
        bundle_set: the one that made the verdict.
        num_frames: `num_frames_decoded` of the verdict's sampling: the same looks come out of the decoder.
        device: torch device.
        options: limits of the decode child.
        cancel: set it to stop early.

    Returns:
        One explanation per moment whose frame came out of the decoder again, in the given order; none where only detectors of whole
        tracks count, because compression took the ground from all others.

    Raises:
        MediaError, DecodeLimitError: as in a screening.
        BundleMismatchError: the bundle set has no such detector.
    """
    if len(moments) > MAX_MOMENTS:
        raise OptionError(f"at most {MAX_MOMENTS} moments are explained at once, got {len(moments)}")
    bundles = {bundle.name: bundle for bundle in bundle_set.bundles}
    unknown = sorted({moment.detector for moment in moments} - bundles.keys())
    if unknown:
        raise BundleMismatchError(f"bundle set {bundle_set.label} has no detector {', '.join(unknown)}; load the set that made the verdict")
    # a detector of whole tracks looked at no single crop: nothing of it can be drawn on one
    drawable = drawable_detectors(bundle_set)
    candidates = [(moment.detector,) if moment.detector in drawable else drawable for moment in moments]
    detectors = {
        name: load_detector(bundles[name], device=device) for name in dict.fromkeys(name for names in candidates for name in names)
    }
    nets = {name: detector for name, detector in detectors.items() if isinstance(detector, CropNetDetector)}
    wanted = [
        _Wanted(moment, {name: nets[name].bundle.crop for name in names if name in nets})
        for moment, names in zip(moments, candidates, strict=True)
    ]
    crops, quantiser = _crops(file, wanted, options=replace(options or ScreeningOptions(), num_frames=num_frames), cancel=cancel)
    fusion = bundle_set.calibration.under(quantiser).fusion
    explained = []
    for i, moment in enumerate(moments):
        logits = {name: float(nets[name].logits([crop])[0]) for name, crop in crops.get(i, {}).items()}
        if moment.detector not in logits:
            logits = {name: logits[name] for name in fusion.heard(logits)}
        if logits:
            drawn = fusion.loudest(logits)
            explained.append(_explanation(moment, crops[i][drawn], nets[drawn], logit=logits[drawn]))
    return explained


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One moment and the squares to cut there, by detector."""

    moment: Moment
    specs: Mapping[str, CropSpec]


def _crops(
    file: BinaryIO, wanted: Sequence[_Wanted], *, options: ScreeningOptions, cancel: threading.Event | None
) -> tuple[dict[int, dict[str, NDArray[np.uint8]]], float | None]:
    """The crops of each moment, by its number and then by detector; and the quantiser, as `VideoInfo.quantiser`."""
    crops: dict[int, dict[str, NDArray[np.uint8]]] = {}
    seen: list[float] = []
    with DecodeSession(file, options=options, cancel=cancel) as session:
        info = session.open()
        more = True
        while more and len(crops) < len(wanted):
            frames, more = session.next_frames(options.num_frames)
            seen += [frame.quantiser for frame in frames if frame.quantiser is not None]
            places: list[tuple[int, str]] = []
            requests: list[CropRequest] = []
            for frame in frames:
                for i, each in enumerate(wanted):
                    if abs(each.moment.pts_seconds - frame.pts_seconds) < _SAME_MOMENT_SECONDS:
                        places += [(i, name) for name in each.specs]
                        box = np.asarray(each.moment.xyxy, np.float32)
                        requests += [crop_request(frame.frame_id, box, spec) for spec in each.specs.values()]
            for (i, name), (picture, _sharpness) in zip(places, session.cut(requests), strict=True):
                crops.setdefault(i, {})[name] = picture
            if more:
                session.release()
    of_key = info.quantiser
    return crops, min(of_key, float(np.median(seen))) if seen and of_key is not None else of_key


def crop_request(frame_id: int, xyxy: NDArray[np.float32], spec: CropSpec) -> CropRequest:
    """The square that a crop specification wants around a face box.

    The arithmetic stays in float32 as the face detector's: the same box gives the same pixels, today and when a verdict is explained.
    """
    return CropRequest(
        frame_id=frame_id,
        centre_xy=(float(xyxy[0] + xyxy[2]) / 2, float(xyxy[1] + xyxy[3]) / 2),
        side=float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])) * spec.margin,
        size_px=spec.size_px,
        native=spec.resample == "native",
    )


def _explanation(moment: Moment, crop: NDArray[np.uint8], detector: CropNetDetector, *, logit: float) -> Explanation:
    x_1CHW = detector.prepare([crop])
    looked = grad_cam(detector.net, x_1CHW)
    spectral = detector.bundle.detector in _SPECTRAL
    pictures: dict[Kind, NDArray[np.uint8]] = {"crop": overlay(crop, np.zeros((2, 2), np.float32))}
    if detector.bundle.net == "spectrum":  # its map lies over frequencies, not over the face: zero goes to the middle as in the picture
        spectrum = coloured(log_spectrum(crop))
        pictures["grad_cam"] = overlay(spectrum, np.asarray(np.fft.fftshift(looked), np.float32))
    else:
        pictures["grad_cam"] = overlay(crop, looked)
    mask = blend_mask(detector.net, x_1CHW)
    if mask is not None:
        pictures["blend_mask"] = overlay(crop, mask)
    if spectral:
        pictures["spectrum"] = coloured(log_spectrum(crop), size_px=pictures["crop"].shape[0])
    return Explanation(moment=moment, detector=detector.bundle.name, logit=logit, pictures=pictures)
