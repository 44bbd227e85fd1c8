"""Idleness over HTTP: what sessions report, whom it warns, whom it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from nimbus_hub.client import Client, GroupRequest, LeaseWarning
from nimbus_hub.client.resources import Lease
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.errors import Conflict, Ended, InvalidRequest, NotFound
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.policy import Signal
from tests.service.conftest import Service
from tests.service.waiting import until

NOTEBOOK = (GroupRequest("notebook", 1, 1, "2G"),)
MEASURED = [signal.value for signal in Signal if signal is not Signal.JOBS]
RULES = """\
groups: [{name: guests, users: [bob]}]
leases:
  - {kind: session, idle: 30m, idle_warning: 5m, cpu_busy: 0.2}
  - {group: guests, longest: 1h, latest_end: 2h, renewals: 1, idle: never}
"""


@pytest.fixture
def service(
    make_service: Callable[[Executor], Service], executor: Executor, tmp_path: Path
) -> Service:
    path = tmp_path / "cluster.yaml"
    path.write_text(RULES)
    service = make_service(executor)
    assert service.control is not None
    # The file is the composition root's to name; the hosts stay the executor's.
    service.control.inventory._file = ClusterFile(path)
    return service


@pytest.fixture
def hub(service: Service) -> Client:
    return service.client("admin-token")


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


def held(service: Service, hub: Client, owner: str = "ada", **wish: object) -> Lease:
    lease = hub.request_lease(owner=owner, groups=NOTEBOOK, **wish)  # type: ignore[arg-type]
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "granted")
    service.servers.alive.add((owner, lease.name))
    return hub.activate(lease.id)


def quiet(minutes: float = 10**4, **more: object) -> dict[str, object]:
    return {"idle_seconds": dict.fromkeys(MEASURED, minutes * 60), **more}


def test_a_session_is_told_when_to_report_and_what_is_busy(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub)
    terms = ada.report_activity(lease.id, quiet())
    assert (terms.next_seconds, terms.cpu_busy, terms.gpu_busy) == (30, 0.2, 0.05)
    service.skip(timedelta(minutes=24, seconds=50))
    assert 5 < ada.report_activity(lease.id, quiet()).next_seconds <= 10


def test_who_has_no_time_out_reports_seldom(service: Service, hub: Client) -> None:
    lease = held(service, hub, owner="bob", duration="1h")
    assert service.client("bob-token").report_activity(lease.id, quiet()).next_seconds == 60
    assert hub.lease(lease.id).idle_seconds is None


def test_an_idle_session_is_warned_saved_and_ended_with_its_reason(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub)
    service.skip(timedelta(minutes=25, seconds=1))
    ada.report_activity(lease.id, quiet())
    seen = until(lambda: ada.lease(lease.id), lambda seen: seen.note != "")
    assert seen.note.startswith("idle for 25m")
    assert seen.idle_since == lease.active_at
    assert seen.idle_ends_at is not None
    assert seen.idle_warns_at is not None
    assert seen.idle_ends_at - seen.idle_warns_at >= timedelta(minutes=5)
    assert seen.idle_reason.startswith("no kernel, terminal, other process")
    for _ in range(3):
        service.skip(timedelta(minutes=2))
        ada.report_activity(lease.id, quiet())
    until(lambda: ada.lease(lease.id), lambda seen: seen.state == "expiring")
    ada.saved(lease.id)
    over = until(lambda: ada.lease(lease.id), lambda seen: seen.is_ended)
    assert over.state == "expired"
    assert over.reason.startswith("idle for 31m")
    assert over.reason.endswith("its documents were saved")


def test_the_warning_says_its_kind_and_why(service: Service, hub: Client, ada: Client) -> None:
    lease = held(service, hub)
    with service.raw("ada-token") as http, http.stream("GET", "/api/v1/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": ping"  # from here on nothing is missed
        service.skip(timedelta(minutes=26))
        ada.report_activity(lease.id, quiet())
        next(line for line in lines if line == "event: warning")
        warning = json.loads(next(lines).removeprefix("data: "))
    assert (warning["kind"], warning["seconds"]) == ("idle", 300)
    assert warning["reason"].startswith("idle for 26m")
    assert set(warning) == set(LeaseWarning.__dataclass_fields__)


def test_keeping_an_idle_session_begins_its_idleness_anew(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub)
    service.skip(timedelta(minutes=26))
    ada.report_activity(lease.id, quiet())
    until(lambda: ada.lease(lease.id), lambda seen: seen.note != "")
    kept = ada.keep(lease.id)
    assert (kept.note, kept.expires_at) == ("", lease.expires_at)
    assert kept.idle_since is not None
    assert kept.now - kept.idle_since < timedelta(seconds=10)


def test_a_busy_kernel_keeps_its_session(service: Service, hub: Client, ada: Client) -> None:
    lease = held(service, hub)
    service.skip(timedelta(minutes=60))
    ada.report_activity(lease.id, quiet(busy_kernels=1))
    seen = ada.lease(lease.id)
    assert (seen.state, seen.note, seen.idle_ends_at) == ("active", "", None)


def test_a_service_that_was_down_ends_nobody_for_what_it_missed(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub)
    service.stop()
    service.clock.ahead += timedelta(minutes=60)
    service.start()
    assert service.control is not None
    service.control.inventory._file = ClusterFile(service.state / "cluster.yaml")
    ada.report_activity(lease.id, quiet())
    seen = ada.lease(lease.id)
    assert (seen.state, seen.note) == ("active", "")
    assert seen.idle_ends_at is not None
    assert seen.idle_ends_at - seen.now > timedelta(minutes=29)


def test_the_bounds_of_a_group_are_shown_before_they_are_hit(service: Service, hub: Client) -> None:
    with pytest.raises(InvalidRequest, match="duration must be at most 1h, got 2h"):
        held(service, hub, owner="bob", duration="2h")
    lease = held(service, hub, owner="bob", duration="10m")
    assert lease.expires_at is not None
    assert lease.active_at is not None
    assert lease.expires_at - lease.active_at == timedelta(minutes=10)
    assert lease.renewals_left == 1
    # One renewal, of the policy's step or the longest length, and never past two hours.
    assert lease.renewable_until == lease.active_at + timedelta(hours=2)
    bob = service.client("bob-token")
    renewed = bob.renew(lease.id, "30m")
    assert (renewed.renewals_left, renewed.renewable_until) == (0, None)
    with pytest.raises(Conflict, match="renewed 1 times, as often as its policy allows"):
        bob.renew(lease.id, "1h")
    assert bob.renew(lease.id, "1m").expires_at == renewed.expires_at


def test_a_rule_that_changes_counts_for_leases_that_run_and_takes_nothing_away(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, duration="2h")
    path = service.state / "cluster.yaml"
    assert service.control is not None
    path.write_text("leases: [{kind: session, latest_end: 30m}]")
    service.control.inventory._file = ClusterFile(path)
    seen = ada.lease(lease.id)
    assert (seen.expires_at, seen.renewable_until) == (lease.expires_at, None)
    assert seen.idle_seconds is None
    with pytest.raises(Conflict, match="cannot be renewed past"):
        ada.renew(lease.id)
    path.write_text("leases: [{kind: session, latest_end: 3d, longest: 2d, renewal: 1d}]")
    service.control.inventory._file = ClusterFile(path)
    renewed = ada.renew(lease.id)
    assert renewed.expires_at is not None
    assert renewed.expires_at - renewed.now > timedelta(hours=23)


def test_reports_are_the_sessions_own(service: Service, hub: Client, ada: Client) -> None:
    lease = held(service, hub)
    bob = service.client("bob-token")
    for attempt in (lambda: bob.report_activity(lease.id, quiet()), lambda: bob.keep(lease.id)):
        with pytest.raises(NotFound):
            attempt()
    hub.release(lease.id, "gone", is_stopped=True)
    with pytest.raises(Conflict, match="of no session that runs"):
        ada.report_activity(lease.id, quiet())
    with pytest.raises(Ended):
        ada.keep(lease.id)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"idle_seconds": {"kernel": 1}},
        {"idle_seconds": {"cpu": -1}},
        {"idle_seconds": {"cpu": "nan"}},
        {"idle_seconds": {}, "busy_kernels": -1},
        {"idle_seconds": {}, "open_documents": ["x"] * 201},
        {"idle_seconds": {}, "detail": "x"},
    ],
)
def test_a_report_that_is_none_is_refused(
    service: Service, hub: Client, ada: Client, body: dict[str, object]
) -> None:
    lease = held(service, hub)
    with pytest.raises(InvalidRequest):
        ada.report_activity(lease.id, body)
