"""Alembic migrations, inside the package so that an installed aitask can set its database up."""

HEAD = "0006"
"""The newest revision, known without importing Alembic; a test holds it equal to the scripts."""
