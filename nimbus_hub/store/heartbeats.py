"""Heartbeats: one row that says when the service was last alive."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from nimbus_hub.model.heartbeat import Heartbeat
from nimbus_hub.store.rows import heartbeat_from_row, heartbeat_to_row
from nimbus_hub.store.tables import HEARTBEAT

__all__ = ["read_beat", "write_beat"]


def write_beat(connection: Connection, beat: Heartbeat) -> None:
    """Put a sign of life in the place of the last."""
    connection.execute(delete(HEARTBEAT))
    connection.execute(insert(HEARTBEAT), [heartbeat_to_row(beat)])


def read_beat(connection: Connection) -> Heartbeat | None:
    """Return the last sign of life, if there ever was one."""
    row = connection.execute(select(HEARTBEAT)).mappings().first()
    return None if row is None else heartbeat_from_row(row)
