"""An index for tasks that workers have died on: looked for every second, whatever waits besides."""

from shared.migrations.concurrently import create_index, drop_index

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_index("task_suspect", "task (family) WHERE status = 0 AND rescues > 0")


def downgrade() -> None:
    drop_index("task_suspect")
