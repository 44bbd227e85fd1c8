"""What works on an engine's host and what is missing, with remedies.

Each check is a pure function of what was found; :func:`check_engine` asks for it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nimbus_hub.errors import InvalidRequest, NimbusError
from nimbus_hub.executors.docker.engine import QUICK_SECONDS, EngineClient
from nimbus_hub.executors.docker.gpus import has_nvidia, query_gpus
from nimbus_hub.executors.docker.hosts import told_gpus
from nimbus_hub.executors.docker.images import Credentials, auth_for, ensure_image
from nimbus_hub.executors.docker.networks import overlapping, whole_network
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK, Engine
from nimbus_hub.model.host import Gpu
from nimbus_hub.model.network import most_slots, part_starts
from nimbus_hub.model.quantities import format_memory

__all__ = [
    "certificate_check",
    "check_engine",
    "clock_check",
    "disk_check",
    "limits_check",
    "network_check",
    "registry_check",
    "runtime_check",
    "version_check",
]

_LEAST_VERSION = (1, 40)
_LEAST_DISK_BYTES = 20 * 2**30
_MOST_SKEW = timedelta(seconds=5)
_SOON = timedelta(days=14)
_NO_TLS = {
    "unix": "a socket of the service's machine",
    "ssh": "ssh",
    "tcp": "the loopback of the service's machine",
}
"""Why an endpoint without certificates needs none, by its scheme; `model.engine` refuses others."""
_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPUs", "PidsLimit": "processes"}


def check_engine(
    client: EngineClient,
    images: Sequence[str],
    credentials: Mapping[str, Credentials],
    now: Callable[[], datetime],
) -> tuple[HostCheck, ...]:
    """Look at all there is; what only a container can see is seen in the first of ``images``.

    ``credentials`` are ours by registry. Blocks, for as long as that image is pulled, too.
    """
    began, hidden = now(), _hidden(client.engine.tls)
    if hidden:
        text = f"the service cannot read {', '.join(hidden)} in {client.engine.tls}"
        remedy = "put them there on the service's machine, readable by its account"
        return (HostCheck("tls", False, text, remedy),)
    try:
        info = client.info()
    except NimbusError as error:
        remedy = (
            "start Docker there, and see that endpoint and tls are right; by ssh the service's "
            "account must get in without a password"
        )
        return (HostCheck("engine", False, error.message, remedy),)
    middle = began + (now() - began) / 2
    return tuple(_all(client, info, images, credentials, middle))


def version_check(info: Mapping[str, Any], version: Mapping[str, Any]) -> HostCheck:
    """Tell whether an engine is new enough."""
    api = str(version["ApiVersion"])
    text = f"Docker {info['ServerVersion']}, API {api}"
    is_ok = tuple(map(int, api.split("."))) >= _LEAST_VERSION
    return HostCheck("version", is_ok, text, "" if is_ok else "update Docker to 19.03 or later")


def runtime_check(info: Mapping[str, Any], declared: Sequence[Gpu]) -> HostCheck:
    """Tell what an engine runs containers with; who has GPUs needs NVIDIA's runtime, too."""
    text = str(info.get("DefaultRuntime") or "runc")
    if has_nvidia(info):
        return HostCheck("runtime", True, f"{text}, and nvidia for GPUs")
    if not declared:
        return HostCheck("runtime", True, f"{text}, none for GPUs")
    text = f"{text}; GPUs are declared, and the engine has no runtime for them"
    return HostCheck("runtime", False, text, "install nvidia-container-toolkit and configure it")


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


def registry_check(found: Mapping[str, tuple[bool, str]]) -> HostCheck:
    """Tell whether images can be had: by name, whether one is on the host and what is wrong.

    One that is there needs no registry, but what that says is told.
    """
    if not found:
        return HostCheck("registry", True, "no environment has an image")
    faults = {name: f"{name}: {fault}" for name, (_, fault) in found.items() if fault}
    gone = [text for name, text in faults.items() if not found[name][0]]
    if gone:
        remedy = (
            "see that the image's name is right, that the host reaches the registry, and that "
            "registries of c.NimbusHub.containers says who we are; or bring it with docker load"
        )
        return HostCheck("registry", False, "; ".join(gone), remedy)
    had = ", ".join(name for name in found if name not in faults)
    there = [f"{text} (but the host has it)" for text in faults.values()]
    return HostCheck("registry", True, "; ".join([f"gives {had}", *there] if had else there))


