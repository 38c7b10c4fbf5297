"""Builds and schemas that differ: during a roll-out, and after a rollback."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from workers.cli import app
from workers.errors import LedgerSchemaError
from workers.ledger import Ledger, Submission, migrate
from workers.ledger.engine import make_engine
from workers.messages import EnqueueRequest


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


def made_by_revision(url: str, revision: str) -> None:
    """A ledger as the build of another revision leaves it."""
    engine = make_engine(url)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = :revision"), {"revision": revision})
    engine.dispose()


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_schema_that_only_adds_serves_as_well(url, create):
    made_by_revision(url, f"{int(migrate.HEAD) + 1:04d}")
    ledger = Ledger.open(url, create=create)
    assert ledger.submit(Submission(request=EnqueueRequest(video_id="a"), door="cli")).created
    ledger.close()


@pytest.mark.parametrize("create", [True, False])
def test_a_schema_of_a_later_generation_is_refused_with_what_to_do(url, create):
    made_by_revision(url, "1001")
    with pytest.raises(LedgerSchemaError, match=f"1001, newer than this build.*run the newer image.*--to {migrate.HEAD}"):
        Ledger.open(url, create=create)


def test_only_the_build_that_made_a_schema_takes_it_back(url):
    made_by_revision(url, "0999")
    engine = make_engine(url)
    with pytest.raises(LedgerSchemaError, match="use the image that made 0999"):
        migrate.downgrade(engine, revision="0006")
    engine.dispose()


def test_an_operator_takes_the_schema_back_for_an_older_image(url, tmp_path):
    done = CliRunner().invoke(app, ["migrate", "--to", "0006"], env={"VERIFRAME_LEDGER_URL": url, "VERIFRAME_STATE_DIR": str(tmp_path)})
    assert done.exit_code == 0, done.output
    engine = make_engine(url)
    assert migrate.current(engine) == "0006"
    engine.dispose()
