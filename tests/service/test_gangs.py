"""Debug gangs over HTTP: held, run on, listed, given back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from nimbus_hub.client import Client, Gang, GangRequest, GroupRequest, Job, JobRequest, Lease
from nimbus_hub.errors import Conflict, Ended, Forbidden, Impossible, InvalidRequest, NotFound
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from tests.service.conftest import Service, hosts
from tests.service.waiting import until

TWO = (GroupRequest(count=2),)
TRAIN = ("python", "train.py")


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


@pytest.fixture
def hub(service: Service) -> Client:
    return service.client("admin-token")


def held(ada: Client, **wishes: Any) -> Gang:
    """Return a gang that is ready, as whoever follows it sees it."""
    gang = ada.request_gang(GangRequest(**{"groups": TWO, **wishes}))
    while gang.state != "ready":
        assert gang.state in ("queued", "warming"), gang
        gang = ada.gang(gang.lease.id, after=gang.version)
    return gang


def started(ada: Client, gang: Gang, **wishes: Any) -> Job:
    job = ada.submit(JobRequest(argv=TRAIN, gang=gang.lease.id, **wishes))
    return until(lambda: ada.job(job.id), lambda seen: seen.state == "running")


def ended(ada: Client, job: Job) -> Job:
    return until(lambda: ada.job(job.id), lambda seen: seen.is_ended)


def over(ada: Client, gang: Gang) -> Gang:
    return until(lambda: ada.gang(gang.lease.id), lambda seen: seen.state == "ended")


def exit_all(service: Service, executor: FakeExecutor, job: Job, code: int = 0) -> None:
    for replica in job.replicas:
        service.do(partial(executor.exit, replica.id, code))


def session(service: Service, hub: Client, owner: str = "ada") -> Lease:
    """Return the lease of a session that runs."""
    service.servers.alive.add((owner, ""))
    lease = hub.request_lease(owner=owner, groups=[GroupRequest("notebook")])
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "granted")
    return hub.activate(lease.id)


@contextmanager
def thinking(service: Service, ada: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the scheduler think about a request for as long as the context lasts."""
    begun, may_end = threading.Event(), threading.Event()
    assert service.control is not None
    plan = service.control.scheduling.plan

    def slow(*given: Any) -> Any:
        begun.set()
        may_end.wait(20)
        return plan(*given)

    monkeypatch.setattr(service.control.scheduling, "plan", slow)
    ada.submit(JobRequest(argv=("x",)))
    assert begun.wait(10)
    try:
        yield
    finally:
        may_end.set()


def test_a_user_holds_a_gang_and_runs_on_it_again_and_again(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    gang = held(ada, framework="pytorch", duration="30m")
    assert (gang.framework, gang.run, gang.runs) == ("pytorch", None, 0)
    assert (gang.lease.kind, gang.lease.name, gang.lease.parent) == ("debug", "debug", None)
    assert gang.lease.length_seconds == 30 * 60
    assert [(each.name, each.state) for each in gang.replicas] == [
        ("worker-0", "running"),
        ("worker-1", "running"),
    ]
    for number in (1, 2):
        job = started(ada, gang)
        assert (job.gang, job.lease_id, job.framework) == (gang.lease.id, gang.lease.id, "pytorch")
        busy = ada.gang(gang.lease.id)
        assert busy.run is not None
        assert (busy.state, busy.run.id, busy.runs) == ("busy", job.id, number)
        assert busy.reason == f"runs {job.id} (train.py)"
        exit_all(service, executor, job)
        assert ended(ada, job).state == "succeeded"
    ready = ada.gang(gang.lease.id)
    assert (ready.state, ready.run, ready.runs) == ("ready", None, 2)
    assert ready.version > gang.version


def test_a_run_is_told_to_whoever_follows_the_gang(ada: Client) -> None:
    gang = held(ada)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ada.gang, gang.lease.id, after=gang.version, timeout=10)
        time.sleep(0.05)  # The other thread has no way to say that its request is under way.
        job = ada.submit(JobRequest(argv=TRAIN, gang=gang.lease.id))
        seen = waiting.result(10)
    assert seen.run is not None
    assert (seen.state, seen.run.id) == ("busy", job.id)


