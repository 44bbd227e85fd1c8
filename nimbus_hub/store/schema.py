"""The schema's version: brings a database to the newest one, with alembic.

There is no alembic.ini: this module is the configuration.
"""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.store.database import Database

__all__ = ["alembic_config", "next_revision", "upgrade"]

log = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> None:
    """Bring the schema to the newest version, all or nothing; do nothing if it is there.

    Raises InvalidRequest if a newer Nimbus Hub has written the database.
    """
    head = _head()
    with database.reading() as connection:
        if _revision(connection) == head:
            return
    with database.writing() as connection:
        # Another process may have been quicker while this one waited for its turn.
        found = _revision(connection)
        if found == head:
            return
        try:
            command.upgrade(alembic_config(connection), "head")
        except CommandError as error:
            raise InvalidRequest(
                f"the database has schema {found}, which this Nimbus Hub does not know "
                f"(its newest is {head}): use the version that wrote it, or a newer one"
            ) from error
    log.info("database schema moved from %s to %s", found or "nothing", head)


def alembic_config(connection: Connection) -> Config:
    """Return alembic's configuration to work over a connection, in its transaction."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def next_revision() -> str:
    """Return the id of the migration to be written next: they are counted, ``0001`` on."""
    return f"{int(_head() or 0) + 1:04}"


def _head() -> str | None:
    return ScriptDirectory(str(_MIGRATIONS)).get_current_head()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
