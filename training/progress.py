"""Progress of a run on the terminal: a bar with the time left, and one line per logged row where there is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich import progress as rich_progress
from rich.console import Console

_SHOWN = 6


class Progress:
    """Used as a run's `on_log`.

    Args:
        settings: the recipe's settings; their `steps` or `epochs` give the length, when they have any.
        console: where to write.
    """

    def __init__(self, settings: Any, console: Console) -> None:
        self._console = console
        steps = getattr(settings, "steps", None) or getattr(settings, "epochs", None)
        self._total = steps if isinstance(steps, int) else None
        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[figures]}"),
        )
        self._bar = rich_progress.Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("training", total=self._total, figures="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __call__(self, row: dict[str, Any]) -> None:
        figures = " ".join(f"{key}={value}" for key, value in row.items())
        if not self._console.is_terminal:
            self._console.print(figures, highlight=False)
            return
        at = row.get("step", row.get("epoch"))
        what = str(row.get("autogan", row.get("stage", "training")))
        shown = " ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float))[: 14 * _SHOWN]
        total = None if "autogan" in row else self._total  # an autoencoder in front has a length of its own
        self._bar.update(self._task, description=what, completed=at if isinstance(at, int) else 0, total=total, figures=shown)
        if any(name.startswith("valid_") for name in row):
            self._console.print(figures, highlight=False)

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._bar.stop()
