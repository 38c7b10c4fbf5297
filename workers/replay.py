"""`veriframe replay`: judge a finished video again under the same conditions, and prove that the verdict repeats, or say what differs.

Batches are filled up so that a crop scores the same bits alone and among the crops of other videos; what still moves a last digit is
another processor, another version or another number of threads. A replay runs on one thread, and the report says what else differs.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from .errors import WorkerError
from .messages import JobFacts, VerdictBody, verdict_body
from .messages.verdict import SamplingPart
from .metrics import Metrics
from .screener import load_screener
from .settings import Settings

_CIRCUMSTANCES: Final = frozenset(
    {
        "video_id",
        "job_id",
        "revision",
        "supersedes",
        "attributes",
        "worker",
        "trace_id",
        "created_at",
        "timing_ms",
        "cost",
        "phash",
        "runtime",
    }
)
"""Parts of a verdict that say when and where it was made, not what was found."""
_EVERYWHERE: Final = frozenset({"ms", "thumb"})
BATCHING_NOISE: Final = 1e-6
"""Numbers that differ by less, relative to their size, differ by the order of additions only."""


class NotReplayableError(WorkerError):
    """Raised when there is no verdict to repeat."""

    code = "NOT_REPLAYABLE"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which the two verdicts differ."""

    where: str
    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it."""

    differences: tuple[Difference, ...]
    """Of what was found; empty: bit for bit the same."""
    circumstances: tuple[Difference, ...]
    """Of what it was computed with: versions, device, threads, bundle set."""
    verdict: VerdictBody = field(repr=False)
    """The new one."""

    @property
    def is_bit_equal(self) -> bool:
        """Whether every number, word and box is the same."""
        return not self.differences

    @property
    def largest_step(self) -> float | None:
        """The largest distance of two numbers, relative to their size when that is above 1; None when more than numbers differs."""
        steps = []
        for each in self.differences:
            if isinstance(each.recorded, bool) or not isinstance(each.recorded, int | float) or not isinstance(each.replayed, int | float):
                return None
            steps.append(abs(each.recorded - each.replayed) / max(1.0, abs(each.recorded), abs(each.replayed)))
        return max(steps, default=0.0)

    def sentence(self) -> str:
        """For people: whether it repeats, and what to make of it when it does not."""
        if self.is_bit_equal:
            return "The verdict repeats bit for bit."
        step = self.largest_step
        if step is not None and step < BATCHING_NOISE:
            return f"The verdict repeats; {len(self.differences)} numbers differ by at most {step:.1e}, as another order of additions makes them."
        causes = ", ".join(each.where for each in self.circumstances)
        because = f" It was made with another {causes}." if causes else ""
        return f"The verdict does not repeat: {len(self.differences)} places differ.{because}"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "bit_equal": self.is_bit_equal,
            "largest_step": self.largest_step,
            "sentence": self.sentence(),
            "differences": [{"where": d.where, "recorded": d.recorded, "replayed": d.replayed} for d in self.differences],
            "circumstances": [{"where": d.where, "recorded": d.recorded, "replayed": d.replayed} for d in self.circumstances],
        }


def compare(recorded: VerdictBody, replayed: VerdictBody) -> Replay:
    """Hold two verdicts of the same video against each other."""
    old, new = recorded.to_json(), replayed.to_json()
    findings = _differences(
        {k: v for k, v in old.items() if k not in _CIRCUMSTANCES}, {k: v for k, v in new.items() if k not in _CIRCUMSTANCES}
    )
    made_with = {name: {**(body["runtime"] or {}), "bundle set": body["bundle_set"]} for name, body in (("old", old), ("new", new))}
    return Replay(
        differences=tuple(findings),
        circumstances=tuple(_differences(made_with["old"], made_with["new"])),
        verdict=replayed,
    )


def _differences(old: Any, new: Any, where: str = "") -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in _EVERYWHERE:
                yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{where}[{i}]")
    elif not _same(old, new):
        yield Difference(where, old, new)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return old == new and math.copysign(1.0, old) == math.copysign(1.0, new)
    return bool(old == new)


def _look(sampling: SamplingPart) -> dict[str, Any]:
    """How often the screening looked; a first look was a part of the usual one, and says its own number only."""
    return {} if "+first_look/" in sampling.policy else {"num_frames": sampling.requested}


def replay(recorded: VerdictBody, file: BinaryIO, *, content_sha256: str, settings: Settings) -> Replay:
    """Judge a video again, alone and on one thread.

    Args:
        recorded: the verdict on record.
        file: the same video.
        content_sha256: of `file`.
        settings: bundle set and device.

    Raises:
        NotReplayableError: there is no finished verdict.
        DetectCoreError: the video cannot be judged any more.
    """
    if recorded.state != "complete" or recorded.sampling is None:
        raise NotReplayableError(f"job {recorded.job_id} is {recorded.state}: only a finished verdict can be repeated")
    import torch

    half = any(model.precision == "bf16" for model in recorded.models)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = settings.model_copy(update={"precision": "auto" if half else "fp32", "shadow_bundle_set": None})
        screener = load_screener(alone, Metrics(), **_look(recorded.sampling))
        try:
            made = screener.screen(file, cancel=threading.Event())
        finally:
            screener.close()
    finally:
        torch.set_num_threads(before)
    facts = JobFacts(video_id=recorded.video_id, job_id=recorded.job_id, content_sha256=content_sha256)
    return compare(recorded, verdict_body(made, job=facts))
