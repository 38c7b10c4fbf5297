"""Rows and interleaved measuring: the machine is noisy, so ratios come from one run and minima over alternating repeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Spent:
    """The cheapest of several runs, wall and CPU each for itself."""

    wall_seconds: float
    cpu_seconds: float
    """Of this process's threads and of its decode children."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds per stage of the run with the shortest wall time; stages overlap the decoder's work."""

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "wall_seconds": round(self.wall_seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 4),
            "stages": {name: round(seconds, 4) for name, seconds in self.stages.items()},
            "shares": {name: round(seconds / self.wall_seconds, 3) for name, seconds in self.stages.items()},
        }


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run says about itself."""

    stages: Mapping[str, float] = field(default_factory=dict)
    child_cpu_seconds: float = 0.0


class Bench:
    """Collects rows while it runs."""

    def __init__(self, *, repeats: int, console: Console) -> None:
        self.rows: list[dict[str, Any]] = []
        self.detail: dict[str, Any] = {}
        self.repeats = repeats
        self.console = console

    def row(
        self, what: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None, judged: bool = True
    ) -> None:
        """Add one figure; without a bound, or when not `judged`, it is shown and not judged."""
        goal = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}" if at_most is not None else ""
        passed: bool | None = None
        if judged and at_least is not None:
            passed = value >= at_least
        elif judged and at_most is not None:
            passed = value <= at_most
        self.rows.append({"what": what, "value": round(value, 3), "unit": unit, "goal": goal, "pass": passed})
        self.console.print(Text(f"  {what}: {value:.3g} {unit} {goal and f'(goal {goal})'} ").append(_mark(passed)), highlight=False)

    def interleaved(self, runs: Mapping[str, Callable[[], Ran | None]], *, warm: bool = True) -> dict[str, Spent]:
        """Run all of `runs` in turn, `repeats` times, after one warm-up each."""
        best: dict[str, Spent] = {}
        for repeat in range(self.repeats + warm):
            for name, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                said = run() or Ran()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu + said.child_cpu_seconds
                if repeat >= warm:
                    before = best.get(name, Spent(float("inf"), float("inf")))
                    stages = said.stages if wall < before.wall_seconds else before.stages
                    best[name] = Spent(min(wall, before.wall_seconds), min(cpu, before.cpu_seconds), stages)
        return best

    def seconds(self, run: Callable[[], Any]) -> float:
        """Shortest wall time of `run`."""
        return self.interleaved({"": lambda: _silent(run)}, warm=True)[""].wall_seconds

    def say(self, text: str) -> None:
        """Tell what is being measured."""
        self.console.print(text, style="dim", highlight=False)

    def table(self) -> Table:
        """Every row, for people."""
        table = Table()
        for name in ("what", "value", "unit", "goal", "pass"):
            table.add_column(name)
        for row in self.rows:
            table.add_row(row["what"], str(row["value"]), row["unit"], row["goal"], _mark(row["pass"]))
        return table


def _mark(passed: bool | None) -> Text:
    return {True: Text("yes", style="green"), False: Text("no", style="red"), None: Text("-")}[passed]


def _silent(run: Callable[[], Any]) -> None:
    run()
