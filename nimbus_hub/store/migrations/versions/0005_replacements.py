"""A replica may be replaced alone; a run knows how many attempts the earlier ones had."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PLACE = ["job_id", "attempt", "rank"]
_UNIQUE = "uq_replicas_job_id_attempt_rank"


def upgrade() -> None:
    """Count restarts in a place; in a batch, for nothing refers to replicas."""
    with op.batch_alter_table("replicas") as replicas:
        replicas.add_column(sa.Column("restarts", sa.Integer(), server_default="0", nullable=False))
        replicas.drop_constraint(_UNIQUE, type_="unique")
        replicas.create_unique_constraint(f"{_UNIQUE}_restarts", [*_PLACE, "restarts"])
    op.add_column(
        "jobs", sa.Column("earlier_turns", sa.Integer(), server_default="0", nullable=False)
    )
    # At least as many as there were: each run has had one attempt.
    op.execute("UPDATE jobs SET earlier_turns = run")


def downgrade() -> None:
    """Drop what was added, and the replicas that were replaced."""
    op.drop_column("jobs", "earlier_turns")
    op.execute("DELETE FROM replicas WHERE restarts > 0")
    with op.batch_alter_table("replicas") as replicas:
        replicas.drop_constraint(f"{_UNIQUE}_restarts", type_="unique")
        replicas.create_unique_constraint(_UNIQUE, _PLACE)
        replicas.drop_column("restarts")
