"""Members of a gang reach each other at any port, and nobody else does: each has a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nimbus_hub.client import Client, Gang, GangRequest, GroupRequest, Job, JobRequest, scan
from nimbus_hub.errors import Unavailable
from nimbus_hub.executors.docker.engine import Engines
from nimbus_hub.executors.docker.networks import Networks, whole_network
from nimbus_hub.model.replica import ReplicaSpec, ReplicaState, ReplicaStatus
from nimbus_hub.scheduler.addresses import PartPool
from tests.docker.cluster import ClusterHost, wait_for
from tests.docker.driver import DockerDriver
from tests.docker.swarm_service import SCRIPTS, SwarmService

Until = Callable[..., Awaitable[ReplicaStatus]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

HELLO = SCRIPTS / "hello.py"
PORT = "41234"


class Members:
    """Replicas of one lease, with the addresses of the part that a scheduler gives it."""

    def __init__(self, docker: DockerDriver, name: str, pool: PartPool) -> None:
        self.docker = docker
        self.lease = f"{docker.lease}-{name}"
        found = pool.pick(self.lease)
        assert found is not None
        self.addresses = dict(zip((f"{name}0", f"{name}1"), found, strict=False))
        self.asked = docker.directory / f"asked-{name}"

    def spec(self, replica_id: str, address: str) -> ReplicaSpec:
        env = {"PORT": PORT, "ASKED": str(self.asked)}
        words = ("python", "-c", HELLO.read_text())
        return self.docker.command(
            replica_id, *words, address=address, lease_id=self.lease, owner=self.lease, env=env
        )

    async def start(self) -> None:
        for replica_id, address in self.addresses.items():
            await self.docker.executor.start(self.spec(replica_id, address))
        for replica_id in self.addresses:
            await self.docker.written_to(replica_id, len(b"up\n"))

    def answers(self) -> dict[str, dict[str, str]]:
        """Return what each member was told by whom."""
        told = {
            each: self.docker.output(each).decode().split("\n")[1:-1] for each in self.addresses
        }
        return {each: dict(line.split() for line in lines) for each, lines in told.items()}


def answers(output: bytes) -> dict[str, str]:
    """Return what one was told by whom, out of its lines after the first."""
    return dict(line.split() for line in output.decode().split("\n")[1:-1])


def said_hello(told: dict[str, str]) -> set[str]:
    return {address for address, said in told.items() if said == "hello"}


async def test_gangs_of_one_engine_do_not_reach_each_other(
    docker: DockerDriver, until: Until, ended: Until, eventually: Eventually
) -> None:
    pool = PartPool(whole_network(docker.client))
    ada, bob, late = (Members(docker, name, pool) for name in "abc")
    for gang in (ada, bob):
        await gang.start()
    everybody = {*ada.addresses.values(), *bob.addresses.values()}
    for gang in (ada, bob):
        gang.asked.write_text("\n".join(everybody))
    for gang in (ada, bob):
        await eventually(lambda gang=gang: all(len(e) == 4 for e in gang.answers().values()))
        for told in gang.answers().values():
            assert said_hello(told) == {*gang.addresses.values()}, told
    # Who is given the part of a lease that is over waits until its last container has gone.
    late.addresses = {"c0": ada.addresses["a1"]}
    await docker.executor.start(late.spec("c0", ada.addresses["a1"]))
    with pytest.raises(Unavailable, match=f"cannot be made yet: {ada.lease} has not left it"):
        await until(docker.executor, "c0", ReplicaState.RUNNING)
    for gang in (ada, bob):
        gang.asked.write_text("end")
    for replica_id in (*ada.addresses, *bob.addresses):
        assert (await ended(docker.executor, replica_id)).exit_code == 0
    late.asked.write_text(f"{ada.addresses['a1']} end")
    await docker.executor.start(late.spec("c0", ada.addresses["a1"]))
    assert (await ended(docker.executor, "c0")).exit_code == 0
    assert said_hello(late.answers()["c0"]) == {ada.addresses["a1"]}
    # Left by a service that was killed before it removed them.
    assert docker.networks(late.lease)
    await (await docker.restarted()).hosts()
    for gang in (ada, bob, late):
        await eventually(lambda gang=gang: not docker.networks(gang.lease))


async def test_a_network_is_made_once_whoever_makes_it_and_nobody_elses_is_removed(
    docker: DockerDriver,
) -> None:
    gang = Members(docker, "a", PartPool(whole_network(docker.client)))
    engines = Engines(lambda: [docker.engine])
    client, services = engines.of("local"), [Networks(engines) for _ in range(6)]
    at = await services[0].find(client, gang.spec("a0", gang.addresses["a0"]))
    labels = {"nimbus.network": "slots", "nimbus.job": "j-1"}
    others = client.use(lambda sdk: sdk.create_network(f"{gang.lease}-other", labels=labels))
    try:
        await services[0].ensure(client, at, f"{gang.lease}-gone")
        await asyncio.gather(*(each.ensure(client, at, gang.lease) for each in services))
        assert docker.networks(gang.lease) == [at.network]
        assert docker.networks(f"{gang.lease}-gone") == []
        await services[0].sweep(client)
        assert docker.networks(gang.lease) == []
        names = [each["Name"] for each in client.use(lambda sdk: sdk.networks())]
        assert f"{gang.lease}-other" in names
    finally:
        client.use(lambda sdk: sdk.remove_network(others["Id"]))
        engines.close()


@contextmanager
def as_user(swarm: SwarmService, token: str) -> Iterator[None]:
    """Talk to the service as somebody else."""
    own = swarm.client
    try:
        with Client(own.url, token) as swarm.client:
            yield
    finally:
        swarm.client = own


def submitted(swarm: SwarmService, cpus: float, asked: Path) -> Job:
    """Submit three workers, one for each host, and wait until they are there."""
    words = ["--framework", "script", "--workers", "3", "--topology", "spread:host"]
    words += ["--cpus", str(cpus), "--env", f"PORT={PORT}", "--env", f"ASKED={asked}", HELLO.name]
    job = swarm.submit(words, HELLO.parent)
    wait_for(lambda: swarm.text(job).count("up\n") == 3, 90, "all three are there")
    return job


def all_answers(swarm: SwarmService, job: Job) -> list[dict[str, str]]:
    """Return what each replica of a job was told by whom."""
    return [answers(output) for output in swarm.output(job).values()]


def on_gateways(host: ClusterHost) -> set[str]:
    """Return the addresses by which containers of overlays reach the world."""
    there = host.docker("network", "inspect", "docker_gwbridge", "-f", "{{json .Containers}}")
    return {each["IPv4Address"].partition("/")[0] for each in json.loads(there).values()}


def test_gangs_of_a_swarm_do_not_reach_each_other(swarm: SwarmService) -> None:
    swarm.until_stands("ready", 90)
    tokens = ("ada-token", "bob-token")
    jobs, asked, own = {}, {}, {}
    for token, cpus in zip(tokens, (0.9, 0.5), strict=True):
        asked[token] = swarm.shared / f"asked-{token}"
        with as_user(swarm, token):
            jobs[token] = submitted(swarm, cpus, asked[token])
            lease = swarm.client.lease(jobs[token].lease_id)
            own[token] = {slot.address for slot in lease.slots}
            assert {slot.host for slot in lease.slots} == {"h1", "h2", "h3"}
    gateways = set[str]().union(*map(on_gateways, swarm.hosts))
    everybody = gateways.union(*own.values())
    for file in asked.values():
        file.write_text("\n".join(everybody))
    for token, job in jobs.items():
        with as_user(swarm, token):
            wait_for(
                lambda job=job: all(len(e) == len(everybody) for e in all_answers(swarm, job)),
                60,
                "all were asked",
            )
            for told in all_answers(swarm, job):
                hello = said_hello(told)
                assert hello - gateways == own[token], told
                assert len(hello & gateways) <= 1, "it reaches more than itself"
    # What ends while no service is there is seen to by the next one.
    swarm.kill()
    for file in asked.values():
        file.write_text("end")
    swarm.start()
    for token, job in jobs.items():
        with as_user(swarm, token):
            assert swarm.wait(job, 60).state == "succeeded"
            swarm.until_clean(job)
    words = ("network", "ls", "--quiet", "--filter", "label=nimbus.gang")
    for host in swarm.hosts:
        wait_for(lambda host=host: not host.docker(*words), 30, f"{host.name} has no networks")


def test_each_run_on_a_gang_that_is_held_has_the_addresses_of_its_slots(
    swarm: SwarmService,
) -> None:
    """What is held waits for runs without their addresses, and the gang's network with it."""
    swarm.until_stands("ready", 90)
    asked = swarm.shared / "asked-held"
    asked.write_text("end")
    groups = (GroupRequest(count=2, cpus=0.5, memory="256M", topology="spread:host"),)
    gang = swarm.client.request_gang(GangRequest(groups=groups))
    try:
        own = {slot.address for slot in ready(swarm, gang).lease.slots}
        digest = swarm.client.upload(scan(HELLO.parent))
        for _ in range(2):
            env = {"PORT": PORT, "ASKED": str(asked)}
            run = JobRequest(("python", HELLO.name), env=env, snapshot=digest, gang=gang.lease.id)
            job = swarm.wait(swarm.client.submit(run), 60)
            assert job.state == "succeeded", f"{job.reason}\n{swarm.text(job)}"
            asked.write_text("\n".join([*own, "end"]))
        assert all(told.keys() == own for told in all_answers(swarm, job))
    finally:
        swarm.client.release(gang.lease.id)
    words = ("network", "ls", "--quiet", "--filter", f"label=nimbus.gang={gang.lease.id}")
    for host in swarm.hosts:
        wait_for(lambda host=host: not host.docker(*words), 30, f"{host.name} has no network")


def ready(swarm: SwarmService, gang: Gang) -> Gang:
    wait_for(lambda: swarm.client.gang(gang.lease.id).state == "ready", 60, "the gang is warm")
    return swarm.client.gang(gang.lease.id)
