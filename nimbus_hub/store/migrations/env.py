"""Runs migrations over the connection that the store gives, in its transaction."""

from __future__ import annotations

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from nimbus_hub.store.tables import METADATA, Moment


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Write our own type as what it is in the database: migrations import nothing of ours."""
    if kind == "type" and isinstance(item, Moment):
        return "sa.DateTime(timezone=True)"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # The store begins SQLite's transactions itself, so there too a migration is all or nothing.
    transactional_ddl=True,
    # SQLite changes a table by making another and copying.
    render_as_batch=True,
    render_item=render_item,
)
context.run_migrations()