def test_of_two_runs_that_are_submitted_at_once_one_is_refused(
    service: Service, ada: Client
) -> None:
    gang = held(ada)
    request = JobRequest(argv=TRAIN, gang=gang.lease.id)
    clients = [service.client("ada-token") for _ in range(8)]

    def submit(client: Client) -> Job | Conflict:
        try:
            return client.submit(request)
        except Conflict as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, clients))
    (job,) = [each for each in answers if isinstance(each, Job)]
    refused = {each.message for each in answers if isinstance(each, Conflict)}
    assert refused == {
        f"gang {gang.lease.id} runs {job.id} (train.py) now; "
        f"stop it with `nimbus stop {job.id}` or wait"
    }


def test_a_run_on_a_gang_that_waits_says_so_and_starts_when_it_can(
    service: Service, executor: FakeExecutor, ada: Client, hub: Client
) -> None:
    executor.auto_warm = False
    blocker = ada.submit(JobRequest(argv=("x",), groups=(GroupRequest(gpus=4),)))
    until(lambda: ada.job(blocker.id), lambda seen: seen.state == "running")
    gang = ada.request_gang(GangRequest(groups=(GroupRequest(gpus=1),)))
    job = ada.submit(JobRequest(argv=TRAIN, gang=gang.lease.id))
    waiting = until(
        lambda: ada.job(job.id),
        lambda seen: seen.reason_code == "resources" and bool(seen.position),
    )
    assert waiting.reason.startswith("waits for its gang: ")
    assert ada.lease(gang.lease.id).reason in waiting.reason
    plan = ada.gang(gang.lease.id)
    assert (plan.state, plan.reason) == ("queued", plan.lease.reason)
    ada.stop(blocker.id)
    warming = until(lambda: ada.gang(gang.lease.id), lambda seen: bool(seen.replicas))
    until(lambda: ada.job(job.id).reason, lambda seen: seen == "its gang is being warmed up")
    for replica in warming.replicas:
        service.do(partial(executor.run, replica.id))
    assert until(lambda: ada.job(job.id), lambda seen: seen.state == "running").reason == ""


