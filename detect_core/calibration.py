"""A bundle set: which detectors run together, how their logits become one probability, and where the thresholds lie.

Fitted on videos, as a whole chain (fusion, track strategy, crowd correction, Platt). A calibration names the hashes of
the bundles that it was fitted with and refuses any other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from .bundle import SHIPPED_ROOT, Bundle, load_bundle
from .domain import Domain
from .errors import BundleIntegrityError, BundleMismatchError, BundleNotFoundError

SCHEMA: Final = "bundle_set/1"
DEFAULT_SET: Final = SHIPPED_ROOT / "default.json"
LEAK: Final = 0.1
"""Of `evidence_sum`: how much a detector that finds nothing takes back from one that finds something."""
LOGIT_CLIP: Final = 6.0
"""Crop logits beyond +-6 say nothing more; one wild crop must not outweigh all others."""


@dataclass(frozen=True, slots=True)
class Fade:
    """What compression does to a detector that looks at fine traces: its scores rise on reals, and mean less and less.

    Normalising scores by the quality of what was measured: Poh and Kittler 2012, "A unified framework for biometric expert fusion
    incorporating quality measures".
    """

    full_until: float
    """H.264 quantiser up to which nothing changes."""
    none_from: float
    """From here on the detector is not heard at all; in between it fades evenly."""
    drift: float
    """Logits that a real face gains per step of the quantiser beyond `full_until`."""

    def __post_init__(self) -> None:
        if not self.full_until < self.none_from or not math.isfinite(self.drift):
            raise BundleIntegrityError(
                f"a fade needs full_until below none_from and a finite drift, got {self.full_until}, {self.none_from}, {self.drift}; calibrate again"
            )


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the detectors' logits of one crop become one."""

    kind: Literal["max", "weighted_sum", "evidence_sum"]
    """`evidence_sum`: the parts are added, those below zero at a tenth. A detector knows some kinds of fakes and calls
    the others real with confidence: that it finds nothing is hardly evidence, that two find something is more than one."""
    offsets: Mapping[str, float]
    """Added per detector before fusing (a weak detector gets a negative one)."""
    weights: Mapping[str, float]
    """Factors per detector for `weighted_sum` and `evidence_sum`."""
    fades: Mapping[str, Fade] = field(default_factory=dict)
    """Detectors that compression takes the ground from; for the two sums only."""

    def __post_init__(self) -> None:
        if self.fades and self.kind == "max":
            raise BundleIntegrityError("a maximum cannot fade: a detector that is not heard would still bid; use a sum")

    def under(self, quantiser: float | None) -> Fusion:
        """How they are joined in a video of that mean H.264 quantiser; of an unknown one as they are."""
        if quantiser is None:
            return self
        offsets, weights = dict(self.offsets), dict(self.weights)
        for name, fade in self.fades.items():
            steps = max(0.0, quantiser - fade.full_until)
            heard = 1.0 - min(1.0, steps / (fade.none_from - fade.full_until))
            weight = weights.get(name, 0.0)
            offsets[name] = heard * (offsets.get(name, 0.0) - weight * fade.drift * steps)
            weights[name] = heard * weight
        return Fusion(self.kind, offsets, weights)

    def fuse(self, logits: Mapping[str, float]) -> float:
        """One logit, clipped to +-LOGIT_CLIP (of `evidence_sum` every part); detectors that did not score the crop are left out."""
        parts = self._parts(logits).values()
        if self.kind == "evidence_sum":
            return sum(_clipped(part) if part > 0 else LEAK * _clipped(part) for part in parts)
        return _clipped(max(parts) if self.kind == "max" else sum(parts))

    def loudest(self, logits: Mapping[str, float]) -> str:
        """The detector whose part of the fused logit leans most to fake; on a tie the first one. One that has faded away is not named."""
        parts = self._parts(logits)
        return max(self.heard(parts) or parts, key=lambda name: parts[name])

    def heard(self, names: Iterable[str]) -> list[str]:
        """Those of the detectors that count: without weight, or faded away, one does not."""
        return [name for name in names if self.kind == "max" or self.weights.get(name)]

    def _parts(self, logits: Mapping[str, float]) -> dict[str, float]:
        """What each detector adds to the sum, or bids for the maximum."""
        factors = dict.fromkeys(logits, 1.0) if self.kind == "max" else self.weights
        return {name: factors.get(name, 0.0) * value + self.offsets.get(name, 0.0) for name, value in logits.items()}


@dataclass(frozen=True, slots=True)
class VideoCalibration:
    """From the raw video score to P(fake) and a verdict word."""

    fusion: Fusion
    strategy: str
    beta: float
    """Crowd correction: mean excess of real tracks' scores above their 90th percentile."""
    platt_a: float
    platt_c: float
    t_review: float
    t_fake: float
    name: str
    """What the verdict shows as `calibration`."""
    max_disagreement: float | None = None
    """Spread of the detectors' track logits beyond which nothing is claimed; None switches the check off."""
    max_quantiser: float | None = None
    """Mean H.264 quantiser beyond which only a score above `t_fake` is believed; None switches the check off."""
    domain: Domain | None = None
    """Where the faces lie that the scores were measured on; None switches the check off."""
    first_look_clear: float | None = None
    """P(fake) of a first look below which a video is let go; None: every video gets the whole look."""

    def __post_init__(self) -> None:
        if not 0.0 < self.t_review <= self.t_fake < 1.0:
            raise BundleIntegrityError(
                f"thresholds must satisfy 0 < t_review <= t_fake < 1, got {self.t_review} and {self.t_fake}; calibrate again"
            )
        if self.platt_a <= 0 or self.beta < 0:
            raise BundleIntegrityError(
                f"Platt slope must be positive and beta not negative, got {self.platt_a} and {self.beta}; calibrate again"
            )

    def under(self, quantiser: float | None) -> VideoCalibration:
        """The same for a video of that mean H.264 quantiser, see `Fusion.under`."""
        return replace(self, fusion=self.fusion.under(quantiser))

    def probability(self, z: float) -> float:
        """P(fake) of a raw video or track score (Platt 1999)."""
        return 1.0 / (1.0 + math.exp(-max(min(self.platt_a * z + self.platt_c, 40.0), -40.0)))

    @property
    def steepness(self) -> float:
        """How far P(fake) moves for each step that the scores of all detectors take together, where both are near one half."""
        weights = self.fusion.weights.values()
        return self.platt_a * (1.0 if self.fusion.kind == "max" else sum(abs(weight) for weight in weights))


