"""Derived files match their sources, and every VERIFRAME_ variable in deploy/ is one that the service reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from workers.settings import Settings, load_settings

VARIABLES = {f"VERIFRAME_{name.upper()}": name for name in Settings.model_fields}


def test_generated_files_are_what_their_sources_say(deploy):
    answer = subprocess.run(
        [sys.executable, str(deploy / "generate.py"), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_the_environment_reference_names_every_setting_once_and_its_values_can_be_set(deploy, monkeypatch):
    lines = (deploy / "env.example").read_text().splitlines()
    given = dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?VERIFRAME_\w+=", line))
    assert set(given) == set(VARIABLES)
    for variable, value in given.items():
        if value:
            monkeypatch.setenv(variable, value)
    read = load_settings()
    for variable, name in VARIABLES.items():
        if given[variable]:
            assert getattr(read, name) == Settings.model_fields[name].default, name


@pytest.mark.parametrize("pattern", ["../docker-compose.yml", "docker/*", "k8s/**/*.yml", "k8s/**/*.env", "README.md", "*.sh"])
def test_variables_that_deploy_files_set_are_read_by_the_service(deploy, pattern):
    files = [deploy.parent / "docker-compose.yml"] if pattern.startswith("..") else sorted(deploy.glob(pattern))
    assert files
    for path in files:
        for variable in re.findall(r"VERIFRAME_[A-Z0-9_]*[A-Z0-9]", path.read_text()):
            assert variable.removesuffix("_FILE") in {*VARIABLES, "VERIFRAME_X"}, f"{path.name} sets {variable}, which nothing reads"


def test_settings_of_the_cluster_can_be_loaded(deploy, monkeypatch):
    for line in (deploy / "k8s" / "base" / "settings.env").read_text().split():
        monkeypatch.setenv(*line.split("=", 1))
    read = load_settings()
    assert (read.api_host, read.metrics_port) == ("0.0.0.0", 9100)
    assert read.exit_seconds < 60, "terminationGracePeriodSeconds is 60"


def test_the_board_is_json_that_a_person_did_not_edit(deploy):
    board = json.loads((deploy / "grafana" / "dashboards" / "veriframe.json").read_text())
    assert board["uid"] == "veriframe"
    assert board["editable"] is False
