"""Whether the model saw only part of the question."""

from alembic import op

from shared.migrations.concurrently import mark

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE task ADD COLUMN IF NOT EXISTS cut_question boolean")
    mark("0006", oldest="0003")


def downgrade() -> None:
    op.execute("ALTER TABLE task DROP COLUMN cut_question")
