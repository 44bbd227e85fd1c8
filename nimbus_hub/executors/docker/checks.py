"""What works on an engine's host and what is missing, with remedies.

Each check is a pure function of what was found; :func:`check_engine` asks for it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nimbus_hub.errors import NimbusError
from nimbus_hub.executors.docker.engine import QUICK_SECONDS, EngineClient
from nimbus_hub.executors.docker.gpus import has_nvidia, query_gpus
from nimbus_hub.executors.docker.hosts import engine_labels
from nimbus_hub.executors.docker.networks import overlapping, whole_network
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK, Engine
from nimbus_hub.model.network import most_slots, part_starts
from nimbus_hub.model.quantities import format_memory

__all__ = [
    "certificate_check",
    "check_engine",
    "clock_check",
    "disk_check",
    "limits_check",
    "network_check",
    "version_check",
]

_LEAST_VERSION = (1, 40)
_LEAST_DISK_BYTES = 20 * 2**30
_MOST_SKEW = timedelta(seconds=5)
_SOON = timedelta(days=14)
_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPUs", "PidsLimit": "processes"}


def check_engine(
    client: EngineClient, image: str, now: Callable[[], datetime]
) -> tuple[HostCheck, ...]:
    """Look at all there is; ``image`` is for what only a container can see. Blocks."""
    began = now()
    try:
        info = client.info()
    except NimbusError as error:
        remedy = "start Docker there, and see that endpoint and tls of the cluster file are right"
        return (HostCheck("engine", False, error.message, remedy),)
    middle = began + (now() - began) / 2
    return tuple(_all(client, info, image, middle))


def version_check(info: Mapping[str, Any], version: Mapping[str, Any]) -> HostCheck:
    """Tell whether an engine is new enough."""
    api = str(version["ApiVersion"])
    text = f"Docker {info['ServerVersion']}, API {api}"
    is_ok = tuple(map(int, api.split("."))) >= _LEAST_VERSION
    return HostCheck("version", is_ok, text, "" if is_ok else "update Docker to 19.03 or later")


def limits_check(info: Mapping[str, Any]) -> HostCheck:
    """Tell whether an engine keeps containers within their limits, and reaps what they leave."""
    missing = [words for name, words in _LIMITS.items() if not info.get(name)]
    if missing:
        text = f"the kernel does not limit {', '.join(missing)} of containers"
        return HostCheck("limits", False, text, "boot with the control groups of these enabled")
    if not info.get("InitBinary"):
        return HostCheck("limits", False, "docker-init is missing", "install docker-init (tini)")
    return HostCheck("limits", True, "memory, CPUs and processes of containers are limited")


def clock_check(info: Mapping[str, Any], now: datetime) -> HostCheck:
    """Tell how far an engine's clock is from that of the service."""
    there = datetime.fromisoformat(str(info["SystemTime"])[:26].rstrip("Z")).replace(tzinfo=UTC)
    skew = (there - now).total_seconds()
    is_ok = abs(skew) <= _MOST_SKEW.total_seconds()
    side = "ahead of" if skew > 0 else "behind"
    text = f"its clock is {abs(skew):.1f} s {side} the service's"
    return HostCheck("clock", is_ok, text, "" if is_ok else "have both keep time by NTP")


def disk_check(info: Mapping[str, Any], output: str) -> HostCheck:
    """Tell what is free for images and containers, by what ``df -Pk /`` prints in one."""
    free = int(output.split()[-3]) * 1024
    is_ok = free >= _LEAST_DISK_BYTES
    text = f"{format_memory(free)} free below {info['DockerRootDir']}"
    return HostCheck("disk", is_ok, text, "" if is_ok else "make room: docker system prune")


