"""Use: what leases held and how busy it was, noted and read apart from all else of a lease.

A note touches two columns and no version: it wakes nobody, is in nobody's way, and what
others save meanwhile leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, RowMapping, Table, bindparam, or_, select, update

from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.replica import Usage
from nimbus_hub.model.usage import LeaseUse
from nimbus_hub.store.rows import slots_from_json
from nimbus_hub.store.tables import LEASES

__all__ = ["note_use", "read_uses"]


def note_use(connection: Connection, table: Table, used: Mapping[str, Usage]) -> None:
    """Note the CPU and GPU time of leases or replicas by id; an unknown id is passed over."""
    if not used:
        return
    statement = update(table).where(table.c.id == bindparam("row_id"))
    statement = statement.values(cpu_seconds=bindparam("cpu"), gpu_seconds=bindparam("gpu"))
    rows = [
        {"row_id": key, "cpu": each.cpu_seconds, "gpu": each.gpu_seconds}
        for key, each in used.items()
    ]
    connection.execute(statement, rows)


def read_uses(
    connection: Connection, since: datetime, until: datetime, owner: str | None
) -> tuple[LeaseUse, ...]:
    """Return the leases that held anything between two moments, by their grant."""
    table = LEASES.c
    query = select(
        table.id,
        table.owner,
        table.kind,
        table.slots,
        table.granted_at,
        table.ended_at,
        table.cpu_seconds,
        table.gpu_seconds,
    ).where(or_(table.is_live.is_(True), table.ended_at > since), table.granted_at < until)
    if owner is not None:
        query = query.where(table.owner == owner)
    rows = connection.execute(query.order_by(table.granted_at, table.id)).mappings()
    return tuple(map(_use, rows))


def _use(row: RowMapping) -> LeaseUse:
    return LeaseUse(
        lease_id=row["id"],
        owner=row["owner"],
        kind=LeaseKind(row["kind"]),
        slots=slots_from_json(row["slots"]),
        granted_at=row["granted_at"],
        ended_at=row["ended_at"],
        cpu_seconds=row["cpu_seconds"],
        gpu_seconds=row["gpu_seconds"],
    )
