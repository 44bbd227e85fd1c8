"""Leases keep wishes and why they are where they are; jobs count preemptions; host marks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TEXTS = ("reason_code", "note", "placement")


def upgrade() -> None:
    """Add columns that old rows have a default for, indexes, and the table of marks.

    Not in a batch: SQLite would copy the tables, and their rows refer to each other.
    """
    op.add_column("leases", sa.Column("wishes", sa.JSON(), nullable=True))
    for name in _TEXTS:
        op.add_column(
            "leases", sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)
        )
    op.add_column("leases", sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_leases_ended_at", "leases", ["ended_at"])
    op.create_index("ix_leases_owner_is_live", "leases", ["owner", "is_live"])
    op.add_column(
        "jobs", sa.Column("preemptions", sa.Integer(), server_default="0", nullable=False)
    )
    op.create_table(
        "host_marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("marked_by", sa.Text(), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_host_marks"),
    )


def downgrade() -> None:
    """Drop what was added."""
    op.drop_table("host_marks")
    op.drop_column("jobs", "preemptions")
    op.drop_index("ix_leases_owner_is_live", "leases")
    op.drop_index("ix_leases_ended_at", "leases")
    for name in ("queued_at", *reversed(_TEXTS), "wishes"):
        op.drop_column("leases", name)
