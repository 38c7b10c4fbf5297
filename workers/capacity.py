"""How many workers a load needs, from what `veriframe bench` measured on the machine that they will be like."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from .errors import WorkerError
from .forecast import CostModel, MediaCost, MediaSums, fit

COLUMNS: Final = ("share", "duration_seconds", "height", "num_faces")
"""Columns of a mix: how often, how long, how high (16:9), how many people in view."""

_MIN_CLIPS: Final = 5


class CapacityError(WorkerError):
    """Raised when the report or the mix do not allow an answer."""

    code = "CAPACITY_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Upload:
    """One kind of upload."""

    share: float
    duration_seconds: float
    height_px: int
    num_faces: float

    def __post_init__(self) -> None:
        if not (self.share > 0 and self.duration_seconds > 0 and self.height_px > 0 and self.num_faces >= 0):
            raise CapacityError(f"a kind of upload needs positive numbers and num_faces >= 0, got {self}")

    @property
    def megapixels(self) -> float:
        """Size of a 16:9 picture of this height."""
        return self.height_px**2 * 16 / 9 / 1e6


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of worker: what one video costs on it."""

    name: str
    model: CostModel
    spread: float
    """Root mean square of measured over predicted, less one: how far to trust the model."""

    def seconds(self, upload: Upload) -> float:
        """Seconds of one worker for one upload of this kind."""
        sums = MediaSums(1, upload.duration_seconds, 1, upload.megapixels, 1, upload.num_faces, 1)
        return self.model.predict(sums)


@dataclass(frozen=True, slots=True)
class Need:
    """The answer for one kind of worker."""

    kind: str
    seconds_per_video: float
    num_workers: int
    utilisation: float
    p95_wait_seconds: float
    p95_seconds: float
    """Waiting and work together, an upper bound: both at their 95th percentile."""


def read_bench(path: Path) -> Kind:
    """A kind of worker from a report of `veriframe bench`.

    Raises:
        CapacityError: there is no report, it is incomplete, or of another shape.
    """
    if not path.is_file():
        raise CapacityError(
            f"no measurements at {path}: run `veriframe bench` on a machine like your workers, or name a report with --bench"
        )
    try:
        detail = json.loads(path.read_text())["detail"]
        costs = _costs(detail)
    except OSError as err:
        raise CapacityError(f"the measurements {path} cannot be read ({err.strerror}): check the path and its permissions") from err
    except (ValueError, KeyError, TypeError) as err:
        raise CapacityError(
            f"{path} is no complete report of this version ({type(err).__name__}: {err}): run `veriframe bench` again, to its end"
        ) from err
    if len(costs) < _MIN_CLIPS:
        raise CapacityError(f"{path} holds {len(costs)} clips, {_MIN_CLIPS} are needed: run `veriframe bench` again, to its end")
    model = fit(costs, min_samples=_MIN_CLIPS)
    ratios = [
        cost.work_seconds / model.predict(MediaSums(1, cost.duration_seconds, 1, cost.megapixels, 1, cost.num_faces, 1)) for cost in costs
    ]
    spread = math.sqrt(sum((ratio - 1) ** 2 for ratio in ratios) / len(ratios))
    name = f"{detail.get('device', 'cpu')}, {detail['threads']} thread{'s' if detail['threads'] != 1 else ''}"
    return Kind(name=name, model=model, spread=spread)


_LENGTHS: Final = {"10 s": 10.0, "30 s": 30.0, "2 min": 120.0, "10 min": 600.0, "2 h": 7200.0}


def _costs(detail: dict[str, Any]) -> list[MediaCost]:
    """The clips of the bench's curves: over length, size and faces; portrait clips show one face."""
    clips = [(_LENGTHS[name], 1080, 1.0, spent) for name, spent in detail["by_length"].items()]
    clips += [(10.0, int(name.removesuffix("p")), 1.0, spent) for name, spent in detail["by_size"].items()]
    clips += [(4.0, 1080, float(spent["found_per_frame"]), spent) for spent in detail["by_faces"].values()]
    return [
        MediaCost(duration_seconds=length, megapixels=height**2 * 16 / 9 / 1e6, num_faces=faces, work_seconds=spent["wall_seconds"])
        for length, height, faces, spent in clips
    ]


