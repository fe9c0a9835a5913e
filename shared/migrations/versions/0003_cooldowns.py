"""How long each model is left alone, for every worker to see, and the lane that a batch was submitted on."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
CREATE TABLE model_cooldown (
    family text NOT NULL,
    model text NOT NULL,
    until timestamptz NOT NULL,
    reason text,
    PRIMARY KEY (family, model)
)""")
    op.execute("ALTER TABLE batch ADD COLUMN lane text NOT NULL DEFAULT 'ask'")


def downgrade() -> None:
    op.execute("ALTER TABLE batch DROP COLUMN lane")
    op.execute("DROP TABLE model_cooldown")
