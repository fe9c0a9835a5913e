"""Under whose settings a task was asked, and a worker works, on the local default; null on configured servers."""

from alembic import op

from shared.migrations.concurrently import create_index, drop_index, mark

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE task ADD COLUMN IF NOT EXISTS origin text")
    op.execute("ALTER TABLE worker ADD COLUMN IF NOT EXISTS origin text")
    create_index("task_origin", "task (family, origin) WHERE status = 0 AND origin IS NOT NULL")
    mark("0005", oldest="0003")


def downgrade() -> None:
    drop_index("task_origin")
    op.execute("ALTER TABLE worker DROP COLUMN origin")
    op.execute("ALTER TABLE task DROP COLUMN origin")
