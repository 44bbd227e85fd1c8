"""``nimbus queue``, ``gpus`` and ``explain``: who waits and why, what is free, who has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner, Result

from nimbus_hub.cli.main import nimbus
from nimbus_hub.cli.queue import table_lines
from nimbus_hub.client.explain import local_moment
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

Call = Callable[..., Result]
NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
STARTS = datetime(2025, 3, 1, 14, 32, tzinfo=UTC)
REASON = "waits for 4 more A100 in dc-east; 2 come back at 14:10, 2 at 14:32 UTC"
WAITING = fake.lease(
    kind="job",
    name="train",
    state="queued",
    position=2,
    slots=[],
    reason=REASON,
    reason_code="resources",
    starts_by="2025-03-01T14:32:00Z",
    queue="night",
    priority=5,
    is_preemptible=True,
)


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


def test_the_queue_tells_position_wish_reason_and_bound(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/queue", {"items": [WAITING]})
    row = cells(call("queue").stdout.splitlines()[1])
    assert row == [
        "2",
        "l1",
        "job train",
        "ada",
        "2 CPUs, 4G, 1 GPU A100",
        "night +5, preemptible",
        local_moment(NOW, NOW),
        local_moment(STARTS, NOW),
        f"resources: {REASON}",
    ]


def test_on_a_terminal_the_sentence_has_a_line_of_its_own() -> None:
    row = ("1", "l1", "job x", "ada", "1 CPU", "default", "12:00", "", "resources: waits for a CPU")
    assert [click.unstyle(line) for line in table_lines([row])] == [
        "POSITION  LEASE  FOR    OWNER  ASKS FOR  QUEUE    SINCE  AT THE LATEST",
        "1         l1     job x  ada    1 CPU     default  12:00",
        "    resources: waits for a CPU",
    ]


def test_the_queue_as_json_is_the_leases(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/queue", {"items": [WAITING]})
    found = json.loads(call("queue", "--json").stdout)
    assert [(each["position"], each["reason_code"]) for each in found] == [(2, "resources")]


def test_a_wish_for_several_roles_shares_and_models_is_written_as_asked(
    call: Call, service: FakeService
) -> None:
    worker = WAITING["groups"][0] | {
        "role": "worker", "count": 4, "gpu_milli": 500, "gpu_models": ["A100", "V100"],
    }  # fmt: skip
    ps = worker | {"role": "ps", "count": 1, "gpus": 0, "gpu_milli": 1000, "gpu_models": []}
    service.on("GET", "/api/v1/queue", {"items": [WAITING | {"groups": [worker, ps]}]})
    asked = cells(call("queue").stdout.splitlines()[1])[4]
    assert asked == "worker 4 x 2 CPUs, 4G, 0.5 GPUs A100 or V100; ps 2 CPUs, 4G"


def test_gpus_are_counted_by_model_and_datacenter_and_others_stay_unnamed(
    call: Call, service: FakeService
) -> None:
    away = fake.pool(model="T4", total=2, free=0, shared=0, shared_free_milli=0, away=2, holders=[])
    service.on("GET", "/api/v1/gpus", {"items": [fake.pool(), away]})
    rows = [cells(line) for line in call("gpus").stdout.splitlines()]
    assert rows == [
        ["MODEL", "DATACENTER", "FREE", "SHARES FREE", "AWAY", "HELD BY"],
        ["A100", "dc1", "5 of 8", "0.5 on 1", "ada 0.5, others 2"],
        ["T4", "dc1", "0 of 2", "2"],
    ]
    assert json.loads(call("gpus", "--json").stdout)[0] == fake.pool()


def test_explain_says_why_a_job_waits_and_until_when(call: Call, service: FakeService) -> None:
    moved = "a renewal of bob moved its start from 14:02 to 14:32 UTC"
    service.on("GET", "/api/v1/jobs/j1", fake.job(state="queued", reason=REASON, note=moved))
    service.on("GET", "/api/v1/leases/l1", WAITING | {"note": moved})
    assert call("explain", "j1").stdout.splitlines() == [
        "job j1 is queued",
        "  position: 2",
        f"  queue: night +5, preemptible, since {local_moment(NOW, NOW)}",
        "  asks for: 2 CPUs, 4G, 1 GPU A100",
        f"  why: {REASON} (resources)",
        f"  starts at the latest {local_moment(STARTS, NOW)}",
        f"  note: {moved}",
    ]


def test_explain_says_where_a_lease_is_and_why_there(call: Call, service: FakeService) -> None:
    placement = "4 slots on node1: the fewest hosts, all in rack r1"
    service.on("GET", "/api/v1/leases/l1", fake.lease(placement=placement))
    assert call("explain", "l1").stdout.splitlines() == [
        "lease l1 is active",
        "  on: node1",
        f"  placement: {placement}",
    ]


def test_explain_says_that_there_is_no_bound_yet(call: Call, service: FakeService) -> None:
    waiting = WAITING | {"position": None, "starts_by": None, "reason": "being scheduled"}
    service.on("GET", "/api/v1/leases/l1", waiting)
    lines = call("explain", "l1").stdout.splitlines()
    assert lines[1] == "  position: not decided yet"
    assert lines[-1] == "  starts: no bound can be promised yet"


def test_explain_as_json_has_the_bare_values(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/leases/l1", WAITING)
    found = json.loads(call("explain", "l1", "--json").stdout)
    assert found == {
        "id": "l1",
        "lease_id": "l1",
        "state": "queued",
        "queue": "night",
        "priority": 5,
        "waiting_since": NOW.isoformat(),
        "position": 2,
        "reason_code": "resources",
        "reason": REASON,
        "starts_by": STARTS.isoformat(),
        "note": "",
        "placement": "",
    }


def test_explaining_what_is_not_there_says_where_to_look(call: Call) -> None:
    result = call("explain", "x9")
    assert result.exit_code == 4
    assert result.stderr == (
        "Error: there is no job or lease 'x9' of yours; nimbus ps -a and nimbus lease list -a "
        "list them\n"
    )


@pytest.mark.parametrize("command", ["queue", "gpus", "explain"])
def test_every_command_says_what_it_shows(command: str, call: Call) -> None:
    shown = call(command, "--help").stdout
    assert "--json" in shown
    assert len(shown.split("Options:")[0].splitlines()) > 3
