"""Every PromQL expression of deploy/, and the metric names in them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import promql_parser
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

FOREIGN = {
    # DCGM exporter, default counters
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_DEC_UTIL",
    "DCGM_FI_DEV_XID_ERRORS",
    # redis exporter, seen on a live one
    "redis_up",
    "redis_memory_used_bytes",
    "redis_memory_max_bytes",
    "redis_evicted_keys_total",
    "redis_instance_info",
    "redis_aof_enabled",
    "redis_aof_last_write_status",
    # Prometheus itself
    "up",
    "ALERTS",
}
"""Metrics that do not come from Veriframe."""


class Expression(NamedTuple):
    """One expression and where it stands."""

    where: str
    expr: str


def panels() -> list[dict]:
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "veriframe.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def of_panels(*, rate_interval: str = "5m") -> list[Expression]:
    """What the board asks."""
    return [
        Expression(panel["title"], target["expr"].replace("$__rate_interval", rate_interval))
        for panel in panels()
        for target in panel["targets"]
    ]


def of_rules() -> list[Expression]:
    """What rules and alerts ask."""
    groups = [
        group for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return [Expression(rule.get("record") or rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    """Series that Prometheus records."""
    return {name for name, _expr in of_rules() if ":" in name}


@cache
def metric_names(expr: str) -> set[str]:
    """Metrics that an expression selects."""
    found: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name or "")
        return True

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found
