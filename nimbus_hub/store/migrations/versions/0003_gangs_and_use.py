"""Leases keep their parent, size, use and what was open; jobs may hold a gang or run on one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_USING = ("leases", "replicas")
_SECONDS = ("cpu_seconds", "gpu_seconds")


def upgrade() -> None:
    """Add columns that old rows have a default for, not in a batch as in 0002."""
    op.add_column("leases", sa.Column("parent", sa.Text(), nullable=True))
    op.create_index("ix_leases_parent", "leases", ["parent"])
    op.add_column(
        "leases", sa.Column("size", sa.Text(), server_default=sa.text("''"), nullable=False)
    )
    for table in _USING:
        for name in _SECONDS:
            op.add_column(table, sa.Column(name, sa.Double(), server_default="0", nullable=False))
    op.add_column("leases", sa.Column("opened", sa.JSON(), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("is_holder", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("jobs", sa.Column("run", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    """Drop what was added."""
    op.drop_column("jobs", "run")
    op.drop_column("jobs", "is_holder")
    op.drop_column("leases", "opened")
    for table in reversed(_USING):
        for name in reversed(_SECONDS):
            op.drop_column(table, name)
    op.drop_column("leases", "size")
    op.drop_index("ix_leases_parent", "leases")
    op.drop_column("leases", "parent")
