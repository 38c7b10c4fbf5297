"""Rows of the chaos report: what was measured, the goal, and whether it was met."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass
class Row:
    what: str
    value: float | int | str
    unit: str
    goal: str
    passed: bool | None
    """None: printed for comparison only."""


@dataclass
class Report:
    """Everything one chaos run found."""

    seed: int
    smoke: bool
    rows: list[Row] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def add(self, what: str, value: float | str, unit: str, *, goal: str, passed: bool | None) -> None:
        self.rows.append(Row(what, round(value, 3) if isinstance(value, float) else value, unit, goal, passed))

    def at_most(self, what: str, value: float, unit: str, limit: float) -> None:
        """A figure that must not pass a limit."""
        self.add(what, value, unit, goal="0" if limit == 0 else f"<= {limit:g}", passed=value <= limit)

    def equals(self, what: str, value: float, unit: str, goal: float) -> None:
        """A figure that must be met exactly."""
        self.add(what, value, unit, goal=f"{goal:g}", passed=value == goal)

    @property
    def is_good(self) -> bool:
        return all(row.passed is not False for row in self.rows)

    def write(self, path: Path) -> None:
        """Write what is known so far; an interrupted run leaves the scenarios that it finished."""
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "rows": [{**{k: v for k, v in asdict(row).items() if k != "passed"}, "pass": row.passed} for row in self.rows],
            "detail": {**self.detail, "seed": self.seed, "smoke": self.smoke, "seconds": round(time.time() - self.started, 1)},
        }
        path.write_text(json.dumps(body, indent=1) + "\n")

    def show(self) -> None:
        table = Table(header_style="bold")
        for name, justify in (("what", "left"), ("value", "right"), ("unit", "left"), ("goal", "left"), ("", "left")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            mark = {True: "[green]ok[/]", False: "[bold red]MISSED[/]", None: "-"}[row.passed]
            table.add_row(row.what, str(row.value), row.unit, row.goal, mark)
        Console(width=140).print(table)