def read_mix(path: Path) -> list[Upload]:
    """The mix of uploads, a CSV file with the columns of `COLUMNS`.

    Raises:
        CapacityError: it is missing, empty, or a cell is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins it with a mark
            rows = list(csv.DictReader(file))
        return [
            Upload(float(row["share"]), float(row["duration_seconds"]), int(row["height"]), float(row["num_faces"])) for row in rows
        ] or _no_rows(path)
    except OSError as err:
        raise CapacityError(
            f"the mix {path} cannot be read ({err.strerror}): write a CSV file with the columns {','.join(COLUMNS)}"
        ) from err
    except (KeyError, TypeError, ValueError) as err:
        raise CapacityError(f"the mix {path} needs the columns {','.join(COLUMNS)} with a number in every cell: {err}") from err


def _no_rows(path: Path) -> list[Upload]:
    raise CapacityError(f"the mix {path} has no rows: one line per kind of upload, columns {','.join(COLUMNS)}")


def wait_above(num_workers: int, *, load: float, service_seconds: float, limit_seconds: float) -> float:
    """P(waiting > limit) in a queue with Poisson arrivals, exponential service and `num_workers` servers (Erlang C).

    Args:
        num_workers: servers.
        load: offered load in servers (arrivals per second times service seconds), below `num_workers`.
        service_seconds: mean service time.
        limit_seconds: how long a video may wait.
    """
    blocked = 1.0
    for servers in range(1, num_workers + 1):  # Erlang B by its recursion: no factorials, no overflow
        blocked = load * blocked / (servers + load * blocked)
    share = load / num_workers
    waits = blocked / (1 - share + share * blocked)
    return waits * math.exp(-(num_workers - load) * limit_seconds / service_seconds)


def p95_wait(num_workers: int, *, load: float, service_seconds: float) -> float:
    """95th percentile of waiting."""
    waits = wait_above(num_workers, load=load, service_seconds=service_seconds, limit_seconds=0.0)
    return 0.0 if waits <= 0.05 else math.log(waits / 0.05) * service_seconds / (num_workers - load)


def workers_needed(kind: Kind, mix: Sequence[Upload], *, uploads_per_hour: float, slo_seconds: float, utilisation: float) -> Need:
    """The smallest pool that keeps the promise for 95 % of uploads and is not used above `utilisation`.

    Raises:
        CapacityError: the work alone takes longer than the promise, whatever the number of workers.
    """
    shares = sum(upload.share for upload in mix)
    times = sorted((kind.seconds(upload), upload.share / shares) for upload in mix)
    mean = sum(seconds * share for seconds, share in times)
    covered, slow = 0.0, times[-1][0]
    for seconds, share in times:
        covered += share
        if covered >= 0.95 - 1e-9:
            slow = seconds
            break
    if slow >= slo_seconds:
        raise CapacityError(
            f"on {kind.name} the slowest 5 % of this mix take {slow:.1f} s of work alone, the promise is {slo_seconds:g} s: "
            "measure a faster kind of worker or give these uploads the lane bulk"
        )
    load = uploads_per_hour / 3600 * mean
    num = max(1, math.ceil(load / utilisation - 1e-9))
    while num <= load or p95_wait(num, load=load, service_seconds=mean) + slow > slo_seconds:
        num += 1
    wait = p95_wait(num, load=load, service_seconds=mean)
    return Need(kind.name, mean, num, load / num, wait, wait + slow)


def capacity_table(needs: Sequence[Need]) -> Table:
    """The answers, one line per kind of worker."""
    table = Table()
    for name in ("worker like", "seconds per video", "workers", "used", "waiting, p95", "intake to verdict, p95"):
        table.add_column(name, justify="left" if name == "worker like" else "right")
    for need in needs:
        table.add_row(
            need.kind,
            f"{need.seconds_per_video:.2f}",
            str(need.num_workers),
            f"{need.utilisation:.0%}",
            f"{need.p95_wait_seconds:.1f} s",
            f"<= {need.p95_seconds:.1f} s",
        )
    return table
