"""Usage over HTTP: what is told to whom, as JSON and as CSV."""

import asyncio
import csv
import io
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from nimbus_hub.api.usage import UsageReport as ReportSchema
from nimbus_hub.api.usage import UsageRow as RowSchema
from nimbus_hub.client import (
    Client,
    GroupRequest,
    JobRequest,
    UsageQuery,
    UsageReport,
    UsageRow,
)
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.errors import Forbidden, InvalidRequest
from nimbus_hub.executors.fake import FakeExecutor
from tests.service.conftest import Service
from tests.service.waiting import until

HOUR = timedelta(hours=1)
BY_USER = UsageQuery(everybody=True)
COLUMNS = (
    "leases,gpu_hours_held,gpu_hours_busy,busy_percent,gpu_model_hours,"
    "cpu_hours_held,cpu_hours_used,gib_hours_held"
)


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


@pytest.fixture
def bob(service: Service) -> Client:
    return service.client("bob-token")


@pytest.fixture
def admin(service: Service) -> Client:
    return service.client("admin-token")


def hold(client: Client, gpus: int) -> str:
    """Have a job run on so many GPUs; return its replica's id."""
    group = GroupRequest(gpus=gpus, cpus=2, memory="4G")
    job = client.submit(JobRequest(argv=("python", "a.py"), groups=(group,)))
    job = until(lambda: client.job(job.id), lambda job: job.state == "running")
    return job.replicas[0].id


def measured(service: Service) -> None:
    assert service.control is not None
    assert service._loop is not None
    step = service.control.meter.step()
    asyncio.run_coroutine_threadsafe(step, service._loop).result(20)


def test_what_is_held_and_how_busy_it_is(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    replica_id = hold(ada, gpus=2)
    service.skip(2 * HOUR)
    service.do(lambda: executor.use(replica_id, 3600.0, 2 * 3600.0))
    measured(service)
    report = ada.usage(UsageQuery())
    assert (report.by, report.owner) == ("user", "ada")
    assert report.until - report.since == timedelta(days=7)
    (row,) = report.items
    assert (row.key, row.leases) == ("ada", 1)
    assert row.gpu_hours_held == pytest.approx(4, abs=0.05)
    assert row.gpu_hours_busy == pytest.approx(2, abs=0.01)
    assert row.busy_percent == pytest.approx(50, abs=1)
    assert row.cpu_hours_held == pytest.approx(4, abs=0.05)
    assert row.cpu_hours_used == pytest.approx(1, abs=0.01)
    assert row.gib_hours_held == pytest.approx(8, abs=0.1)
    assert row.gpu_model_hours == {"A100": row.gpu_hours_held}
    assert report.total == UsageRow("", *(getattr(row, f.name) for f in fields(row)[1:]))


def test_users_see_their_own_and_administrators_everybodys(
    service: Service, ada: Client, bob: Client, admin: Client
) -> None:
    hold(ada, 1)
    hold(bob, 1)
    service.skip(HOUR)
    assert [row.key for row in bob.usage(UsageQuery()).items] == ["bob"]
    assert [row.key for row in bob.usage(UsageQuery(owner="bob")).items] == ["bob"]
    assert [row.key for row in admin.usage(BY_USER).items] == ["ada", "bob"]
    assert admin.usage(BY_USER).owner is None
    assert [row.key for row in admin.usage(UsageQuery(owner="ada")).items] == ["ada"]
    assert admin.usage(UsageQuery()).items == ()
    for query in (BY_USER, UsageQuery(owner="ada"), UsageQuery(by="group")):
        with pytest.raises(Forbidden, match="bob may not see the usage of"):
            bob.usage(query)


def test_groups_are_those_of_the_cluster_file(
    service: Service, ada: Client, bob: Client, admin: Client, tmp_path: Path
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("groups: [{name: vision, users: [ada]}]")
    assert service.control is not None
    service.control.inventory._file = ClusterFile(path)
    hold(ada, 1)
    hold(bob, 2)
    service.skip(HOUR)
    found = {row.key: row.gpu_hours_held for row in admin.usage(UsageQuery(by="group")).items}
    assert found == {"": pytest.approx(2, abs=0.05), "vision": pytest.approx(1, abs=0.05)}


def test_a_period_is_cut_at_its_bounds(service: Service, ada: Client) -> None:
    hold(ada, 1)
    start = ada.usage(UsageQuery()).until
    service.skip(10 * HOUR)
    query = UsageQuery(start + 2 * HOUR, start + 5 * HOUR)
    assert ada.usage(query).total.gpu_hours_held == pytest.approx(3)
    assert ada.usage(UsageQuery(start - 9 * HOUR, start - HOUR)).items == ()
    with pytest.raises(InvalidRequest, match="since must be before until"):
        ada.usage(UsageQuery(start, start))


@pytest.mark.parametrize("way", ["format", "accept"])
def test_csv_has_a_line_for_each_row(service: Service, ada: Client, way: str) -> None:
    hold(ada, 1)
    service.skip(HOUR)
    with service.raw("ada-token") as http:
        if way == "format":
            answer = http.get("/api/v1/usage?format=csv&by=kind")
        else:
            answer = http.get("/api/v1/usage?by=kind", headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.text.splitlines()[0] == f"kind,{COLUMNS}"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["kind"], row["leases"]) == ("job", "1")
    assert float(row["gpu_hours_held"]) == pytest.approx(1, abs=0.02)
    assert row["gpu_model_hours"] == f"A100={row['gpu_hours_held']}"
    assert ada.usage_csv(UsageQuery(by="kind")).startswith("kind,leases,")


@pytest.mark.parametrize(
    "query",
    ["since=2026-01-01", "since=yesterday", "by=model", "format=xml", "all=perhaps", "x=1"],
)
def test_a_query_that_is_wrong_is_refused(service: Service, query: str) -> None:
    with service.raw("ada-token") as http:
        answer = http.get(f"/api/v1/usage?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_moments_at_the_edge_of_time_are_no_error_of_the_service(service: Service) -> None:
    with service.raw("ada-token") as http:
        ever = {"since": "1970-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z", "by": "day"}
        assert http.get("/api/v1/usage", params=ever).status_code == 200
        for wrong in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T00Z"):
            assert http.get("/api/v1/usage", params={"until": wrong}).status_code == 400


def test_the_client_knows_all_of_an_answer() -> None:
    assert {field.name for field in fields(UsageReport)} == set(ReportSchema.model_fields)
    assert {field.name for field in fields(UsageRow)} == set(RowSchema.model_fields)
