"""Faults of a Swarm with jobs on it: nothing is doubled, lost or left, and every end has a reason.

Each test begins with all hosts ready. A replica that is started a second time fails by itself:
what it writes for the test it writes into a new file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import pytest

from nimbus_hub.client import Job
from tests.docker.cluster import ClusterHost, busybox_image, wait_for
from tests.docker.registry import PASSWORD, USER, Registry, registry
from tests.docker.swarm_service import SwarmService

KNOWN_SECONDS = 10
BACK_SECONDS = 90
"""An engine that was killed is refused by its Swarm for half a minute, a lone manager's for one."""

TWO = "--ps 1 --workers 1 --retries 1"
THREE = "--ps 1 --workers 2 --retries 2"
ONE = "--framework script --cpus 0.5 --retries 1"
FULL = "its disk is full: make room there, as with docker system prune"


@pytest.fixture(autouse=True)
def ready(swarm: SwarmService) -> Iterator[None]:
    """Begin with all hosts ready, and end what a failed test has left."""
    swarm.until_stands("ready", BACK_SECONDS)
    yield
    for job in swarm.client.jobs(state="live"):
        swarm.client.stop(job.id)
        swarm.wait(job, 60)


def endless(swarm: SwarmService, roles: str, name: str, cpus: str = "1.5") -> tuple[Job, Path]:
    """Return a gang that trains, and the file whose presence lets it end."""
    go = swarm.shared / name
    job = swarm.gang(roles, cpus, SLOW="0.1", UNTIL=str(go))
    swarm.until_written(job, 1, "step 3 ")
    return job, go


def succeeds(swarm: SwarmService, job: Job, attempt: int, go: Path) -> None:
    """Let a gang end, in an attempt of which all that was written is known."""
    go.touch()
    ended = swarm.wait(job, 120)
    assert (ended.state, ended.attempt) == ("succeeded", attempt), (
        f"{ended.reason}\n{swarm.text(job)}"
    )
    assert swarm.output(job) == swarm.written(job, attempt)
    swarm.until_clean(job)


def heal(swarm: SwarmService, host: ClusterHost) -> None:
    """Put a host on the network again when its Swarm has noticed, which would tell so later."""
    asked = ("node", "inspect", "--format", "{{.Status.State}}", host.name)
    manager = swarm.host("h1")
    wait_for(lambda: manager.docker(*asked) == "down", 30, f"the Swarm knows {host.name} is down")
    host.heal()


def runs_on(swarm: SwarmService, name: str, line: str = ONE) -> None:
    """Assert that a host is used."""
    with swarm.only(name):
        job = swarm.wait(swarm.submit(f"{line} once.py", swarm.digits), 60)
    assert (job.state, job.attempt) == ("succeeded", 1), job.reason
    assert [replica.host for replica in job.replicas] == [name]
    swarm.until_clean(job)


def test_containers_that_others_kill_or_remove_are_blamed_and_tried_again(
    swarm: SwarmService,
) -> None:
    job, go = endless(swarm, THREE, "others")
    host = swarm.host_of(job, "worker-1")
    host.docker("kill", f"nimbus-{job.id}.1.worker-1")
    swarm.until_written(job, 2, "step 3 ")
    reason = swarm.client.job(job.id).reason
    assert f"worker-1 on {host.name} was ended by signal 9 (its Docker engine sent SIGK" in reason
    host.docker("rm", "--force", f"nimbus-{job.id}.2.worker-1")
    swarm.until_written(job, 3, "step 3 ")
    reason = swarm.client.job(job.id).reason
    assert f"worker-1 on {host.name} was lost: its container was removed" in reason
    succeeds(swarm, job, 3, go)


def test_an_engine_that_is_killed_and_back_ends_its_containers_and_they_are_tried_again(
    swarm: SwarmService,
) -> None:
    """The engine's own rule: a Swarm allows no live restore."""
    job, go = endless(swarm, THREE, "engine")
    host = swarm.host("h2")
    host.kill()
    swarm.until_stands("down", KNOWN_SECONDS, "h2")
    assert "its Docker engine does not answer" in swarm.stands("h2")[1]
    # Till then they go on.
    swarm.until_written(job, 1, f"step {swarm.steps(job, 1) + 5} ")
    host.start()
    host.wait()
    swarm.until_written(job, 2, "step 3 ", seconds=BACK_SECONDS)
    assert "on h2 was ended by signal 15 (its Docker engine sent" in swarm.client.job(job.id).reason
    succeeds(swarm, job, 2, go)


def test_a_host_that_is_cut_off_loses_its_lease_and_is_cleaned_and_used_when_it_is_back(
    swarm: SwarmService,
) -> None:
    swarm.restart(patience="3s")
    with swarm.drained("h1"):
        job, go = endless(swarm, TWO, "cut")
    lease_id, host = swarm.client.job(job.id).lease_id, swarm.host_of(job, "worker-0")
    host.cut()
    swarm.until_stands("down", KNOWN_SECONDS, host.name)
    swarm.until_written(job, 2, "step 3 ")
    lease = swarm.client.lease(lease_id)
    assert (lease.state, f"host {host.name} is down since" in lease.reason) == ("lost", True)
    assert swarm.client.job(job.id).reason.startswith(f"attempt 1 was lost: host {host.name} is d")
    assert host.name not in {each.host for each in swarm.client.job(job.id).replicas}
    # What was left there goes on till it can be reached.
    assert swarm.left_on_hosts(job)[host.name] == [f"nimbus-{job.id}.1.worker-0"]
    heal(swarm, host)
    wait_for(lambda: not swarm.left_on_hosts(job)[host.name], 60, f"{host.name} is clean")
    runs_on(swarm, host.name)
    succeeds(swarm, job, 2, go)
    swarm.restart()


