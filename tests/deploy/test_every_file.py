"""Every file of deploy/ has a validator in the tests: a new one is refused until somebody says which."""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
VALIDATORS = {
    "../docker-compose.yml": ["test_compose.py::test_compose_fits_its_specification"],
    "docker/Dockerfile": ["test_image.py::test_hadolint_accepts_the_dockerfile"],
    "docker/healthcheck.py": ["test_image.py::test_the_healthcheck_says_what_the_probe_says"],
    "*.sh": ["test_image.py::test_shellcheck_accepts_the_scripts"],
    "make_secrets.sh": ["test_compose.py::test_secrets_are_made_once_and_fit_each_other"],
    "broker/users.acl": ["../integration/test_broker_roles.py::test_the_whole_system_runs_with_a_user_per_part"],
    "prometheus/prometheus.yml": ["test_rules.py::test_prometheus_accepts_its_configuration_and_rules"],
    "prometheus/rules/*.yml": [
        "test_rules.py::test_prometheus_accepts_its_configuration_and_rules",
        "test_rules.py::test_every_alert_has_a_firing_and_a_silent_test",
    ],
    "prometheus/rules_test/*.yml": ["test_rules.py::test_every_rule_test_passes"],
    "alertmanager.yml": ["test_rules.py::test_alertmanager_accepts_its_configuration_and_pages_go_to_the_pager"],
    "grafana/dashboards/*.json": [
        "test_board.py::test_every_expression_parses_and_asks_for_metrics_that_exist",
        "test_board_live.py::test_every_panel_shows_something",
    ],
    "grafana/provisioning/*/*.yml": ["test_compose.py::test_grafana_finds_the_board_and_its_source"],
    "grafana/render.py": ["test_board_live.py::test_the_board_can_be_drawn_without_grafana"],
    "k8s/base/prometheus-rule.yml": ["test_k8s.py::test_the_rule_object_carries_every_group_of_prometheus"],
    "k8s/base/pod-monitor.yml": ["test_k8s.py::test_selectors_labels_and_ports_fit_each_other"],
    "k8s/base/settings.env": ["test_generated.py::test_settings_of_the_cluster_can_be_loaded"],
    "k8s/base/*.yml": ["test_k8s.py::test_every_object_fits_its_schema"],
    "k8s/*/kustomization.yml": ["test_k8s.py::test_kustomizations_name_files_that_exist"],
    "k8s/overlays/*.yml": ["test_k8s.py::test_overlays_render_to_valid_objects"],
    "k8s/overlays/keda/scaled-object.yml": ["test_k8s.py::test_the_autoscaler_asks_recorded_series_and_counts_running_work"],
    "k8s/components/media/*.yml": ["test_k8s.py::test_videos_are_read_by_who_judges_and_who_shows_them_and_written_by_nobody"],
    "*.yml": ["test_image.py::test_yamllint_accepts_every_file"],
    "env.example": ["test_generated.py::test_the_environment_reference_names_every_setting_once_and_its_values_can_be_set"],
    "generate.py": ["test_generated.py::test_generated_files_are_what_their_sources_say"],
    "generators/*.py": ["test_generated.py::test_generated_files_are_what_their_sources_say"],
}
FOR_PEOPLE = {"README.md", "SCALING.md", "dashboard.png", "grafana/board.png"}
OF_TOOLS = {".gitignore", ".yamllint.yml"}


def files(deploy: Path) -> list[str]:
    kept_out = {"secrets", "__pycache__"}
    found = [path.relative_to(deploy) for path in deploy.rglob("*") if path.is_file()]
    return sorted(str(path) for path in found if not kept_out & set(path.parts) and path.name != "veriframe.env")


def test_every_file_has_a_validator(deploy):
    for name in files(deploy):
        if name not in FOR_PEOPLE | OF_TOOLS:
            own = [pattern for pattern in VALIDATORS if pattern != "*.yml" and fnmatch.fnmatch(name, pattern)]
            assert own, f"deploy/{name}: nothing checks it"


def test_every_validator_is_for_a_file(deploy):
    names = [*files(deploy), "../docker-compose.yml"]
    for pattern in VALIDATORS:
        assert any(fnmatch.fnmatch(name, pattern) for name in names), f"{pattern} names no file"
    assert set(files(deploy)) >= FOR_PEOPLE | OF_TOOLS


@pytest.mark.parametrize("validator", sorted({validator for tests in VALIDATORS.values() for validator in tests}))
def test_the_validator_exists(validator):
    path, name = validator.split("::")
    functions = {node.name for node in ast.parse((HERE / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in functions
