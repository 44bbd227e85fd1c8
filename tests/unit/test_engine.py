"""Engines and Swarms: what may be said of them."""

from __future__ import annotations

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Host


@pytest.mark.parametrize(
    ("endpoint", "tls"),
    [
        ("unix:///var/run/docker.sock", ""),
        ("tcp://10.0.0.5:2376", "/etc/nimbus/tls"),
        ("tcp://gpu-1.example.org:2376", "/etc/nimbus/tls"),
        ("tcp://[fd00::5]:2376", "/etc/nimbus/tls"),
        ("tcp://127.0.0.1:2375", ""),
        ("ssh://root@gpu-1", ""),
        ("ssh://gpu-1:2222", ""),
    ],
)
def test_endpoints_are_sockets_tcp_with_certificates_and_ssh(endpoint: str, tls: str) -> None:
    assert Engine("gpu-1", endpoint, tls).endpoint == endpoint


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"endpoint": "10.0.0.5:2376"}, "must be like unix://"),
        ({"endpoint": "http://10.0.0.5"}, "must be like unix://"),
        ({"endpoint": "unix://var/run"}, "must be like unix://"),
        ({"endpoint": "tcp://10.0.0.5:2375"}, "is root there"),
        ({"endpoint": "tcp://gpu-1:2375"}, "is root there"),
        ({"endpoint": "ssh://gpu-1", "tls": "/tls"}, "only tcp endpoints use it"),
        ({"network": "a b"}, "bridge, host or a name for overlays"),
        ({"network": "a.b"}, "bridge, host or a name for overlays"),
        ({"network": "host", "subnet": "10.1.0.0/16"}, "must be left out"),
        ({"network": "lab"}, "subnet must be given with the overlay lab"),
        ({"subnet": "10.1.0.0/33"}, "an IPv4 network like"),
        ({"subnet": "10.1.0.1/16"}, "an IPv4 network like"),
        ({"subnet": "10.1.0.0/29"}, "at least 16 addresses"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(values: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        Engine(**{"host": "gpu-1", "endpoint": "unix:///var/run/docker.sock", **values})


def test_the_endpoint_of_a_node_is_made_from_its_address_or_its_name() -> None:
    swarm = Swarm("north", "unix:///var/run/docker.sock", engine="ssh://docker@{hostname}:22")
    assert swarm.endpoint("10.0.0.5", "gpu-1") == "ssh://docker@gpu-1:22"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"manager": "tcp://10.0.0.5:2377"}, "is root there"),
        ({"engine": "tcp://{address}:2375"}, "is root there"),
        ({"engine": "{address}"}, "must be like unix://"),
        ({"network": "bridge"}, "a name for its overlays"),
        ({"subnet": "ten"}, "an IPv4 network like"),
    ],
)
def test_a_swarm_that_cannot_be_is_refused(values: dict[str, str], why: str) -> None:
    given = {"manager": "unix:///var/run/docker.sock", "engine": "ssh://{address}", **values}
    with pytest.raises(InvalidRequest, match=why):
        Swarm("north", **given)


def test_certificates_are_for_the_nodes_where_the_manager_is_reached_without() -> None:
    swarm = Swarm("north", "unix:///var/run/docker.sock", tls="/etc/nimbus/tls")
    assert swarm.endpoint("10.0.0.5", "gpu-1") == "tcp://10.0.0.5:2376"


def test_a_host_refuses_a_network_that_is_none() -> None:
    with pytest.raises(InvalidRequest, match=r"an IPv4 network like 10\.64\.0\.0/16, got 'ten'"):
        Host("gpu-1", 1000, 2**30, network="ten")
