"""GPUs of an engine's host: asked of the driver in a container, or as somebody declared them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.images import Credentials, ensure_image
from nimbus_hub.model.host import Gpu, HeldMemory
from nimbus_hub.model.quantities import parse_gpus

__all__ = [
    "MODEL_LABEL",
    "declared_gpus",
    "driver_gpus",
    "driver_memory",
    "generic_gpus",
    "gpu_query",
    "has_nvidia",
    "query_gpus",
    "query_memory",
]

R = TypeVar("R")

MODEL_LABEL = "gpu"
"""The label that says of which model all devices of a host are."""

_DEVICES = "index,uuid,name,memory.total"
_MEMORY = "index,memory.used"
_QUERY_SECONDS = 60
_UNKNOWN = "GPU"


def has_nvidia(info: Mapping[str, Any]) -> bool:
    """Tell whether an engine has NVIDIA's runtime."""
    return "nvidia" in (info.get("Runtimes") or {})


def gpu_query(image: str, fields: str = _DEVICES) -> dict[str, Any]:
    """Return the container that asks the driver; the runtime brings the program."""
    return {
        "Image": image,
        "Entrypoint": [],
        "Cmd": ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        "Env": ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"],
        "Labels": {"nimbus.query": "gpus"},
        "HostConfig": {"Runtime": "nvidia", "NetworkMode": "none"},
    }


def driver_gpus(output: str) -> tuple[Gpu, ...]:
    """Read what the driver's program prints: index, UUID, name, MiB; raise ValueError for else."""
    found = []
    for line in output.splitlines():
        index, uuid, name, mebibytes = (word.strip() for word in line.split(","))
        # Where memory is the machine's own it is not known.
        memory = int(mebibytes) * 2**20 if mebibytes.isdigit() else 0
        found.append(Gpu(int(index), name, memory, uuid))
    return tuple(found)


def driver_memory(output: str) -> dict[int, HeldMemory]:
    """Read what it prints of memory: index, MiB; raise ValueError for else."""
    found = {}
    for line in output.splitlines():
        index, mebibytes = (word.strip() for word in line.split(","))
        # Where memory is the machine's own it is not known.
        if mebibytes.isdigit():
            found[int(index)] = HeldMemory(int(mebibytes) * 2**20)
    return found


def generic_gpus(resources: Iterable[Mapping[str, Any]] | None, model: str = "") -> tuple[Gpu, ...]:
    """Return the devices among an engine's generic resources: those that are called some GPU."""
    found: list[Gpu] = []
    for resource in resources or ():
        kind, spec = next(iter(resource.items()))
        if "gpu" not in spec["Kind"].lower():
            continue
        uuids = [""] * int(spec["Value"]) if kind == "DiscreteResourceSpec" else [spec["Value"]]
        found += [Gpu(len(found) + at, model or _UNKNOWN, 0, uuid) for at, uuid in enumerate(uuids)]
    return tuple(found)


def declared_gpus(text: str, model: str = "") -> tuple[Gpu, ...]:
    """Read the label ``gpus``: ``A100:2``, ``A100:2,T4:4``, or ``2`` of a ``model``."""
    found: list[Gpu] = []
    for part in text.split(","):
        amount = parse_gpus(part)
        if amount.milli < 1000:
            raise InvalidRequest(f"gpus must be whole devices like A100:2, got {text!r}")
        named = amount.models[0] if amount.models else model or _UNKNOWN
        found += [Gpu(len(found) + at, named) for at in range(amount.gpus)]
    return tuple(found)


def query_gpus(
    client: EngineClient, image: str, credentials: Mapping[str, Credentials]
) -> tuple[Gpu, ...]:
    """Return the devices that the driver knows, asked in a container of an image. Blocks.

    Raises InvalidRequest where that does not work, with the program's words.
    """
    return _asked(client, image, credentials, _DEVICES, driver_gpus)


def query_memory(
    client: EngineClient, image: str, credentials: Mapping[str, Credentials]
) -> dict[int, HeldMemory]:
    """Return what is held of their memory, asked in the same way; nothing where there are none."""
    if not image or not has_nvidia(client.info()):
        return {}
    return _asked(client, image, credentials, _MEMORY, driver_memory)


def _asked(
    client: EngineClient,
    image: str,
    credentials: Mapping[str, Credentials],
    fields: str,
    read: Callable[[str], R],
) -> R:
    ensure_image(client, image, credentials)
    made: dict[str, Any] = client.use(
        lambda sdk: sdk.create_container_from_config(gpu_query(image, fields))
    )
    try:
        client.start(made["Id"])
        code = client.use(lambda sdk: sdk.wait(made["Id"])["StatusCode"], _QUERY_SECONDS)
        said: bytes = client.use(lambda sdk: sdk.logs(made["Id"]))
    finally:
        client.remove(made["Id"])
    output = said.decode(errors="replace").strip()
    try:
        if code == 0:
            return read(output)
    except ValueError:
        pass
    raise InvalidRequest(f"nvidia-smi says: {output[-500:] or f'nothing, exit code {code}'}")
