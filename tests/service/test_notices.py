"""What happens to leases and jobs reaches people, at most once, over restarts too.

A web server stands for where it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from nimbus_hub.client import Client, GroupRequest, JobRequest, Lease
from nimbus_hub.control.bus import Warned, WarningKind
from nimbus_hub.executors.fake import FakeExecutor
from tests.receiver import Receiver, receiving
from tests.service.conftest import Service
from tests.service.waiting import until

NOTEBOOK = (GroupRequest("notebook", 1, 1, "2G"),)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def tell(service: Service, receiver: Receiver, **settings: object) -> None:
    """Have a service tell a receiver; operators' settings are read when it starts."""
    service.notifiers = {"webhook": {"url": receiver.url, **settings}}
    service.stop()
    service.start()


def titles(receiver: Receiver, count: int) -> list[str]:
    """Return the titles of what came, when so many came."""
    bodies = until(receiver.bodies, lambda found: len(found) >= count)
    return [body["title"] for body in bodies]


@pytest.fixture
def told(service: Service, receiver: Receiver) -> Receiver:
    """The receiver of everything that the service tells."""
    tell(service, receiver)
    return receiver


@pytest.fixture
def hub(service: Service) -> Client:
    return service.client("admin-token")


@pytest.fixture
def session(service: Service, hub: Client) -> Callable[[str], Lease]:
    """Return how a session is held for so long."""

    def held(duration: str) -> Lease:
        lease = hub.request_lease(owner="ada", groups=NOTEBOOK, duration=duration)
        until(lambda: hub.lease(lease.id), lambda seen: seen.state == "granted")
        service.servers.alive.add(("ada", ""))
        return hub.activate(lease.id)

    return held


def test_warnings_and_the_end_of_a_session_reach_its_user(
    service: Service, hub: Client, told: Receiver, session: Callable[[str], Lease]
) -> None:
    lease = session("20m")
    service.skip(timedelta(minutes=15, seconds=1))
    assert titles(told, 1) == ["Your session ends in 5m"]
    warning = told.bodies()[0]
    assert warning["user"] == "ada"
    assert warning["kind"] == "lease-warning"
    assert warning["url"] == "https://hub.example.org/hub/home"
    assert lease.latest_end is not None
    assert (
        f"It can be renewed until {lease.latest_end:%H:%M} UTC" in warning["text"]
        or f"It can be renewed until {lease.latest_end:%Y-%m-%d %H:%M} UTC" in warning["text"]
    )
    assert warning["text"].endswith(f"nimbus lease renew --lease {lease.id}")
    service.skip(timedelta(minutes=5))
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "expiring")
    service.client("ada-token").saved(lease.id, ["train.ipynb"])
    assert titles(told, 2)[-1] == "Your session has ended"
    assert told.bodies()[-1]["text"].endswith(
        "UTC: its lease ran out and was not renewed; its documents were saved. "
        "Open were: train.ipynb."
    )


def test_what_its_user_ended_needs_no_notice(
    service: Service, hub: Client, told: Receiver, session: Callable[[str], Lease]
) -> None:
    mine = session("20m")
    hub.release(mine.id, "stopped by ada", is_stopped=True)
    died = session("20m")
    reason = "the session's server ended with exit code -9 (SIGKILL)"
    hub.release(died.id, reason, is_stopped=True)
    assert titles(told, 1) == ["Your session has ended"]
    assert told.bodies()[0]["text"].endswith(f"{reason}.")


def test_the_end_of_a_job_reaches_its_owner(
    service: Service, executor: FakeExecutor, told: Receiver
) -> None:
    ada = service.client("ada-token")
    job = ada.submit(JobRequest(("python", "train.py"), name="train"))
    until(lambda: ada.job(job.id), lambda seen: seen.state == "running")
    (replica,) = ada.job(job.id).replicas
    service.do(lambda: executor.exit(replica.id, 3))
    assert titles(told, 1) == ["Job train failed"]
    (body,) = told.bodies()
    assert body["kind"] == "job-ended"
    assert f"Job train ({job.id}) failed after" in body["text"]
    assert body["text"].endswith(f"Its output: nimbus logs {job.id}")
    assert body["url"] == "https://hub.example.org/services/nimbus/"


def test_a_silent_job_is_told_before_it_ends(service: Service, told: Receiver) -> None:
    ada = service.client("ada-token")
    job = ada.submit(JobRequest(("python", "train.py"), name="train", stall="1h"))
    until(lambda: ada.job(job.id), lambda seen: seen.state == "running")
    service.skip(timedelta(minutes=31))
    assert titles(told, 1) == ["Job train is silent"]
    (body,) = told.bodies()
    assert body["kind"] == "job-warning"
    assert body["text"].startswith(
        f"Job train ({job.id}): nothing was heard of it for 30m; it ends as stalled at "
    )
    service.skip(timedelta(minutes=30))
    assert titles(told, 2) == ["Job train is silent", "Job train failed"]


def test_nothing_is_told_twice_by_a_service_that_restarts(
    service: Service, hub: Client, told: Receiver, session: Callable[[str], Lease]
) -> None:
    lease = session("20m")
    service.skip(timedelta(minutes=5, seconds=1))
    assert titles(told, 1) == ["Your session ends in 15m"]
    service.stop()
    service.start()
    service.skip(timedelta(minutes=10))
    assert titles(told, 2) == ["Your session ends in 15m", "Your session ends in 5m"]
    assert hub.lease(lease.id).state == "active"


def test_an_operator_chooses_the_events(
    service: Service, hub: Client, receiver: Receiver, session: Callable[[str], Lease]
) -> None:
    tell(service, receiver, events=["lease-ended"])
    lease = session("20m")
    service.skip(timedelta(minutes=15, seconds=1))
    hub.release(lease.id, "the session's server ended with exit code 1", is_stopped=True)
    assert titles(receiver, 1) == ["Your session has ended"]


def test_a_receiver_that_is_down_is_tried_again_and_holds_up_nobody(
    service: Service, hub: Client, told: Receiver, session: Callable[[str], Lease]
) -> None:
    told.statuses = [503]
    lease = session("20m")
    hub.release(lease.id, "the session's server ended with exit code 1", is_stopped=True)
    assert titles(told, 2) == ["Your session has ended"] * 2
    assert session("20m").state == "active"
    sent = 'nimbus_notices_total{notifier="webhook",outcome="sent"} 1.0'
    with service.raw("admin-token") as http:
        until(lambda: http.get("/metrics").text, lambda text: sent in text)


def test_an_idle_session_is_told_with_what_to_do(
    service: Service, told: Receiver, session: Callable[[str], Lease]
) -> None:
    lease = session("2h")
    control = service.control
    assert control is not None
    known = control.records.known(lease.id)
    assert known is not None
    idle = Warned(known, 600, WarningKind.IDLE, "idle for 50m: no kernel or terminal")
    service.do(lambda: control.bus.publish(idle))
    assert titles(told, 1) == ["Your session is idle"]
    (body,) = told.bodies()
    assert body["kind"] == "idle-warning"
    assert body["text"].startswith("Your session is idle for 50m: no kernel or terminal. It ends")
    assert body["text"].endswith(
        "UTC unless you keep it. If you do not need it any more, give it back: "
        f"nimbus lease release {lease.id}"
    )
