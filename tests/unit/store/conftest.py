"""Databases for the store's tests: SQLite, and PostgreSQL where NIMBUS_TEST_POSTGRESQL is a URL.

What is in that database is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from nimbus_hub.store.store import Store

POSTGRESQL = os.environ.get("NIMBUS_TEST_POSTGRESQL", "")
KINDS = ["sqlite", "postgresql"] if POSTGRESQL else ["sqlite"]


def fresh_url(kind: str, directory: Path) -> str:
    """Return the URL of a database with nothing in it."""
    if kind == "sqlite":
        return f"sqlite:///{directory}/state/nimbus.sqlite"
    engine = create_engine(POSTGRESQL.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return POSTGRESQL


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database of each kind, empty."""
    return fresh_url(request.param, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Return an empty store in a database of each kind."""
    found = Store.open(url)
    yield found
    found.close()


@pytest.fixture(scope="module", params=KINDS)
def lasting_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """Return a store that many examples fill, for tests that make their own ids."""
    found = Store.open(fresh_url(request.param, tmp_path_factory.mktemp("lasting")))
    yield found
    found.close()
