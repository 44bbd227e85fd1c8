"""Databases for the store's tests: SQLite, and a PostgreSQL server started for them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import create_engine, text

from nimbus_hub.store.store import Store

KINDS = ["sqlite", "postgresql"]
Fresh = Callable[[str], str]


def programs() -> Path | None:
    """Return where PostgreSQL's programs are; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Return the URL of a server of our own, which listens on a Unix socket only."""
    binaries = programs()
    if binaries is None:
        missing = "PostgreSQL is missing: apt-get install postgresql"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    with TemporaryDirectory(prefix="nimbus-postgresql-") as directory:
        data = Path(directory) / "data"
        # PostgreSQL refuses to run as root; Debian's package brings an account for it.
        account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        user = None if account is None else account.pw_name

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(binaries / program), "-D", str(data), *arguments],
                user=user,
                cwd=directory,
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=60,
            )

        run("initdb", "-A", "trust", "-U", "nimbus", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
        run("pg_ctl", "-w", "-l", f"{directory}/log", "-o", options, "start")
        try:
            yield f"postgresql://nimbus@/postgres?host={directory}"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


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
