"""Opening: what cannot be opened says why, and migrations lead to what the code expects."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.store.database import Database
from nimbus_hub.store.schema import alembic_config, next_revision, upgrade
from nimbus_hub.store.store import Store
from nimbus_hub.store.tables import METADATA

OLD_ROWS = (
    """INSERT INTO leases (id, kind, owner, name, groups, length_microseconds, created_at,
    environment, state, reason, slots, renewals, version, is_live) VALUES
    ('l-1', 'job', 'ann', '', '[{"role": "worker", "gpus": 1, "gpu_model": "A100"}]', 1,
    '2026-05-04 12:30:00', 'default', 'queued', '', '[]', 0, 1, true)""",
    """INSERT INTO jobs (id, name, owner, lease_id, launch, created_at, state, reason, attempt,
    progress_message, version, is_live) VALUES ('j-1', '', 'ann', 'l-1',
    '{"argv": ["x"], "framework": "script", "retries": 2}', '2026-05-04 12:30:00', 'queued', '',
    1, '', 1, true)""",
)
"""What the first version wrote, as far as it matters here."""


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    yield found
    found.close()


def test_migrations_lead_to_the_tables(database: Database) -> None:
    upgrade(database)
    with database.reading() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert (
            compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        )


def test_a_schema_can_be_taken_back(database: Database) -> None:
    upgrade(database)
    with database.writing() as connection:
        command.downgrade(alembic_config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    upgrade(database)


def test_rows_of_the_first_schema_are_read_and_can_go_back(database: Database, url: str) -> None:
    with database.writing() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for row in OLD_ROWS:
            connection.execute(text(row))
    store = Store.open(url)
    lease, job = store.lease("l-1"), store.job("j-1")
    store.close()
    assert (lease.wishes, lease.reason_code, lease.note, lease.placement) == (Wishes(), "", "", "")
    assert lease.groups[0].gpu_models == ("A100",)
    assert (job.preemptions, job.attempts) == (0, 3)
    with database.writing() as connection:
        command.downgrade(alembic_config(connection), "0001")
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 1


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nimbus.sqlite"
    Store.open(url).close()
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(InvalidRequest, match="has schema 9999, which this Nimbus Hub does not"):
        Store.open(url)


def test_two_that_open_a_new_database_at_once_both_can(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nimbus.sqlite"
    with ThreadPoolExecutor(4) as threads:
        for store in threads.map(Store.open, [url] * 4, timeout=30):
            store.close()


def test_migrations_are_counted() -> None:
    assert next_revision() == "0008"


def test_the_indexes_are_used_for_what_is_asked_most(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nimbus.sqlite")
    upgrade(database)
    queries = {
        "SELECT * FROM leases WHERE is_live IS 1": "ix_leases_is_live_created_at",
        "SELECT * FROM jobs WHERE is_live IS 1": "ix_jobs_is_live_created_at",
        "SELECT * FROM leases WHERE owner = 'a' ORDER BY created_at DESC": (
            "ix_leases_owner_created_at"
        ),
        "SELECT * FROM events WHERE owner = 'a' AND id > 5 ORDER BY id": "ix_events_owner_id",
        "SELECT * FROM leases WHERE ended_at > 5 AND granted_at IS NOT NULL": "ix_leases_ended_at",
        "SELECT * FROM leases WHERE kind = 'session' AND is_live IS 1 AND owner IN ('a', 'b')": (
            "ix_leases_owner_is_live"
        ),
        "SELECT * FROM jobs WHERE lease_id = 'a'": "ix_jobs_lease_id",
    }
    with database.reading() as connection:
        for query, index in queries.items():
            (row,) = connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))
            assert index in row.detail
    database.close()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "must be a URL"),
        ("nimbus.sqlite", "must be a URL"),
        ("mysql://localhost/nimbus", "must be sqlite:// or postgresql://"),
        ("sqlite:////dev/null/nimbus.sqlite", "cannot be made"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_the_reason(bad: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Store.open(bad)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes\n" * 100)
    with pytest.raises(InvalidRequest, match=r"notes\.txt cannot be used: .*not a database"):
        Store.open(f"sqlite:///{path}")


def test_a_server_that_does_not_answer_is_unavailable_and_its_password_is_not_shown() -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        Store.open("postgresql://nimbus:secret@127.0.0.1:1/nimbus?connect_timeout=2")
    assert "secret" not in caught.value.message
