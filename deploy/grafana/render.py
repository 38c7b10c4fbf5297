"""Draws the board from a Prometheus, for people without a Grafana at hand: `python deploy/grafana/render.py URL board.png [--minutes 30]`.

Same panels, queries, limits and places as the JSON that Grafana reads; needs matplotlib (extra `train`).
"""

from __future__ import annotations

import argparse
import io
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
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

BOARD: Final = Path(__file__).resolve().parent / "dashboards" / "veriframe.json"
POINTS: Final = 240
_UNITS: Final = {"s": " s", "percentunit": " %", "percent": " %", "ops": " /s", "reqps": " /s", "bytes": " MB", "short": ""}
_UNIT_INCHES: Final = 0.46
_LEGEND_UNITS: Final = 2.6
"""Room below a panel for its time and the names of its lines, in units of Grafana's grid."""
_NAMED: Final = 6
"""Lines that get a name below a panel: the largest at the end; the rest is counted."""
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
    axes.set_title(panel["title"], fontsize=11, loc="left")
    limit = next((step["value"] for step in defaults["thresholds"]["steps"] if step["value"] is not None), None)
    if panel["type"] == "stat":
        _draw_number(axes, found, factor=factor, unit=unit, limit=limit)
        return len(found)
    found.sort(key=lambda each: -each[1]["points"][-1][1])
    for legend, line in found:
        x, y = zip(*line["points"], strict=True)
        axes.plot([t / 60 for t in x], [value * factor for value in y], linewidth=1.4, label=_legend(legend, line["labels"])[:26])
    highest = max((value * factor for _legend_text, line in found for _t, value in line["points"]), default=0.0)
    _draw_scale(axes, source, highest=highest, unit=unit)
    if limit is not None and highest > 0.3 * limit * factor:
        axes.axhline(limit * factor, color="tab:red", linewidth=1, linestyle="--")
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, fontsize=10, color="gray")
    elif any(legend != "__auto" for legend, _line in found):
        _name_lines(axes)
    return len(found)


def _draw_scale(axes: Axes, source: Source, *, highest: float, unit: str) -> None:
    axes.set_ylabel(unit.strip(), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_xlim((source.start - source.end) / 60, 0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter("{x:g}")
    # all but nothing is nothing: a sum of rounding errors must not fill the panel
    axes.set_ylim(0, 1.08 * highest if highest > 1e-6 else 1)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name_lines(axes: Axes) -> None:
    lines, names = axes.get_legend_handles_labels()
    lines, names = list(lines), list(names)
    if len(names) > _NAMED:
        rest = len(names) - _NAMED + 1
        lines, names = lines[: _NAMED - 1], [*names[: _NAMED - 1], f"and {rest} more"]
        lines.append(Line2D([], [], linewidth=0))
    axes.legend(
        lines,
        names,
        fontsize=7.5,
        loc="upper left",
        bbox_to_anchor=(-0.1, -0.13),
        ncols=2,
        frameon=False,
        handlelength=1.2,
        columnspacing=1,
    )


def _draw_number(axes: Axes, found: list[tuple[str, dict[str, Any]]], *, factor: float, unit: str, limit: float | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    value = found[0][1]["points"][-1][1] if found else None
    text = "no data" if value is None else f"{value * factor:.3g}{unit}"
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=17)
    if value is not None:
        axes.set_facecolor("#f4b6b6" if limit is not None and value >= limit else "#cdeac8")


def render(url: str, target: Path, *, minutes: float) -> dict[str, int]:
    """Draw the whole board; gives the number of lines per panel."""
    source = Source(url, minutes=minutes)
    panels = json.loads(BOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(17, height * _UNIT_INCHES))
    drawn: dict[str, int] = {}
    for panel in panels:
        place = panel["gridPos"]
        top = 1 - place["y"] / height
        if panel["type"] == "row":
            figure.text(0.01, top - 0.6 / height, panel["title"], fontsize=15, weight="bold", va="center")
            continue
        below = _LEGEND_UNITS if panel["type"] != "stat" else 0.5
        box = (place["x"] / 24 + 0.03, top - (place["h"] - below) / height, place["w"] / 24 - 0.045, (place["h"] - below - 1.1) / height)
        drawn[panel["title"]] = draw(panel, figure.add_axes(box), source)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=80, format="png")
    plt.close(figure)
    # few colours are in it: a fifth of the bytes
    with Image.open(picture) as drawn_picture:
        drawn_picture.convert("RGB").quantize(64).save(target, optimize=True)
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
