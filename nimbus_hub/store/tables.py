"""The tables. The migrations lead to exactly these; a test compares them.

Moments are UTC, enums and ids are text, what is only read as a whole is JSON. ``is_live``
is derived from the state with each write, so that an index finds the few rows that are
not over among all that ever were.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

__all__ = ["EVENTS", "HEARTBEAT", "HOST_MARKS", "JOBS", "LEASES", "METADATA", "REPLICAS", "Moment"]


class Moment(TypeDecorator[datetime]):
    """A datetime that is aware, and UTC, whichever database keeps it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Return what makes a moment a parameter; for SQLite in one step, as it runs so often."""
        return _to_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC; raise ValueError if it has no zone."""
        if value is None:
            return None
        return _in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC; SQLite gives it back without a zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError(f"a datetime must have a time zone, got {value!r}")
    return value.astimezone(UTC)


def _to_text(value: datetime | None) -> str | None:
    """Return a moment as SQLAlchemy has SQLite keep it."""
    if value is None:
        return None
    return _in_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds")


_EMPTY = text("''")

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LEASES = Table(
    "leases",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("length_microseconds", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("environment", Text, nullable=False),
    Column("parent", Text, index=True),
    Column("size", Text, nullable=False, server_default=_EMPTY),
    # NULL in rows that are older than wishes; PostgreSQL cannot compare defaults of JSON.
    Column("wishes", JSON),
    Column("state", Text, nullable=False),
    Column("target", Text),
    Column("reason", Text, nullable=False),
    Column("reason_code", Text, nullable=False, server_default=_EMPTY),
    Column("note", Text, nullable=False, server_default=_EMPTY),
    Column("placement", Text, nullable=False, server_default=_EMPTY),
    Column("slots", JSON, nullable=False),
    Column("position", Integer),
    Column("queued_at", Moment),
    Column("starts_by", Moment),
    Column("wait_until", Moment),
    Column("granted_at", Moment),
    Column("active_at", Moment),
    Column("expires_at", Moment),
    Column("latest_end", Moment),
    Column("renewals", Integer, nullable=False),
    Column("ending_at", Moment),
    Column("saved_at", Moment),
    Column("ended_at", Moment),
    Column("cpu_seconds", Double, nullable=False, server_default="0"),
    Column("gpu_seconds", Double, nullable=False, server_default="0"),
    Column("opened", JSON),
    Column("version", BigInteger, nullable=False),
    Column("is_live", Boolean, nullable=False),
    Index(None, "is_live", "created_at"),
    Index(None, "owner", "created_at"),
    Index(None, "owner", "is_live"),
    Index(None, "ended_at"),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_id", Text, ForeignKey("leases.id"), nullable=False, index=True),
    Column("launch", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("target", Text),
    Column("reason", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("preemptions", Integer, nullable=False, server_default="0"),
    Column("is_holder", Boolean, nullable=False, server_default=false()),
    Column("run", Integer, nullable=False, server_default="0"),
    Column("earlier_turns", Integer, nullable=False, server_default="0"),
    Column("progress", Double),
    Column("progress_message", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=_EMPTY),
    Column("fault", Text, nullable=False, server_default=_EMPTY),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("deleted_at", Moment),
    Column("deletion", Text, nullable=False, server_default=_EMPTY),
    Column("is_kept", Boolean, nullable=False, server_default=true()),
    Column("version", BigInteger, nullable=False),
    Column("is_live", Boolean, nullable=False),
    Index(None, "is_live", "created_at"),
    Index(None, "owner", "created_at"),
    Index(None, "is_kept", "ended_at"),
)

REPLICAS = Table(
    "replicas",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("role_rank", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("exit_code", BigInteger),
    Column("reason", Text, nullable=False),
    Column("directory", Text, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("cpu_seconds", Double, nullable=False, server_default="0"),
    Column("gpu_seconds", Double, nullable=False, server_default="0"),
    Column("restarts", Integer, nullable=False, server_default="0"),
    UniqueConstraint("job_id", "attempt", "rank", "restarts"),
)

EVENTS = Table(
    "events",
    METADATA,
    # SQLite only counts up for ever in a column of exactly this type, with AUTOINCREMENT.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Moment, nullable=False),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "owner", "id"),
    Index(None, "object_id", "id"),
    sqlite_autoincrement=True,
)

HEARTBEAT = Table(
    "heartbeat",
    METADATA,
    Column("at", Moment, primary_key=True),
    Column("boot", Text, nullable=False),
    Column("uptime_seconds", Double, nullable=False),
)

HOST_MARKS = Table(
    "host_marks",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("marked_by", Text, nullable=False),
    Column("marked_at", Moment, nullable=False),
)
