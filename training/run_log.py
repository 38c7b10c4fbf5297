"""What a run says while it goes: one JSON line per logged row, TensorBoard events when wanted, curves as PNG at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .plots import draw_curves

LOG_NAME = "log.jsonl"
CURVES_NAME = "curves.png"


class RunLog:
    """Collects the rows of one run; used as the run's `on_log`.

    Args:
        run_dir: gets `log.jsonl`, `curves.png` and, with `tensorboard`, an event file in `tensorboard/`.
        forward: also told every row.
        tensorboard: write events; needs the `tensorboard` package.
    """

    def __init__(self, run_dir: Path, *, forward: Callable[[dict[str, Any]], None], tensorboard: bool = False) -> None:
        self._path = run_dir / LOG_NAME
        self._curves = run_dir / CURVES_NAME
        self._forward = forward
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run_dir / "tensorboard"))

    def __call__(self, row: dict[str, Any]) -> None:
        with self._path.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        if self._writer is not None:
            step = int(row.get("step", row.get("epoch", 0)))
            for name, value in row.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "epoch"):
                    self._writer.add_scalar(name, value, step)
        self._forward(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Draw also when the run failed: its curves tell why."""
        if self._writer is not None:
            self._writer.close()
        if self._path.is_file():
            draw_curves([json.loads(line) for line in self._path.read_text().splitlines()], self._curves)