def _all(
    client: EngineClient,
    info: Mapping[str, Any],
    images: Sequence[str],
    credentials: Mapping[str, Credentials],
    now: datetime,
) -> Iterator[HostCheck]:
    yield version_check(info, client.use(lambda sdk: sdk.version()))
    yield _tls(client.engine, now)
    try:
        declared, fault = told_gpus(client.engine, info), ""
    except InvalidRequest as error:
        declared, fault = (), error.message
    yield runtime_check(info, declared)
    yield limits_check(info)
    yield clock_check(info, now)
    yield _registry(client, images, credentials)
    yield _network(client, info)
    yield _disk(client, info, images, credentials)
    if fault:
        yield HostCheck("gpus", False, fault, "set the label gpus right, like A100:2")
    elif has_nvidia(info):
        yield _gpus(client, images, credentials)
    else:
        yield HostCheck("gpus", True, f"{_counted(declared)}, as declared" if declared else "none")


def _hidden(tls: str) -> list[str]:
    """Return the files of a directory of certificates that the service cannot read."""
    names = ("ca.pem", "cert.pem", "key.pem") if tls else ()
    return [name for name in names if not os.access(Path(tls, name), os.R_OK)]


def _tls(engine: Engine, now: datetime) -> HostCheck:
    if engine.tls:
        try:
            return certificate_check(_certificate_end(engine.endpoint, engine.tls), now)
        except OSError as error:
            # OpenSSL asks more of certificates here than the SDK's client does.
            return HostCheck("tls", False, str(error), "make the certificates anew")
    return HostCheck("tls", True, f"not needed: {_NO_TLS[urlsplit(engine.endpoint).scheme]}")


def _registry(
    client: EngineClient, images: Sequence[str], credentials: Mapping[str, Credentials]
) -> HostCheck:
    def ask(image: str) -> tuple[bool, str]:
        fault = ""
        try:
            client.registry_has(image, auth_for(image, credentials))
        except NimbusError as error:
            fault = error.message
        return client.image(image) is not None, fault

    # A registry that does not answer is waited for once, however many images are its.
    with ThreadPoolExecutor() as pool:
        return registry_check(dict(zip(images, pool.map(ask, images), strict=True)))


def _network(client: EngineClient, info: Mapping[str, Any]) -> HostCheck:
    try:
        whole = whole_network(client)
        found = client.use(lambda sdk: sdk.networks())
    except NimbusError as error:
        return HostCheck("network", False, error.message, "see docs/cluster.md, Docker engines")
    return network_check(client.engine, info, whole, found)


def _disk(
    client: EngineClient,
    info: Mapping[str, Any],
    images: Sequence[str],
    credentials: Mapping[str, Credentials],
) -> HostCheck:
    if not images:
        return HostCheck("disk", True, "not known: no environment has an image to look in")
    try:
        ensure_image(client, images[0], credentials)
        return disk_check(info, _said(client, images[0], "df", "-Pk", "/"))
    except (NimbusError, ValueError, IndexError) as error:
        text = f"a container of {images[0]} does not run: {error}"
        return HostCheck("disk", False, text, "see that the image is right and can be pulled")


def _said(client: EngineClient, image: str, *argv: str) -> str:
    """Return what a program prints in a container."""
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


def _gpus(
    client: EngineClient, images: Sequence[str], credentials: Mapping[str, Credentials]
) -> HostCheck:
    if not images:
        remedy = "name an image in which the driver can be asked"
        return HostCheck("gpus", False, "there is a runtime for GPUs, and nobody is asked", remedy)
    try:
        found = query_gpus(client, images[0], credentials)
    except NimbusError as error:
        return HostCheck("gpus", False, error.message, "see that nvidia-smi works on the host")
    return HostCheck("gpus", True, _counted(found) or "none")


def _counted(gpus: Sequence[Gpu]) -> str:
    """Write devices by model: ``8 A100, 2 T4``."""
    return ", ".join(f"{n} {model}" for model, n in Counter(gpu.model for gpu in gpus).items())


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
