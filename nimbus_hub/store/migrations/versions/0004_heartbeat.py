"""The service leaves a sign of life."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of the one row."""
    op.create_table(
        "heartbeat",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("uptime_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("at", name="pk_heartbeat"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("heartbeat")