def test_a_gang_whose_host_is_cut_off_for_less_than_the_patience_goes_on(
    swarm: SwarmService,
) -> None:
    """All on one host: to others an overlay takes a minute or two to be whole again."""
    with swarm.only("h2"):
        job, go = endless(swarm, TWO, "short", cpus="0.5")
    host = swarm.host("h2")
    host.cut()
    swarm.until_stands("down", KNOWN_SECONDS, "h2")
    cut_at = swarm.steps(job, 1)
    swarm.until_written(job, 1, f"step {cut_at + 5} ")
    host.heal()
    succeeds(swarm, job, 1, go)


@pytest.fixture
def private(swarm: SwarmService, tmp_path: Path) -> Iterator[Registry]:
    """Give a registry with a large image that no host has, and the service an environment of it."""
    with registry(tmp_path, swarm.outside) as made:
        name, host = f"{made.name}/private/mounted:1", swarm.host("h1")
        path = f"ENV PATH={Path(sys.prefix) / 'bin'}:/usr/bin:/bin"
        noise = {"tmp/noise": Random(1).randbytes(20_000_000)}
        host.docker("import", "--change", path, "-", name, given=busybox_image(noise))
        config = ("--config", str(tmp_path / "docker"))
        host.docker(*config, "login", "--username", USER, "--password", PASSWORD, made.name)
        host.docker(*config, "push", "--quiet", name)
        host.docker("rmi", name)
        swarm.environments["private"] = name
        swarm.containers["registries"] = {made.name: {"username": USER, "password": PASSWORD}}
        swarm.restart(patience="3s")
        yield made
        del swarm.environments["private"], swarm.containers["registries"]
        swarm.restart()


def test_a_host_that_is_cut_off_while_it_pulls_is_left_and_used_when_it_is_back(
    swarm: SwarmService, private: Registry
) -> None:
    host, line = swarm.host("h2"), f"{ONE} --environment private"

    def told() -> str:
        return "".join(replica.reason for replica in swarm.client.job(job.id).replicas)

    with ExitStack() as slow:
        host.slow("20mbit")
        slow.callback(host.slow, "")
        with swarm.only("h2"):
            job = swarm.submit(f"{line} once.py", swarm.digits)
            wait_for(lambda: "/21.1 MB" in told(), 30, "the pull tells how far it is")
            host.cut()
        ended = swarm.wait(job, 60)
        assert (ended.state, ended.attempt) == ("succeeded", 2), ended.reason
        assert ended.replicas[0].host != "h2"
        heal(swarm, host)
    swarm.until_stands("ready", 30)
    runs_on(swarm, "h2", line)
    swarm.until_clean(job)


def test_a_host_whose_disk_is_full_takes_nothing_till_it_has_space_again(
    swarm: SwarmService,
) -> None:
    filler = swarm.host("h3").data / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**12))
    try:
        with swarm.only("h3"):
            job = swarm.submit(f"{ONE} once.py", swarm.digits)
            wait_for(lambda: swarm.client.job(job.id).attempt == 2, 30, "it is tried again")
            lost = swarm.client.leases(state="ended", limit=1)[0]
            assert swarm.stands("h3") == ("draining", FULL)
        assert (lost.state, lost.reason) == ("lost", f"host h3 is draining: {FULL}")
        ended = swarm.wait(job, 60)
        assert (ended.state, ended.attempt) == ("succeeded", 2), ended.reason
        assert ended.replicas[0].host != "h3"
    finally:
        filler.unlink()
    swarm.until_clean(job)
    swarm.until_stands("ready", 30, "h3")
    runs_on(swarm, "h3")


def test_without_its_manager_a_swarm_goes_on_and_what_starts_waits_for_it(
    swarm: SwarmService,
) -> None:
    with swarm.drained("h1"):
        job, go = endless(swarm, TWO, "manager")
        manager = swarm.host("h1")
        manager.kill()
        swarm.until_stands("down", KNOWN_SECONDS, "h1")
        assert "its Docker engine does not answer" in swarm.stands("h1")[1]
        late = swarm.submit(f"{ONE} once.py", swarm.digits)

        def told() -> str:
            return "".join(replica.reason for replica in swarm.client.job(late.id).replicas)

        wait_for(
            lambda: "no manager of the Swarm of north answers" in told(),
            60,
            "why it does not start is told",
        )
    assert [swarm.stands(name)[0] for name in ("h2", "h3")] == ["ready", "ready"]
    swarm.until_written(job, 1, f"step {swarm.steps(job, 1) + 5} ")
    manager.start()
    manager.wait()
    ended = swarm.wait(late, BACK_SECONDS)
    assert (ended.state, ended.attempt) == ("succeeded", 1), ended.reason
    succeeds(swarm, job, 1, go)
    runs_on(swarm, "h1")
