"""The Grafana board: parses, asks for metrics that exist, and is whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from workers.metrics import Metrics

sys.path.insert(0, str(Path(__file__).parent))
from board_expressions import DEPLOY, FOREIGN, metric_names, of_panels, of_rules, panels, recorded


@pytest.fixture(scope="module")
def exported():
    """Every series name that a process of ours can export: those of each family of its registry."""
    families = list(text_string_to_metric_families(generate_latest(Metrics().registry).decode()))
    names = {sample.name for family in families for sample in family.samples}
    for family in families:
        if family.type == "counter":
            names.add(f"{family.name}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(family.name)
    return names


@pytest.mark.parametrize("expression", [*of_panels(), *of_rules()], ids=lambda e: e.where)
def test_every_expression_parses_and_asks_for_metrics_that_exist(expression, exported):
    for name in metric_names(expression.expr):
        assert name in exported | FOREIGN | recorded(), f"{expression.where} asks for {name}, which nobody exports"


def test_every_recorded_series_is_used():
    used = set().union(*(metric_names(expression.expr) for expression in [*of_panels(), *of_rules()]))
    scaler = (DEPLOY / "k8s" / "overlays" / "keda" / "scaled-object.yml").read_text()
    assert not {name for name in recorded() if name not in used and name not in scaler}


def test_panels_are_numbered_once_and_say_unit_source_and_reason():
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "veriframe.json").read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in [panel, *panel["targets"]]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    assert [variable["name"] for variable in board["templating"]["list"]] == ["DS_PROMETHEUS"]
    assert "http" not in json.dumps(board["panels"]).replace("veriframe_http_", ""), "no host belongs on a board"


def test_panels_do_not_overlap_and_stay_on_the_page():
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "veriframe.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
