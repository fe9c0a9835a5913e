"""Which releases the tables still serve: an old worker and a new one work side by side."""

from alembic import op

from shared.migrations.concurrently import mark

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("CREATE TABLE schema_mark (revision text PRIMARY KEY, oldest text NOT NULL)")
    mark("0004", oldest="0003")


def downgrade() -> None:
    op.execute("DROP TABLE schema_mark")
