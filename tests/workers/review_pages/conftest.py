"""A fresh ledger, its API, and an analyst who is signed in."""

from __future__ import annotations

import shutil

import pytest

from api_caller import make_caller
from review_reader import ALL_KEYS, sign_in
from workers.ledger import Ledger


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory):
    """The file of a fresh ledger: making one takes longer than a test."""
    path = tmp_path_factory.mktemp("empty") / "ledger.sqlite3"
    Ledger.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def ledger(empty_ledger, tmp_path):
    copy = shutil.copy(empty_ledger, tmp_path / "ledger.sqlite3")
    opened = Ledger.open(f"sqlite:///{copy}")
    yield opened
    opened.close()


@pytest.fixture
def api(ledger, tmp_path):
    return make_caller(
        ledger, state_dir=tmp_path, media_roots=(tmp_path,), media_template=f"{tmp_path}/{{video_id}}.mp4", api_keys=ALL_KEYS
    )


@pytest.fixture
def ana(api, ledger):
    return sign_in(api, ledger)
