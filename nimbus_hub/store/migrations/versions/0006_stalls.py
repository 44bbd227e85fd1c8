"""A job may be ended although its replicas run, and is warned of before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say of a job what people should know, and why an attempt is ended."""
    for name in ("note", "fault"):
        op.add_column(
            "jobs", sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)
        )


def downgrade() -> None:
    """Drop it."""
    for name in ("fault", "note"):
        op.drop_column("jobs", name)
