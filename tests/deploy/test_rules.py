"""Recording rules, alerts and their tests; who is told."""

from __future__ import annotations

import re

import pytest
import yaml

from detect_core import errors as core_errors
from workers import errors as worker_errors
from workers.metrics import Metrics

SEVERITIES = {"page": "pager", "ticket": "tickets"}


def groups(deploy, name):
    return yaml.safe_load((deploy / "prometheus" / "rules" / name).read_text())["groups"]


@pytest.fixture
def alerts(deploy):
    return {rule["alert"]: rule for group in groups(deploy, "alerts.yml") for rule in group["rules"]}


@pytest.fixture
def records(deploy):
    return {rule["record"]: rule["expr"] for group in groups(deploy, "recording.yml") for rule in group["rules"]}


def test_prometheus_accepts_its_configuration_and_rules(accepts):
    accepts("promtool", "check", "config", "deploy/prometheus/prometheus.yml")


def test_every_rule_test_passes(accepts, deploy):
    accepts("promtool", "test", "rules", *sorted((deploy / "prometheus" / "rules_test").glob("*.yml")))


def test_every_alert_has_a_firing_and_a_silent_test(deploy, alerts):
    firing, silent = set(), set()
    for path in (deploy / "prometheus" / "rules_test").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case.get("promql_expr_test", []):
                name = re.search(r'ALERTS\{alertname="(\w+)", alertstate="firing"', check["expr"])
                if name and check["exp_samples"]:
                    firing.add(name[1])
            silent |= {check["alertname"] for check in case.get("alert_rule_test", []) if check["exp_alerts"] == []}
    assert firing == set(alerts)
    assert silent == set(alerts), "a silent test of an alert that does not exist would always pass"


def test_a_broken_alert_is_noticed_by_its_test(deploy, tmp_path, program):
    """The tests can fail: with the threshold of one alert moved, promtool says no."""
    import shutil
    import subprocess

    shutil.copytree(deploy / "prometheus", tmp_path / "prometheus")
    rules = tmp_path / "prometheus" / "rules" / "alerts.yml"
    changed = rules.read_text().replace("redis_up == 0", "redis_up == 2")
    assert changed != rules.read_text()
    rules.write_text(changed)
    command = [program("promtool"), "test", "rules", str(tmp_path / "prometheus" / "rules_test" / "broker.yml")]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0


def test_alerts_say_how_urgent_they_are_what_is_wrong_and_what_to_do(alerts):
    for name, rule in alerts.items():
        assert name.startswith("Veriframe")
        assert rule["labels"]["severity"] in SEVERITIES, name
        assert rule["annotations"]["summary"], name
        assert len(rule["annotations"]["description"]) > 40, name


def test_reasons_counted_as_our_own_failures_exist(records):
    known = {
        cls.code
        for module in (core_errors, worker_errors)
        for cls in vars(module).values()
        if isinstance(cls, type) and hasattr(cls, "code")
    }
    known |= {"INTERNAL", "memory"}  # untyped errors, and the out-of-memory path of workers.screening
    (pattern,) = re.findall(r'reason=~"([^"]+)"', records["veriframe:own_failures:ratio_rate15m"])
    assert set(pattern.split("|")) <= known


def test_every_bucket_that_a_rule_asks_for_is_there(records):
    metrics = Metrics()
    for metric, name in ((metrics.end_to_end_seconds, "end_to_end_seconds"), (metrics.face_score, "face_score")):
        buckets = {str(float(bound)) for bound in metric._kwargs["buckets"]}
        asked = {bound for expr in records.values() if name in expr for bound in re.findall(r'le="([\d.]+)"', expr)}
        assert asked
        assert asked <= buckets, "a rule asks for a bucket that is not there"


def test_alertmanager_accepts_its_configuration_and_pages_go_to_the_pager(accepts, alerts, deploy):
    accepts("amtool", "check-config", "deploy/alertmanager.yml")
    for severity, receiver in SEVERITIES.items():
        said = accepts("amtool", "config", "routes", "test", "--config.file=deploy/alertmanager.yml", f"severity={severity}")
        assert said.splitlines()[-1].strip() == receiver
    inhibited = re.findall(r"Veriframe\w+", (deploy / "alertmanager.yml").read_text())
    assert inhibited
    assert set(inhibited) <= set(alerts)
