"""Draws the board from a Prometheus, for people without a Grafana at hand: `python deploy/grafana/render.py URL board.png [--minutes 30]`.

Same panels, queries, limits and places as the JSON that Grafana reads; needs matplotlib (extra `train`).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

BOARD: Final = Path(__file__).resolve().parent / "dashboards" / "veriframe.json"
POINTS: Final = 240
_UNITS: Final = {"s": " s", "percentunit": " %", "percent": " %", "ops": " /s", "reqps": " /s", "bytes": " MB", "short": ""}
_FACTORS: Final = {"percentunit": 100.0, "bytes": 1e-6}


class Source:
    """A Prometheus and the span of time that is drawn."""

    def __init__(self, url: str, *, minutes: float) -> None:
        self._url = url.rstrip("/")
        self.end = time.time()
        self.start = self.end - minutes * 60
        self._step = max(1.0, (self.end - self.start) / POINTS)

    def lines(self, expr: str) -> list[dict[str, Any]]:
        """The series of one expression; values that are no number are left out."""
        rate = f"{max(15, round(4 * self._step))}s"
        form = {"query": expr.replace("$__rate_interval", rate), "start": self.start, "end": self.end, "step": self._step}
        with urllib.request.urlopen(f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(form)}", timeout=30) as answer:
            rows = json.load(answer)["data"]["result"]
        return [{"labels": row["metric"], "points": [(t - self.end, float(v)) for t, v in row["values"] if _is_number(v)]} for row in rows]


def _is_number(text: str) -> bool:
    return math.isfinite(float(text))


def _legend(pattern: str, labels: dict[str, str]) -> str:
    if pattern == "__auto":
        return ""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), pattern)


def draw(panel: dict[str, Any], axes: Axes, source: Source) -> int:
    """Draw one panel; gives the number of its lines."""
    defaults = panel["fieldConfig"]["defaults"]
    factor, unit = _FACTORS.get(defaults["unit"], 1.0), _UNITS[defaults["unit"]]
    found = [(target["legendFormat"], line) for target in panel["targets"] for line in source.lines(target["expr"]) if line["points"]]
    axes.set_title(panel["title"], fontsize=8, loc="left")
    limit = next((step["value"] for step in defaults["thresholds"]["steps"] if step["value"] is not None), None)
    if panel["type"] == "stat":
        _draw_number(axes, found, factor=factor, unit=unit, limit=limit)
        return len(found)
    for legend, line in found:
        x, y = zip(*line["points"], strict=True)
        axes.plot([t / 60 for t in x], [value * factor for value in y], linewidth=1, label=_legend(legend, line["labels"])[:32])
    axes.set_ylabel(unit.strip(), fontsize=6)
    axes.tick_params(labelsize=6)
    axes.set_xlim((source.start - source.end) / 60, 0)
    axes.set_ylim(bottom=0)
    if limit is not None and axes.get_ylim()[1] > 0.3 * limit * factor:
        axes.axhline(limit * factor, color="tab:red", linewidth=0.8, linestyle="--")
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, fontsize=8, color="gray")
    elif any(legend != "__auto" for legend, _line in found):
        axes.legend(fontsize=5, loc="upper left", ncols=2, frameon=False)
    return len(found)


def _draw_number(axes: Axes, found: list[tuple[str, dict[str, Any]]], *, factor: float, unit: str, limit: float | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    value = found[0][1]["points"][-1][1] if found else None
    text = "no data" if value is None else f"{value * factor:.3g}{unit}"
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=14)
    if value is not None:
        axes.set_facecolor("#f4b6b6" if limit is not None and value >= limit else "#cdeac8")


def render(url: str, target: Path, *, minutes: float) -> dict[str, int]:
    """Draw the whole board; gives the number of lines per panel."""
    source = Source(url, minutes=minutes)
    panels = json.loads(BOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(16, height * 0.32))
    drawn: dict[str, int] = {}
    for panel in panels:
        place = panel["gridPos"]
        top = 1 - place["y"] / height
        if panel["type"] == "row":
            figure.text(0.01, top - 0.7 / height, panel["title"], fontsize=11, weight="bold", va="center")
            continue
        box = (place["x"] / 24 + 0.03, top - (place["h"] - 1.1) / height, place["w"] / 24 - 0.045, (place["h"] - 2.4) / height)
        drawn[panel["title"]] = draw(panel, figure.add_axes(box), source)
    figure.savefig(target, dpi=80)
    plt.close(figure)
    return drawn


def main() -> int:
    """Draw and say which panels are empty."""
    parser = argparse.ArgumentParser(description="draw the board from a Prometheus")
    parser.add_argument("url", help="address of the Prometheus")
    parser.add_argument("target", type=Path, help="picture to write")
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    drawn = render(options.url, options.target, minutes=options.minutes)
    sys.stdout.write(f"{options.target}: {len(drawn)} panels, empty: {sorted(title for title, lines in drawn.items() if not lines)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
