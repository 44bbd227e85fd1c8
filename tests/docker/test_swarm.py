"""The nodes of a real Swarm as hosts: racks, states, and a network between them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from nimbus_hub.errors import Unavailable
from nimbus_hub.executors.docker.networks import Networks
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Gpu, Host, HostState
from tests.docker.cluster import Cluster, ClusterHost, cluster, wait_for
from tests.docker.finding import finding

KNOWN_SECONDS = 10
BACK_SECONDS = 30


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with cluster(3) as made:
        made.join()
        manager = made.hosts[0]
        for name, labels in {"h1": ["rack=r1"], "h2": ["rack=r1"], "h3": ["rack=r2"]}.items():
            more = [*labels, "gpus=2", "gpu=T4"] if name == "h3" else labels
            words = [word for label in more for word in ("--label-add", label)]
            manager.docker("node", "update", *words, name)
        yield made


def swarm_of(made: Cluster) -> Swarm:
    return Swarm("north", made.hosts[0].endpoint, str(made.tls))


def answers(host: ClusterHost) -> bool:
    """Tell whether a host is a manager of a Swarm that has a leader."""
    asked = subprocess.run(host.command("node", "ls"), capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


def states(**wanted: HostState) -> Callable[[dict[str, Host]], bool]:
    return lambda hosts: all(hosts[name].state is state for name, state in wanted.items())


async def test_nodes_are_hosts_with_their_racks_and_devices_on_one_network(three: Cluster) -> None:
    async with finding(swarms=[swarm_of(three)]) as found:
        hosts = await found.hosts()
    told = {
        name: (host.address, host.datacenter, host.rack, host.state, host.network, host.gpus)
        for name, host in hosts.items()
    }
    network = "10.64.0.0/16"
    first, second, third = (host.address for host in three.hosts)
    assert told == {
        "h1": (first, "north", "r1", HostState.READY, network, ()),
        "h2": (second, "north", "r1", HostState.READY, network, ()),
        "h3": (third, "north", "r2", HostState.READY, network, (Gpu(0, "T4"), Gpu(1, "T4"))),
    }


@pytest.mark.parametrize(("availability", "reason"), [("drain", "drained"), ("pause", "paused")])
async def test_a_node_that_takes_nothing_new_is_draining_within_ten_seconds(
    three: Cluster, availability: str, reason: str
) -> None:
    manager = three.hosts[0]
    async with finding(swarms=[swarm_of(three)]) as found:
        await found.until(states(h2=HostState.READY), BACK_SECONDS)
        manager.docker("node", "update", "--availability", availability, "h2")
        await found.until(states(h2=HostState.DRAINING), KNOWN_SECONDS)
        host = (await found.hosts())["h2"]
        assert host.state_reason == f"is {reason} in the Swarm"
        manager.docker("node", "update", "--availability", "active", "h2")
        await found.until(states(h2=HostState.READY), KNOWN_SECONDS)


async def test_a_node_that_ends_is_down_and_ready_when_it_is_back(three: Cluster) -> None:
    async with finding(swarms=[swarm_of(three)]) as found:
        await found.until(states(h3=HostState.READY), BACK_SECONDS)
        three.hosts[2].kill()
        await found.until(states(h3=HostState.DOWN), KNOWN_SECONDS)
        three.hosts[2].start()
        await found.until(states(h3=HostState.READY), BACK_SECONDS)


async def test_hosts_are_unknown_and_not_gone_until_a_manager_has_told_them(
    three: Cluster,
) -> None:
    nobody = Swarm("north", f"tcp://{three.hosts[0].address}:2399", str(three.tls))
    async with finding(swarms=[nobody]) as found:
        with pytest.raises(Unavailable, match="the nodes of the Swarm of north are unknown"):
            await found.hosts()


async def test_hosts_stay_as_they_are_while_the_manager_is_away(three: Cluster) -> None:
    ready, down, draining = HostState.READY, HostState.DOWN, HostState.DRAINING
    async with finding(swarms=[swarm_of(three)]) as found:
        await found.until(states(h1=ready, h2=ready, h3=ready), BACK_SECONDS)
        three.hosts[0].stop()
        await found.until(states(h1=down, h2=ready, h3=ready), KNOWN_SECONDS)
        three.hosts[0].start()
        await found.until(states(h1=ready, h2=ready, h3=ready), BACK_SECONDS)
        three.hosts[0].docker("node", "update", "--availability", "drain", "h2")
        await found.until(states(h2=draining), BACK_SECONDS)
        three.hosts[0].docker("node", "update", "--availability", "active", "h2")
        await found.until(states(h2=ready), KNOWN_SECONDS)


async def test_addresses_that_another_overlay_has_are_told_with_what_to_do(three: Cluster) -> None:
    words = ("--driver", "overlay", "--subnet", "10.64.7.0/24", "lab")
    three.hosts[0].docker("network", "create", *words)
    async with finding(swarms=[swarm_of(three)]) as found:
        with pytest.raises(Unavailable, match="has addresses of its network lab: choose another"):
            await found.hosts()
    three.hosts[0].docker("network", "rm", "lab")


async def test_networks_of_a_worker_are_made_on_a_manager_among_the_engines(three: Cluster) -> None:
    first, _, third = (
        Engine(host.name, host.endpoint, str(three.tls), network="lab", subnet="10.65.0.0/16")
        for host in three.hosts
    )
    async with finding([third]) as found:
        assert (await found.hosts())["h3"].network == "10.65.0.0/16"
        networks, client = Networks(found.clients), found.clients.of("h3")
        (fault,) = await networks.check(client)
        assert "no manager of the Swarm of default answers: none of its hosts is" in fault.text
        found.engines.append(first)
        (check,) = await networks.check(client)
        assert (check.is_ok, check.text) == (True, "networks of gangs are made on h1")


async def test_another_manager_is_asked_when_the_one_configured_is_lost(three: Cluster) -> None:
    first, second, _ = three.hosts
    ready = states(h1=HostState.READY, h2=HostState.READY, h3=HostState.READY)
    first.docker("node", "promote", "h2", "h3")
    for host in three.hosts[1:]:
        wait_for(partial(answers, host), 30, f"{host.name} is a manager")
    async with finding(swarms=[swarm_of(three)]) as found:
        await found.until(ready, BACK_SECONDS)
        first.stop()
        # The others answer nothing while they elect a leader, and are not taken for gone.
        others = states(h1=HostState.DOWN, h2=HostState.READY, h3=HostState.READY)
        await found.until(others, KNOWN_SECONDS)
        wait_for(partial(answers, second), 30, "the others have elected a leader")
        second.docker("node", "update", "--availability", "drain", "h3")
        await found.until(states(h3=HostState.DRAINING), KNOWN_SECONDS)
        first.start()
        second.docker("node", "update", "--availability", "active", "h3")
        await found.until(ready, BACK_SECONDS)
