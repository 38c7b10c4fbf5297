"""The image: linted, built from files that are let in, and its script run for real."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


@pytest.fixture
def dockerfile(deploy):
    return (deploy / "docker" / "Dockerfile").read_text()


def test_hadolint_accepts_the_dockerfile(accepts):
    accepts("hadolint", "deploy/docker/Dockerfile")


def test_shellcheck_accepts_the_scripts(accepts, deploy):
    accepts("shellcheck", *sorted(deploy.rglob("*.sh")))


def test_yamllint_accepts_every_file(accepts):
    accepts("yamllint", "--strict", "-c", "deploy/.yamllint.yml", "deploy", "docker-compose.yml")


def test_both_targets_end_as_a_user_without_rights_and_bring_no_tools(dockerfile):
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    final = {stage.split()[2]: stage for stage in stages if stage.split()[2] in ("cpu", "cuda")}
    assert set(final) == {"cpu", "cuda"}
    for stage in final.values():
        assert re.findall(r"^USER (\S+)", stage, flags=re.MULTILINE)[-1] == "10001:10001"
        assert stage.split()[0] == "runtime"
        assert not re.search(r"pip |apt-get|gcc", stage)
    (runtime,) = [stage for stage in stages if stage.split()[2] == "runtime"]
    assert "HEALTHCHECK" in runtime
    assert "rm -rf" in runtime
    assert "--constraint constraints.txt" in dockerfile


def test_what_the_dockerfile_copies_is_there_and_passes_dockerignore(dockerfile, deploy):
    root = deploy.parent
    allowed = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.MULTILINE):
        *sources, _target = [word for word in line.split() if not word.startswith("--")]
        for source in sources:
            assert (root / source).exists(), source
            assert any(source == rule or fnmatch.fnmatch(source, f"{rule}/*") for rule in allowed), f"{source} is kept out by .dockerignore"


def test_secrets_never_enter_the_build(deploy):
    rules = [line for line in (deploy.parent / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert "deploy/*" in rules
    assert not any("secrets" in rule for rule in rules if rule.startswith("!"))


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (None, 1)])
def test_the_healthcheck_says_what_the_probe_says(deploy, status, expected):
    class Probe(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Probe) as server:
        port = server.server_address[1]
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, str(deploy / "docker" / "healthcheck.py"), f"http://127.0.0.1:{port}/livez"]
        assert subprocess.run(command, timeout=20, capture_output=True, check=False).returncode == expected
        if status is not None:
            server.shutdown()


def test_the_image_installs_what_the_project_declares_and_its_extras(dockerfile, deploy):
    """The line of the Dockerfile that lists the requirements, run for real."""
    (code,) = re.findall(r'python -c "(import tomllib.*)" > requirements.txt', dockerfile)
    answer = subprocess.run([sys.executable, "-c", code], cwd=deploy.parent, capture_output=True, text=True, timeout=20, check=True)
    names = {re.split(r"[<>=\[]", line)[0] for line in answer.stdout.split("\n") if line}
    assert {"celery", "torch", "psycopg", "s3fs"} <= names
    pins = {line.split("==")[0].lower() for line in (deploy.parent / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {"celery", "torch", "psycopg"} <= pins
