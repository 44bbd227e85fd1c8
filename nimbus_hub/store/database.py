"""The database behind the store: how it is opened, and what a transaction is.

Writers take turns, on SQLite by its one write lock, on PostgreSQL by an advisory lock. So
what a transaction has read stays true until it commits, and events become visible in the
order of their ids. Readers never wait and see one moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    create_engine,
    event,
    exc,
    make_url,
    select,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.sql import func

from nimbus_hub.errors import InvalidRequest, Unavailable

__all__ = ["Database"]

_IS_WRITE = "nimbus_is_write"
_ADVISORY_LOCK = 0x6E696D627573
_BUSY_MILLISECONDS = 10_000
_JSON = json.JSONEncoder(separators=(",", ":"))


class Database:
    """An engine with one kind of transaction for reading and one for writing."""

    def __init__(self, url: str) -> None:
        """Prepare to connect; raise InvalidRequest for a URL that cannot work."""
        self._url = _checked(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = self._sqlite() if self._is_sqlite else self._postgresql()
        self._readers = self._engine
        if not self._is_sqlite:
            # The default there shows each statement another moment.
            self._readers = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._writers = self._engine.execution_options(**{_IS_WRITE: True})

    def __str__(self) -> str:
        """Name the database for people, without its password."""
        return f"the database {self._url.render_as_string(hide_password=True)}"

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one moment; raise Unavailable if nobody answers."""
        with self._answering(), self._readers.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that no other writer runs beside; it commits at the end."""
        with self._answering(), self._writers.begin() as connection:
            if not self._is_sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            yield connection

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            cause = getattr(error, "orig", None) or error
            raise Unavailable(f"{self} does not answer: {cause}") from error

    def _postgresql(self) -> Engine:
        try:
            return create_engine(self._url, pool_pre_ping=True, json_serializer=_JSON.encode)
        except ModuleNotFoundError as error:
            raise InvalidRequest(
                f"{self._url.drivername} needs the package {error.name}: "
                "pip install 'nimbus-hub[postgresql]'"
            ) from error

    def _sqlite(self) -> Engine:
        path = self._url.database
        is_memory = not path or path == ":memory:"
        if path and not is_memory:
            _make_file(Path(path))
        engine = create_engine(
            self._url,
            poolclass=QueuePool,
            # What is in memory is lost with its connection: there is one, and it stays.
            pool_size=1 if is_memory else 5,
            max_overflow=0 if is_memory else 10,
            connect_args={"check_same_thread": False},
            json_serializer=_JSON.encode,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine


def _checked(url: str) -> URL:
    """Return the URL with its driver; raise InvalidRequest unless we know the database."""
    try:
        found = make_url(url)
    except exc.ArgumentError as error:
        raise InvalidRequest(
            "the database must be a URL like sqlite:////var/lib/nimbus/nimbus.sqlite"
        ) from error
    if found.drivername in {"postgresql", "postgres"}:
        return found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() in {"sqlite", "postgresql"}:
        return found
    raise InvalidRequest(
        f"the database must be sqlite:// or postgresql://, got {found.drivername}://"
    )


def _make_file(path: Path) -> None:
    """Make the file that SQLite will fill, readable by its owner alone.

    The files that SQLite puts beside it get the same mode.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise InvalidRequest(f"the database {path} cannot be made: {error.strerror}") from error


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    # The driver must not begin transactions on its own: it would begin too late for
    # reads to see one moment and for writers to wait for their turn.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get(_IS_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