def network_check(
    engine: Engine, info: Mapping[str, Any], whole: str, found: Iterable[Mapping[str, Any]]
) -> HostCheck:
    """Tell of which network ``whole`` gangs get parts, by what an engine says of its own."""
    if engine.network == HOST_NETWORK:
        return HostCheck("network", True, "the host's: all gangs there reach each other")
    kind = "bridge" if engine.network == BRIDGE else "overlay"
    state = info["Swarm"]["LocalNodeState"]
    if kind == "overlay" and state != "active":
        text = f"networks are overlays, and the engine is {state} in a Swarm"
        return HostCheck("network", False, text, "have it join the Swarm: docker swarm join")
    names = overlapping(whole, (each for each in found if each["Driver"] == kind))
    if names:
        text = f"gangs get parts of {whole}, of which its network {names[0]} has addresses"
        remedy = f"name another subnet, or: docker network rm {names[0]}"
        return HostCheck("network", False, text, remedy)
    parts, most = len(part_starts(whole)), most_slots(whole)
    text = f"{kind}s out of {whole}, one for each gang: {parts} gangs of at most {most} slots"
    return HostCheck("network", True, text)


def certificate_check(not_after: datetime, now: datetime) -> HostCheck:
    """Tell until when an engine's certificate is valid."""
    is_ok = not_after - now > _SOON
    text = f"TLS with client certificates; the engine's ends {not_after:%Y-%m-%d}"
    return HostCheck("tls", is_ok, text, "" if is_ok else "renew the engine's certificate")


def _all(
    client: EngineClient, info: Mapping[str, Any], image: str, now: datetime
) -> Iterator[HostCheck]:
    yield version_check(info, client.use(lambda sdk: sdk.version()))
    if client.engine.tls:
        yield certificate_check(_certificate_end(client.engine.endpoint, client.engine.tls), now)
    yield limits_check(info)
    yield clock_check(info, now)
    yield _network(client, info)
    if image:
        yield _disk(client, info, image)
    if has_nvidia(info):
        yield _gpus(client, image)
    elif engine_labels(info).get("gpus") or client.engine.labels.get("gpus"):
        text = "GPUs are declared, and the engine has no runtime for them"
        yield HostCheck("gpus", False, text, "install nvidia-container-toolkit and configure it")


def _network(client: EngineClient, info: Mapping[str, Any]) -> HostCheck:
    try:
        whole = whole_network(client)
        found = client.use(lambda sdk: sdk.networks())
    except NimbusError as error:
        return HostCheck("network", False, error.message, "see docs/cluster.md, Docker engines")
    return network_check(client.engine, info, whole, found)


def _disk(client: EngineClient, info: Mapping[str, Any], image: str) -> HostCheck:
    try:
        return disk_check(info, _said(client, image, "df", "-Pk", "/"))
    except (NimbusError, ValueError, IndexError) as error:
        text = f"a container of {image} does not run: {error}"
        return HostCheck("disk", False, text, "see that the image is right and can be pulled")


def _said(client: EngineClient, image: str, *argv: str) -> str:
    """Return what a program prints in a container."""
    if client.image(image) is None:
        for _ in client.pull(image, None):
            pass
    values = {
        "Image": image,
        "Entrypoint": [],
        "Cmd": list(argv),
        "Labels": {"nimbus.query": "disk"},
        "HostConfig": {"NetworkMode": "none"},
    }
    made: str = client.use(lambda sdk: sdk.create_container_from_config(values))["Id"]
    try:
        client.start(made)
        client.use(lambda sdk: sdk.wait(made))
        said: bytes = client.use(lambda sdk: sdk.logs(made))
    finally:
        client.remove(made)
    return said.decode(errors="replace")


def _gpus(client: EngineClient, image: str) -> HostCheck:
    if not image:
        remedy = "name an image in which the driver can be asked"
        return HostCheck("gpus", False, "there is a runtime for GPUs, and nobody is asked", remedy)
    try:
        found = query_gpus(client, image)
    except NimbusError as error:
        return HostCheck("gpus", False, error.message, "see that nvidia-smi works on the host")
    return HostCheck("gpus", True, ", ".join(gpu.model for gpu in found) or "none")


def _certificate_end(endpoint: str, tls: str) -> datetime:
    """Return when the certificate that an engine shows ends."""
    folder, where = Path(tls), urlsplit(endpoint)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    address = where.hostname or "", where.port or 2376
    with (
        socket.create_connection(address, QUICK_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=where.hostname) as secure,
    ):
        shown = secure.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