def test_giving_back_while_a_run_is_under_way_stops_it_first(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    executor.auto_stop = False
    gang = held(ada)
    job = started(ada, gang)
    assert ada.release(gang.lease.id).state == "expiring"
    assert ada.gang(gang.lease.id).state == "ending"
    until(lambda: len(executor.stopped), lambda count: count >= 2)
    assert {name for name, _ in executor.stopped} == {each.id for each in job.replicas}
    exit_all(service, executor, job, -15)
    warm = {each.id for each in gang.replicas}
    until(lambda: {name for name, _ in executor.stopped}, lambda names: names >= warm)
    assert not ada.lease(gang.lease.id).is_ended
    for replica in gang.replicas:
        service.do(partial(executor.exit, replica.id, -15))
    ended_ = over(ada, gang)
    assert (ended_.lease.state, ended_.reason) == ("released", "given back by ada")
    assert (ada.job(job.id).state, ada.job(job.id).reason) == ("stopped", "given back by ada")
    with pytest.raises(Ended, match="is over: given back by ada"):
        ada.submit(JobRequest(argv=TRAIN, gang=gang.lease.id))


def test_a_gang_is_renewed_like_any_lease(ada: Client) -> None:
    gang = held(ada, duration="10m")
    renewed = ada.renew(gang.lease.id, "1h")
    assert renewed.expires_at is not None
    assert gang.lease.expires_at is not None
    assert renewed.expires_at - gang.lease.expires_at > timedelta(minutes=45)


def test_a_gang_ends_when_its_time_is_over_and_stops_its_run(service: Service, ada: Client) -> None:
    gang = held(ada)
    job = started(ada, gang)
    service.skip(timedelta(hours=1, seconds=1))
    assert over(ada, gang).lease.state == "expired"
    assert ended(ada, job).reason == "its lease ran out and was not renewed"


def test_the_end_of_a_session_ends_its_gang(service: Service, ada: Client, hub: Client) -> None:
    lease = session(service, hub)
    gang = held(ada, session=lease.id)
    assert gang.lease.parent == lease.id
    assert [each.lease.id for each in ada.gangs(session=lease.id)] == [gang.lease.id]
    job = started(ada, gang)
    ada.release(lease.id, "I go home")
    ended_ = over(ada, gang)
    assert (ended_.lease.state, ended_.reason) == ("released", "its session ended: I go home")
    assert ada.job(job.id).state == "stopped"
    assert ada.gangs(session=lease.id) == ()
    assert [each.lease.id for each in ada.gangs(lease.id, "ended")] == [gang.lease.id]


def test_the_hub_asks_for_a_gang_in_the_name_of_the_sessions_user(
    service: Service, ada: Client, hub: Client
) -> None:
    lease = session(service, hub)
    gang = held(hub, session=lease.id)
    assert gang.lease.owner == "ada"
    assert [each.lease.id for each in ada.gangs()] == [gang.lease.id]
    with pytest.raises(NotFound):
        hub.submit(JobRequest(argv=TRAIN, gang=gang.lease.id))


def test_one_gang_of_a_session(service: Service, ada: Client, hub: Client) -> None:
    lease = session(service, hub)
    gang = held(ada, session=lease.id)
    with pytest.raises(Conflict, match=f"session 'default' has gang {gang.lease.id}"):
        ada.request_gang(GangRequest(session=lease.id))


def test_the_session_and_the_gang_of_another_user_are_not_found(
    service: Service, ada: Client, hub: Client
) -> None:
    bob = service.client("bob-token")
    lease = session(service, hub)
    gang = held(ada)
    with pytest.raises(NotFound, match="lease"):
        bob.request_gang(GangRequest(session=lease.id))
    with pytest.raises(NotFound, match="gang"):
        bob.gang(gang.lease.id)
    with pytest.raises(NotFound, match="gang"):
        bob.submit(JobRequest(argv=TRAIN, gang=gang.lease.id))
    with pytest.raises(Forbidden, match="bob may not list the gangs of ada"):
        bob.gangs(owner="ada")
    assert bob.gangs() == ()
    assert [each.lease.id for each in hub.gangs(owner="ada")] == [gang.lease.id]


def test_what_can_never_be_held_is_refused_at_once(ada: Client) -> None:
    with pytest.raises(Impossible, match="9 GPUs"):
        ada.request_gang(GangRequest(groups=(GroupRequest(gpus=9),)))
    with pytest.raises(InvalidRequest, match="PyTorch has no parameter-server mode"):
        ada.request_gang(GangRequest("pytorch", groups=(GroupRequest("ps"),)))
    with pytest.raises(InvalidRequest, match="duration must be at most"):
        ada.request_gang(GangRequest(duration="2d"))


def test_a_gang_that_waited_long_enough_is_given_up(
    service: Service, ada: Client, hub: Client
) -> None:
    held(ada, name="first", groups=(GroupRequest(gpus=4),))
    gang = ada.request_gang(GangRequest(groups=(GroupRequest(gpus=1),), wait="1m"))
    service.skip(timedelta(minutes=2))
    given_up = over(ada, gang)
    assert given_up.lease.state == "cancelled"
    assert given_up.reason.startswith("nothing was free within 2m")


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        ({"groups": (GroupRequest(count=3),)}, "holds 2 workers"),
        ({"environment": "other"}, "holds environment 'default', 'other' was asked for"),
        ({"framework": "torch"}, "there is no framework 'torch'"),
        ({"duration": "1h"}, "has no duration of its own, got '1h'"),
    ],
)
def test_a_run_uses_its_gang_as_it_is(ada: Client, wishes: dict[str, Any], sentence: str) -> None:
    gang = held(ada)
    with pytest.raises(InvalidRequest) as caught:
        ada.submit(JobRequest(argv=TRAIN, gang=gang.lease.id, **wishes))
    assert sentence in caught.value.message


def test_a_run_may_say_what_its_gang_holds(ada: Client) -> None:
    gang = held(ada)
    started(ada, gang, groups=TWO, environment="default", framework="pytorch")


def test_the_plan_of_a_run_is_its_gang(ada: Client) -> None:
    gang = held(ada)
    plan = ada.plan(JobRequest(argv=TRAIN, gang=gang.lease.id))
    assert plan.slots == gang.lease.slots
    assert (plan.would_wait, plan.placement) == (False, gang.lease.placement)
    started(ada, gang)
    with pytest.raises(Conflict, match=r"train\.py"):
        ada.plan(JobRequest(argv=TRAIN, gang=gang.lease.id))


def test_lists_of_jobs_have_runs_and_no_holders(ada: Client) -> None:
    gang = held(ada)
    job = started(ada, gang)
    other = ada.submit(JobRequest(argv=("x",)))
    assert {each.id for each in ada.jobs()} == {job.id, other.id}
    assert [each.id for each in ada.jobs(gang=gang.lease.id)] == [job.id]
    assert ada.job(gang.job_id).gang is None


