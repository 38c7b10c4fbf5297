"""The Grafana board as JSON, from `panels`."""

from __future__ import annotations

import json
from typing import Any, Final

from .panels import ROWS, Panel

_SOURCE: Final = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
_WIDTH: Final = 24
_RED: Final = "red"


def render() -> str:
    """The dashboard as Grafana reads it."""
    return json.dumps(_dashboard(), indent=1, ensure_ascii=False) + "\n"


def _dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x, tallest = 0, 0
        for panel in row.panels:
            height = 4 if panel.kind == "stat" else 8
            if x + panel.width > _WIDTH:
                x, y, tallest = 0, y + tallest, 0
            panels.append(_panel(panel, number=len(panels) + 1, place={"h": height, "w": panel.width, "x": x, "y": y}))
            x, tallest = x + panel.width, max(tallest, height)
        y += tallest
    return {
        "uid": "veriframe",
        "title": "Veriframe",
        "tags": ["veriframe"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0}
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(panel: Panel, *, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": _RED, "value": panel.limit})
    custom: dict[str, Any] = {
        "fillOpacity": 60 if panel.stack else 10,
        "stacking": {"mode": "normal" if panel.stack else "none"},
        "showPoints": "never",
    }
    if panel.limit is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
    stat = panel.kind == "stat"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.why,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                **({} if stat else {"custom": custom}),
            },
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"}
        if stat
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "editorMode": "code",
                "range": True,
            }
            for i, query in enumerate(panel.queries)
        ],
    }
