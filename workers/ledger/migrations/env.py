"""Alembic's entry: runs on the connection that `workers.ledger.migrate` hands over."""

from alembic import context

from workers.ledger.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
