"""The cluster file: hosts an operator declares, in YAML.

    hosts:
      - name: gpu-1
        cpus: 16
        memory: 64G
        gpus: {model: A100, count: 4, memory: 40G}
        datacenter: north
        rack: r1

Each host needs ``name``, ``cpus`` and ``memory``; the rest has defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.quantities import parse_cpus, parse_memory

__all__ = ["read_cluster"]


def _text(value: object) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value).strip():
        raise InvalidRequest(f"must be a text, got {value!r}")
    return str(value).strip()


def _address(value: object) -> str:
    try:
        return str(IPv4Address(str(value)))
    except ValueError:
        raise InvalidRequest(f"must be an IPv4 address, got {value!r}") from None


def _state(value: object) -> HostState:
    if value not in list(HostState):
        raise InvalidRequest(f"must be one of {', '.join(HostState)}, got {value!r}")
    return HostState(str(value))


def _port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"must be a number, got {value!r}")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_GPUS:
        raise InvalidRequest(f"must be a number from 0 to {_MOST_GPUS}, got {value!r}")
    return value


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"must be a mapping of texts, got {value!r}")
    return {str(key): str(text) for key, text in value.items()}


_MOST_GPUS = 1000
_TEXT = ("name", "datacenter", "rack", "executor")
_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    **{key: (key, _text) for key in _TEXT},
    "cpus": ("cpus_milli", parse_cpus),
    "memory": ("memory_bytes", parse_memory),
    "state": ("state", _state),
    "address": ("address", _address),
    "first_port": ("first_port", _port),
    "last_port": ("last_port", _port),
    "labels": ("labels", _labels),
}


def read_cluster(path: Path) -> tuple[Host, ...]:
    """Return the hosts of a cluster file; raise InvalidRequest naming file and key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} must be text in UTF-8: {error.reason}") from error
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or set(content) - {"hosts"}:
        raise InvalidRequest(f"{path} must have the one key 'hosts'")
    hosts = content.get("hosts")
    if hosts is None:
        hosts = []
    if not isinstance(hosts, list):
        raise InvalidRequest(f"{path}: hosts must be a list")
    read = tuple(_host(entry, f"{path}: hosts[{n}]") for n, entry in enumerate(hosts))
    names = [host.name for host in read]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"{path}: two hosts are named {name!r}; names must differ")
    return read


def _host(entry: object, where: str) -> Host:
    if not isinstance(entry, dict):
        raise InvalidRequest(f"{where} must be a mapping with name, cpus and memory")
    for key in ("name", "cpus", "memory"):
        if key not in entry:
            raise InvalidRequest(f"{where}.{key} is missing")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "gpus":
            values["gpus"] = _gpus(value, f"{where}.gpus")
        elif key in _READERS:
            name, read = _READERS[key]
            values[name] = _read(read, value, f"{where}.{key}")
        else:
            known = ", ".join(sorted([*_READERS, "gpus"]))
            raise InvalidRequest(f"{where}.{key} is not known; known are {known}")
    try:
        return Host(**values)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from None


def _gpus(value: object, where: str) -> tuple[Gpu, ...]:
    """Read one group of equal devices, or a list of such groups."""
    groups = value if isinstance(value, list) else [value]
    found: list[Gpu] = []
    for group in groups:
        if not isinstance(group, dict) or "model" not in group:
            raise InvalidRequest(f"{where} must have model, and may have count and memory")
        unknown = sorted(set(map(str, group)) - {"model", "count", "memory"})
        if unknown:
            raise InvalidRequest(
                f"{where}.{unknown[0]} is not known; known are count, memory, model"
            )
        model = _read(_text, group["model"], f"{where}.model")
        count = _read(_count, group.get("count", 1), f"{where}.count")
        memory = _read(parse_memory, group["memory"], f"{where}.memory") if "memory" in group else 0
        found += [Gpu(len(found) + n, model, memory) for n in range(count)]
    return tuple(found)


def _read(read: Callable[[Any], Any], value: object, where: str) -> Any:
    try:
        return read(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from None
