"""The house plan, enforced: who may import whom, and what stays out of the library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_import_contracts_hold() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool), "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_library_brings_no_queue_database_or_web_stack() -> None:
    script = (
        "import sys, detect_core.pipeline\n"
        "print([name for name in ('celery', 'kombu', 'redis', 'sqlalchemy', 'prometheus_client', 'fastapi', 'sklearn', 'skimage')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_the_decode_side_brings_no_model_stack() -> None:
    script = "import sys, detect_core.video.nursery\nprint([name for name in ('torch', 'timm', 'facenet_pytorch', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
