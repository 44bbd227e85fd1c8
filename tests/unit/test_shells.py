"""What of a session's container may wait for anybody, and what makes it somebody's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from nimbus_spawner.shells import arguments, claim_request, mount_targets, shell_of
from nimbus_spawner.warm_containers import Demand, wanted

from nimbus_hub.client.hosts import Gpu, Host
from nimbus_hub.client.resources import Slot
from nimbus_hub.model.session_container import SessionContainer, session_containers

LABELS = {"nimbus.lease": "l-1", "nimbus.owner": "ada"}
COMMAND = ["/usr/bin/python3", "-m", "nimbus_spawner.singleuser", "--ip=0.0.0.0"]


def request(**more: Any) -> dict[str, Any]:
    """What DockerSpawner asks an engine for."""
    host = {
        "Binds": ["nimbus-home-ada:/home/jovyan:rw", "/srv/data:/data:ro"],
        "Mounts": [{"Type": "volume", "Source": "scratch-ada", "Target": "/scratch"}],
        "Memory": 2**30,
        "CpuQuota": 200_000,
        **more.pop("host_config", {}),
    }
    return {
        "image": "lab:1",
        "name": "nimbus-session-ada",
        "command": COMMAND,
        "environment": {"JUPYTERHUB_API_TOKEN": "secret-of-ada"},
        "volumes": ["/home/jovyan", "/data"],
        "ports": {"8888/tcp": None},
        "labels": {**LABELS, "site": "of all"},
        "host_config": host,
        **more,
    }


def test_a_shell_has_nothing_of_a_person() -> None:
    shell = shell_of(request(), LABELS, "hub")
    assert shell == {
        "image": "lab:1",
        "command": ["/usr/bin/python3", "-m", "nimbus_spawner.warm"],
        "ports": {"8888/tcp": None},
        "labels": {"site": "of all", "nimbus.lease": "", "nimbus.owner": "", "nimbus.warm": "hub"},
        "host_config": {"Memory": 2**30, "CpuQuota": 200_000},
    }
    assert "ada" not in json.dumps(shell)


def test_shells_of_two_people_are_one_and_of_two_sizes_are_two() -> None:
    others = {"nimbus.lease": "l-2", "nimbus.owner": "bob"}
    bob = request(
        name="nimbus-session-bob",
        environment={},
        labels={**others, "site": "of all"},
        host_config={"Binds": ["nimbus-home-bob:/home/jovyan:rw"], "Mounts": None},
    )
    ours = shell_of(request(), LABELS, "hub")
    assert shell_of(bob, others, "hub") == ours
    assert shell_of(request(host_config={"Memory": 2**31}), LABELS, "hub") != ours
    assert shell_of(request(image="lab:2"), LABELS, "hub") != ours
    # What a site says of one person alone is no shell for another.
    assert shell_of(request(labels={**LABELS, "site": "of ada"}), LABELS, "hub") != ours


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (COMMAND, ["--ip=0.0.0.0"]),
        (COMMAND[:3], []),
        (["jupyterhub-singleuser", "--ip=0.0.0.0"], None),
        ("start.sh", None),
        ([], None),
        (None, None),
    ],
)
def test_only_our_own_server_can_wait(command: Any, found: list[str] | None) -> None:
    assert arguments(request(command=command)) == found


def test_a_claim_takes_hold_of_the_mounts_and_says_whose_they_are() -> None:
    assert mount_targets(request()) == ["/data", "/home/jovyan", "/scratch"]
    claim = claim_request(request(), LABELS, "abc")
    assert claim["labels"] == {**LABELS, "nimbus.claim": "abc"}
    assert claim["command"][-1] == '["/data", "/home/jovyan", "/scratch"]'
    assert claim["host_config"] == {
        "Binds": ["nimbus-home-ada:/home/jovyan:rw", "/srv/data:/data:ro"],
        "Mounts": [{"Type": "volume", "Source": "scratch-ada", "Target": "/scratch"}],
        "PidMode": "container:abc",
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "CapAdd": ["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"],
        "SecurityOpt": ["no-new-privileges:true", "apparmor=unconfined", "label=disable"],
    }
    assert "secret-of-ada" not in json.dumps(claim)


def test_an_engine_tells_whose_containers_are() -> None:
    def listed(name: str, labels: dict[str, str], state: str = "running") -> dict[str, Any]:
        return {"Id": name, "Labels": labels, "State": state}

    warm = {"nimbus.lease": "", "nimbus.owner": "", "nimbus.warm": "hub"}
    found = session_containers(
        [
            listed("cold", LABELS),
            listed("kept", {**LABELS, "nimbus.lease": "l-0"}, "exited"),
            listed("claimed", warm),
            listed("waiting", warm),
            listed("claim-1", {"nimbus.lease": "l-2", "nimbus.claim": "claimed"}, "exited"),
            listed("claim-2", {"nimbus.lease": "l-3", "nimbus.claim": "gone"}, "exited"),
        ]
    )
    assert sorted(found, key=lambda each: each.id) == [
        SessionContainer("claimed", "l-2", "hub"),
        SessionContainer("cold", "l-1"),
        SessionContainer("gone", "l-3"),
        SessionContainer("kept", "l-0", "", True),
        SessionContainer("waiting", "", "hub"),
    ]


def slot(cpus: int = 1000, gpus: tuple[int, ...] = (), share: int = 1000) -> Slot:
    return Slot("s", "session", "h1", "", cpus, 2**30, gpus, share, ())


def host(cpus: int = 4000, memory: int = 8 * 2**30, state: str = "ready", **gpus: int) -> Host:
    devices = tuple(
        Gpu(int(name[1:]), "a100", 2**35, free, None, (), "") for name, free in gpus.items()
    )
    return Host("h1", "dc", "r1", "", state, "", {}, 8000, cpus, 2**34, memory, devices)


def test_as_many_are_wanted_as_were_started_at_most_the_limit_and_the_latest_first() -> None:
    demands = [Demand("a", slot(), at) for at in (1, 2, 3)] + [Demand("b", slot(), 4)]
    assert wanted(demands, host(), 2) == {"b": 1, "a": 2}
    assert wanted(demands, host(), 5) == {"b": 1, "a": 3}
    assert wanted(demands, host(cpus=2000), 2) == {"b": 1, "a": 1}
    assert wanted(demands, host(memory=2**30), 2) == {"b": 1}
    assert wanted(demands, host(), 0) == {}


def test_nothing_is_wanted_where_nothing_is_idle_or_nobody_may_start() -> None:
    demands = [Demand("a", slot(), 1)]
    assert wanted(demands, host(cpus=999), 1) == {}
    assert wanted(demands, host(memory=2**30 - 1), 1) == {}
    for state in ("down", "draining"):
        assert wanted(demands, host(state=state), 1) == {}
    assert wanted([], host(), 1) == {}


def test_a_device_is_only_waited_with_while_nobody_has_it() -> None:
    demands = [Demand("a", slot(gpus=(0, 1)), 1), Demand("b", slot(gpus=(1,)), 2)]
    assert wanted(demands, host(g0=1000, g1=1000), 2) == {"b": 1}
    assert wanted(demands[:1], host(g0=1000, g1=1000), 2) == {"a": 1}
    assert wanted(demands, host(g0=1000, g1=500), 2) == {}
    away = replace(host(g0=1000).gpus[0], fault="its memory is held by nobody's process")
    assert wanted(demands[1:], replace(host(), gpus=(replace(away, index=1),)), 2) == {}
    shared = [Demand("half", slot(gpus=(0,), share=500), at) for at in (1, 2, 3)]
    assert wanted(shared, host(g0=1000), 9) == {"half": 2}