@dataclass(frozen=True, slots=True)
class BundleSet:
    """Verified bundles and the calibration made for exactly them."""

    name: str
    bundles: tuple[Bundle, ...]
    missing: tuple[str, ...]
    """Optional detectors without a bundle: listed as not loaded, never scored."""
    calibration: VideoCalibration
    sha256: str
    document: Mapping[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        """`name@hash`, as verdicts show it."""
        return f"{self.name}@{self.sha256[:12]}"


def bundle_set_path(name_or_path: Path | str | None) -> Path:
    """The file of a bundle set: a path, the bare name of a shipped set, or the default one for None."""
    if name_or_path is None:
        return DEFAULT_SET
    shipped = SHIPPED_ROOT / f"{name_or_path}.json"
    return shipped if Path(name_or_path).name == str(name_or_path) and shipped.is_file() else Path(name_or_path)


def load_bundle_set(path: Path | str = DEFAULT_SET) -> BundleSet:
    """Read a bundle set, by path or by the bare name of a shipped one, and verify every bundle in it.

    Raises:
        BundleNotFoundError: the set or a bundle is missing.
        BundleIntegrityError: something is malformed, two bundles have one name, or a file's hash differs from its card.
        BundleMismatchError: a bundle is not the one that the calibration was fitted with.
    """
    path = bundle_set_path(path)
    if not path.is_file():
        raise BundleNotFoundError(
            f"tried to load the bundle set {path}: no such file; reinstall, or give the path of a set that training exported"
        )
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise BundleIntegrityError(f"{path}: schema {document['schema']!r}, expected {SCHEMA!r}; export the set again")
        bundles = tuple(_member(path.parent, row) for row in document["bundles"])
        twice = [bundle.name for i, bundle in enumerate(bundles) if bundle.name in {other.name for other in bundles[:i]}]
        if twice:
            raise BundleIntegrityError(
                f"{path}: two bundles are called {twice[0]}, expected a name of its own for each; export one under another name and calibrate again"
            )
        calibration = _calibration(document)
        name = str(document["name"])
        optional = [str(each) for each in document.get("optional", [])]
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BundleIntegrityError(f"{path}: not a readable bundle set ({err!r}); export it again") from err
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    missing = tuple(each for each in optional if each not in {bundle.name for bundle in bundles})
    return BundleSet(name=name, bundles=bundles, missing=missing, calibration=calibration, sha256=digest, document=document)


def _member(root: Path, row: Mapping[str, Any]) -> Bundle:
    bundle = load_bundle(root / str(row["path"]))
    if bundle.sha256 != row["sha256"]:
        raise BundleMismatchError(
            f"the calibration was fitted with {row['name']} {str(row['sha256'])[:12]}, the bundle in {bundle.root} is {bundle.sha256[:12]}; "
            "restore that bundle or calibrate again"
        )
    return bundle


def _calibration(document: Mapping[str, Any]) -> VideoCalibration:
    fusion, thresholds = document["fusion"], document["thresholds"]
    if fusion["kind"] not in ("max", "weighted_sum", "evidence_sum"):
        raise ValueError(f"unknown fusion {fusion['kind']!r}")
    return VideoCalibration(
        fusion=Fusion(
            kind=fusion["kind"],
            offsets={str(k): float(v) for k, v in fusion.get("offsets", {}).items()},
            weights={str(k): float(v) for k, v in fusion.get("weights", {}).items()},
            fades={str(k): Fade(**{name: float(value) for name, value in v.items()}) for k, v in fusion.get("fades", {}).items()},
        ),
        strategy=str(document["strategy"]),
        beta=float(document["beta"]),
        platt_a=float(document["platt"]["a"]),
        platt_c=float(document["platt"]["c"]),
        t_review=float(thresholds["t_review"]),
        t_fake=float(thresholds["t_fake"]),
        name=f"platt-{document['protocol']['date']}",
        max_disagreement=_optional(document, "max_disagreement"),
        max_quantiser=_optional(document, "max_quantiser"),
        domain=_domain(document.get("domain")),
        first_look_clear=_optional(document, "first_look_clear"),
    )


def _clipped(logit: float) -> float:
    return min(max(logit, -LOGIT_CLIP), LOGIT_CLIP)


def _optional(document: Mapping[str, Any], name: str) -> float | None:
    return float(document[name]) if document.get(name) is not None else None


def _domain(document: Mapping[str, Any] | None) -> Domain | None:
    if document is None:
        return None
    return Domain(
        mean=np.asarray(document["mean"], np.float64),
        precision=np.asarray(document["precision"], np.float64),
        limit=float(document["limit"]),
    )
