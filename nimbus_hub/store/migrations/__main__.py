"""Writes the next migration from what tables.py has and the migrations do not yet make.

``python -m nimbus_hub.store.migrations "Leases have a colour"``; read and edit what it wrote.
"""

from __future__ import annotations

import sys

from alembic import command

from nimbus_hub.store.database import Database
from nimbus_hub.store.schema import alembic_config, next_revision, upgrade


def main(message: str) -> None:
    """Write a migration with a message, one sentence without a full stop."""
    database = Database("sqlite://")
    upgrade(database)
    with database.writing() as connection:
        command.revision(
            alembic_config(connection), message, autogenerate=True, rev_id=next_revision()
        )
    database.close()


if __name__ == "__main__":
    main(sys.argv[1])
