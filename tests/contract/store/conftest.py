"""Databases for the store's tests: SQLite, and a PostgreSQL server started for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, text

from nimbus_hub.store.store import Store
from tests.contract.store.postgresql import programs, server

KINDS = ["sqlite", "postgresql"]
Fresh = Callable[[str], str]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Return the URL of a server of our own, which listens on a Unix socket only."""
    binaries = programs()
    if binaries is None:
        missing = "PostgreSQL is missing: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with server(binaries, is_durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def fresh_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Return what gives the URL of a database of a kind with nothing in it."""

    def fresh(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('store')}/state/nimbus.sqlite"
        url: str = request.getfixturevalue("postgresql")
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
        return url

    return fresh


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, fresh_url: Fresh) -> str:
    """Return the URL of a database of each kind, empty."""
    return fresh_url(request.param)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Return an empty store in a database of each kind."""
    found = Store.open(url)
    yield found
    found.close()


@pytest.fixture(scope="module", params=KINDS)
def lasting_store(request: pytest.FixtureRequest, fresh_url: Fresh) -> Iterator[Store]:
    """Return a store that many examples fill, for tests that make their own ids."""
    found = Store.open(fresh_url(request.param))
    yield found
    found.close()