def test_events_tell_of_runs_and_gangs_and_not_of_holders(service: Service, ada: Client) -> None:
    seen: list[str] = []
    events = ada.events()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(next, events)
        time.sleep(0.2)  # The stream has no way to say that it is open.
        gang = held(service.client("ada-token"))
        job = started(service.client("ada-token"), gang)
        seen.append(getattr(first.result(10), "id", ""))
        while job.id not in seen:
            seen.append(getattr(threads.submit(next, events).result(10), "id", ""))
    assert gang.lease.id in seen
    assert gang.job_id not in seen


def test_a_failing_replica_waits_in_its_debugger_and_takes_input(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    gang = held(ada)
    job = started(ada, gang, pdb=True)
    name = job.replicas[0].id
    service.do(partial(executor.say, name, "waits in its debugger (post-mortem)"))
    told = ada.job(job.id, after=job.version, timeout=10)
    assert told.replicas[0].reason == "waits in its debugger (post-mortem)"
    ada.write_input(job.id, "worker-0", "p x\n")
    assert executor.input(name) == b"p x\n"
    with pytest.raises(NotFound, match="has no replica 'worker-9'"):
        ada.write_input(job.id, "worker-9", "p x\n")
    service.do(partial(executor.exit, name, 1))
    failed = ended(ada, job)
    assert failed.state == "failed"
    assert "worker-0 on" in failed.reason
    with pytest.raises(Ended):
        ada.write_input(job.id, "worker-0", "p x\n")


def test_only_runs_with_a_debugger_take_input(service: Service, ada: Client) -> None:
    job = started(ada, held(ada))
    with pytest.raises(Conflict, match="takes no input; run it with --pdb"):
        ada.write_input(job.id, "worker-0", "p x\n")
    with pytest.raises(NotFound):
        service.client("bob-token").write_input(job.id, "worker-0", "p x\n")
    with pytest.raises(InvalidRequest, match="--pdb needs a debug gang"):
        ada.submit(JobRequest(argv=TRAIN, pdb=True))


def test_a_stopped_run_leaves_its_gang_ready(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    gang = held(ada)
    job = started(ada, gang)
    ada.stop(job.id)
    assert ended(ada, job).state == "stopped"
    assert ada.gang(gang.lease.id).state == "ready"
    assert started(ada, gang).replicas[0].attempt == 1


def test_a_service_that_starts_again_finds_gang_and_run(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    gang = held(ada)
    job = started(ada, gang)
    service.stop()
    exit_all_at_once = [partial(executor.exit, each.id, 0) for each in job.replicas]
    service.start()
    assert ada.gang(gang.lease.id).state == "busy"
    for action in exit_all_at_once:
        service.do(action)
    assert ended(ada, job).state == "succeeded"
    assert until(lambda: ada.gang(gang.lease.id), lambda seen: seen.state == "ready").runs == 1
    assert len(executor.started) == 4


def test_a_gang_on_a_host_that_is_lost_ends_and_is_not_asked_for_again(
    make_service: Callable[[Executor], Service],
) -> None:
    executor = FakeExecutor(hosts())
    service = make_service(executor)
    ada = service.client("ada-token")
    gang = held(ada, groups=(GroupRequest(gpus=1),))
    job = started(ada, gang)
    assert service.control is not None
    control = service.control
    executor._hosts = hosts()[1:]
    service.do(lambda: asyncio.ensure_future(control.reconciler._refresh()))
    lost = over(ada, gang)
    assert (lost.lease.state, lost.reason) == (
        "lost",
        "host gpu-1 is not in the inventory any more",
    )
    assert (ended(ada, job).state, ended(ada, job).reason) == ("failed", lost.reason)
    assert ada.leases(state="live") == ()


def test_a_run_starts_and_ends_while_the_scheduler_thinks(
    service: Service, executor: FakeExecutor, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gang = held(ada)
    with thinking(service, ada, monkeypatch):
        job = started(ada, gang)
        exit_all(service, executor, job)
        assert ended(ada, job).state == "succeeded"


def test_a_run_that_waits_for_its_gang_starts_while_the_scheduler_thinks(
    service: Service, executor: FakeExecutor, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.auto_warm = False
    gang = ada.request_gang(GangRequest())
    job = ada.submit(JobRequest(argv=TRAIN, gang=gang.lease.id))
    warming = until(lambda: ada.gang(gang.lease.id), lambda seen: bool(seen.replicas))
    until(lambda: ada.gang(gang.lease.id).replicas[0].state, lambda state: state == "starting")
    with thinking(service, ada, monkeypatch):
        service.do(partial(executor.run, warming.replicas[0].id))
        until(lambda: ada.job(job.id), lambda seen: seen.state == "running")
        ada.stop(job.id)
        assert ended(ada, job).state == "stopped"
