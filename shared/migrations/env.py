"""Alembic's environment: runs the scripts on the connection it is handed."""

from alembic import context

from shared.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
