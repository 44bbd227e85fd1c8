"""Devices out of service: given to nobody, and told to who waits for them."""

from __future__ import annotations

from dataclasses import replace

from nimbus_hub.model.host import Host
from nimbus_hub.model.slot import Topology
from nimbus_hub.scheduler.explain import refuse
from tests.unit.scheduler_samples import HOUR, NOW, decide, devices, group, held, host, request


def faulty(name: str, gpus: int, *broken: int, models: tuple[str, ...] = ()) -> Host:
    made = host(name, gpus=gpus, models=models)
    found = [replace(gpu, fault="it is held") if gpu.index in broken else gpu for gpu in made.gpus]
    return replace(made, gpus=tuple(found))


def test_a_device_out_of_service_is_given_to_nobody() -> None:
    hosts = [faulty("a", 3, 0)]
    one, share = request("l-1", group(gpus=2)), request("l-2", group(gpus=0.5))
    decided = decide(hosts, one, share)
    assert devices(decided) == {"l-1": [("a", (1, 2))]}
    (wait,) = decided.waits
    assert "GPU 0 of host a is out of service: it is held" in wait.reason


def test_it_is_as_if_it_were_not_there_for_who_is_placed_and_promised() -> None:
    """What waits for a device out of service is promised nothing, and delays nobody."""
    at = faulty("a", 2, 1)
    decided = decide(
        [at],
        request("l-1", group(gpus=2), ago=2),
        request("l-2", group(gpus=1), ago=1),
        holdings=[held("l-0", at, NOW + HOUR, gpus=(0,))],
    )
    by_id = {wait.lease_id: wait for wait in decided.waits}
    assert by_id["l-1"].starts_by is None
    assert by_id["l-2"].starts_by == NOW + HOUR


def test_what_needs_it_is_not_refused_for_ever() -> None:
    refuse([group(gpus=2)], [faulty("a", 2, 0, 1)])


def test_only_devices_that_would_do_are_told_of() -> None:
    hosts = [faulty("a", 2, 0, models=("T4", "A100")), faulty("b", 4, 0, 1, 2, 3)]
    decided = decide(hosts, request("l-1", group(gpus=1, models=("T4",))))
    (wait,) = decided.waits
    assert wait.reason.count("out of service") == 1
    assert "GPU 0 of host a" in wait.reason
    many = decide(hosts, request("l-1", group(count=9, gpus=1, topology=Topology.ANY)))
    assert many.waits[0].reason.endswith("so are 3 more")
