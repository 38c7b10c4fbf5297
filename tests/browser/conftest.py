"""Fixtures for tests that need a real browser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.browser` and `tests.integration` are shared code, not installed

from tests.integration.servers import missing


@pytest.fixture(scope="module")
def browser():
    """A real Chromium. Closed with its module: Playwright's loop would stay in this thread, and later tests run loops of their own."""
    from tests.browser.world import chromium, open_browser

    if chromium() is None:
        missing("chromium")
    with open_browser() as opened:
        yield opened


@pytest.fixture
def dashboard(tmp_path):
    """A dashboard with nothing on record."""
    from tests.browser.world import open_dashboard

    with open_dashboard(tmp_path) as opened:
        yield opened
