"""``nimbus usage``: the table, and what is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from nimbus_hub.cli.main import nimbus
from tests.unit.fake_service import FakeService

Call = Callable[..., Result]
PATH = "/api/v1/usage"


def row(key: str, **changed: Any) -> dict[str, Any]:
    return {
        "key": key,
        "leases": 2,
        "gpu_hours_held": 8.0,
        "gpu_hours_busy": 2.0,
        "busy_percent": 25.0,
        "gpu_model_hours": {"A100": 6.0, "T4": 2.0},
        "cpu_hours_held": 16.5,
        "cpu_hours_used": 4.125,
        "gib_hours_held": 32.0,
        **changed,
    }


def report(*items: dict[str, Any], by: str = "day", owner: str | None = "ada") -> dict[str, Any]:
    return {
        "since": "2025-03-01T12:00:00Z",
        "until": "2025-03-08T12:00:00Z",
        "by": by,
        "owner": owner,
        "items": list(items),
        "total": row(""),
    }


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def call(service: FakeService) -> Call:
    runner = CliRunner()
    return lambda *words: runner.invoke(nimbus, list(words), obj=service.client)


def cells(line: str) -> list[str]:
    """Return a table's cells, which are two spaces apart."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def asked(service: FakeService) -> dict[str, str]:
    return dict(service.requests[-1].url.params)


def test_held_and_busy_are_shown_day_by_day(call: Call, service: FakeService) -> None:
    idle = row("2025-03-02", busy_percent=None, gpu_model_hours={}, gpu_hours_held=0.0)
    service.on("GET", PATH, report(row("2025-03-01"), idle))
    done = call("usage")
    assert done.exit_code == 0
    heading, first, second, total = done.stdout.splitlines()
    assert cells(heading)[:3] == ["DAY", "LEASES", "GPU-HOURS HELD"]
    amounts = ["8.00", "2.00", "25", "16.50", "4.12", "32.00", "A100 6.00, T4 2.00"]
    assert cells(first) == ["2025-03-01", "2", *amounts]
    assert cells(second) == ["2025-03-02", "2", "0.00", "2.00", "16.50", "4.12", "32.00"]
    assert cells(total) == ["together", "2", *amounts]
    assert done.stderr.startswith("usage of ada from ")


def test_by_default_it_is_ones_own_week_by_day(call: Call, service: FakeService) -> None:
    service.on("GET", PATH, report())
    done = call("usage")
    assert "nothing was held" in done.stderr
    found = asked(service)
    week_ago = datetime.now(UTC) - timedelta(days=7)
    assert abs(datetime.fromisoformat(found.pop("since")) - week_ago) < timedelta(minutes=1)
    assert found == {"by": "day"}


def test_everybodys_is_by_user_and_who_is_in_no_group_is_shown(
    call: Call, service: FakeService
) -> None:
    service.on("GET", PATH, report(row("ada"), by="user", owner=None))
    done = call("usage", "--all")
    assert (asked(service)["by"], asked(service)["all"]) == ("user", "true")
    assert done.stderr.startswith("usage of everybody from ")
    assert len(done.stdout.splitlines()) == 2  # of one row no sum is needed
    service.on("GET", PATH, report(row("", leases=1), by="group", owner=None))
    done = call("usage", "--by", "group", "--owner", "bob")
    assert (asked(service)["by"], asked(service)["owner"]) == ("group", "bob")
    assert cells(done.stdout.splitlines()[1])[:2] == ["(none)", "1"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-01", datetime(2026, 11, 1).astimezone()),
        ("2026-11-01T14:30", datetime(2026, 11, 1, 14, 30).astimezone()),
        ("2026-11-01T14:30+02:00", datetime.fromisoformat("2026-11-01T14:30+02:00")),
    ],
)
def test_a_day_is_in_the_readers_zone(
    call: Call, service: FakeService, written: str, meant: datetime
) -> None:
    service.on("GET", PATH, report())
    assert call("usage", "--since", "30d", "--until", written).exit_code == 0
    assert datetime.fromisoformat(asked(service)["until"]) == meant


def test_another_word_for_a_time_is_refused(call: Call) -> None:
    done = call("usage", "--since", "yesterday")
    assert done.exit_code == 2
    assert "must be like 7d, 2026-11-01 or 2026-11-01T14:30, got 'yesterday'" in done.stderr


def test_csv_is_printed_as_the_service_sends_it(call: Call, service: FakeService) -> None:
    text = "user,leases\r\nada,2\r\n"
    service.on("GET", PATH, httpx.Response(200, text=text, headers={"Content-Type": "text/csv"}))
    done = call("usage", "--csv")
    assert (done.stdout_bytes.decode(), asked(service)["format"]) == (text, "csv")


def test_json_is_the_report(call: Call, service: FakeService) -> None:
    service.on("GET", PATH, report(row("2025-03-01")))
    found = json.loads(call("usage", "--json").stdout)
    assert found["items"] == [row("2025-03-01")]
    assert call("usage", "--json", "--csv").exit_code == 2
