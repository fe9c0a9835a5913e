"""An index for tasks that workers have died on: looked for every second, whatever waits besides."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE INDEX task_suspect ON task (family) WHERE status = 0 AND rescues > 0")


def downgrade() -> None:
    op.execute("DROP INDEX task_suspect")
