"""What a job left may be deleted; its record stays and says so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say of a job when and why what it left was deleted, and whether it is still there."""
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "jobs", sa.Column("deletion", sa.Text(), server_default=sa.text("''"), nullable=False)
    )
    op.add_column(
        "jobs", sa.Column("is_kept", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    op.create_index(op.f("ix_jobs_is_kept_ended_at"), "jobs", ["is_kept", "ended_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index(op.f("ix_jobs_is_kept_ended_at"), table_name="jobs")
    for name in ("is_kept", "deletion", "deleted_at"):
        op.drop_column("jobs", name)
