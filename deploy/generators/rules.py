"""The PrometheusRule object of Kubernetes: the rule files of Prometheus, wrapped. One source for both worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

RULES: Final = Path(__file__).resolve().parent.parent / "prometheus" / "rules"


def render() -> str:
    """The whole file."""
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    body: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "veriframe", "labels": {"app.kubernetes.io/part-of": "veriframe"}},
        "spec": {"groups": groups},
    }
    return "# Written by `python deploy/generate.py` from deploy/prometheus/rules: do not edit.\n" + yaml.safe_dump(
        body, sort_keys=False, width=1000, allow_unicode=True
    )
