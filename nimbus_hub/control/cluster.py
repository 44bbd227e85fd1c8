"""The cluster file: what an operator says of hosts, sites, people and rules, in YAML.

    hosts:
      - name: gpu-1
        cpus: 16
        memory: 64G
        gpus: {model: A100, count: 4, memory: 40G}
        datacenter: north
    datacenters:
      - {name: north, locations: ["s3://north-"]}
    quota: {gpus: 8}

docs/cluster.md says what each key means. Tables below say how each is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from datetime import timedelta
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from nimbus_hub.control.cluster_checks import check_cluster
from nimbus_hub.control.settings import NEVER
from nimbus_hub.control.yaml_nodes import Field, Item, Keys, read_yaml
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.cluster import (
    Cluster,
    Datacenter,
    Link,
    Queue,
    Quota,
    Renewals,
    Rules,
    UserGroup,
)
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeaseRule, Signal
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_memory
from nimbus_hub.model.wishes import HIGHEST_PRIORITY
from nimbus_hub.scheduler.policies import ordering, placement

__all__ = ["KEYS", "parse_bandwidth", "read_cluster"]

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_MOST_GPUS = 1000
_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(bit|B)(?:/s)?")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LOCATION = re.compile(r"[a-z][a-z0-9+.-]*:/\S*", re.IGNORECASE)
_NO_BOUND = "none"
_MATCHES = ("kind", "group", "size", "gpus")
"""The keys of a lease rule that say which leases it is for; the others say what it sets."""


def parse_bandwidth(value: str | int | float) -> int:
    """Read ``10Gbit`` or ``1.25GB``, each per second; return bytes per second.

    Both count by thousands, as networks do. Raises InvalidRequest for anything else: a bare
    ``10G`` could be either.
    """
    match = _BANDWIDTH.fullmatch(str(value))
    if match is None:
        raise InvalidRequest(
            f"bandwidth must be bits or bytes a second like 10Gbit or 1.25GB, got {value!r}"
        )
    amount = float(match[1]) * _FACTORS[match[2]]
    found = amount / 8 if match[3] == "bit" else amount
    if not 1 <= found < 2**60:
        raise InvalidRequest(f"bandwidth must be at least 1B, got {value!r}")
    return int(found)


# Readers of single values


def _text(item: Item) -> str:
    return item.text


def _by(read: Callable[[Any], T]) -> Callable[[Item], T]:
    return lambda item: item.by(read)


def _number(least: float, most: float, *, is_whole: bool) -> Callable[[Item], Any]:
    """Return a reader of numbers from ``least`` to ``most``."""
    noun = "a whole number" if is_whole else "a number"
    bounds = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"

    def read(item: Item) -> Any:
        value = item.scalar
        if not isinstance(value, int if is_whole else int | float) or not least <= value <= most:
            raise item.fault(f"must be {noun} {bounds}, got {item.quote}")
        return value

    return read


def _choice(kind: type[E]) -> Callable[[Item], E]:
    def read(item: Item) -> E:
        value = str(item.scalar)
        if value not in list(kind):
            raise item.fault(f"must be one of {', '.join(kind)}, got {item.quote}")
        return kind(value)

    return read


def _truth(item: Item) -> bool:
    value = str(item.scalar)
    if value not in ("true", "false"):
        raise item.fault(f"must be true or false, got {item.quote}")
    return value == "true"


def _address(item: Item) -> str:
    try:
        return str(IPv4Address(item.text))
    except ValueError:
        raise item.fault(f"must be an IPv4 address, got {item.quote}") from None


def _location(item: Item) -> str:
    if not _LOCATION.fullmatch(item.text):
        raise item.fault(f"must be the start of a URL like s3://bucket/, got {item.quote}")
    return item.text


def _milli(item: Item) -> int:
    found: float = _number(0, 10**6, is_whole=False)(item)
    return round(found * 1000)


def _size(item: Item) -> int:
    """Return bytes; unlike others nothing is an amount here."""
    return 0 if item.scalar in (0, "0") else item.by(parse_memory)


def _bound(read: Callable[[Item], int]) -> Callable[[Item], int | None]:
    """Return a reader that knows the word for no bound."""
    return lambda item: None if item.scalar == _NO_BOUND else read(item)


def _policy(find: Callable[[str], object]) -> Callable[[Item], str]:
    """Return a reader of the name of a policy, which must be installed and can be loaded."""

    def read(item: Item) -> str:
        name = item.text
        try:
            find(name)
        except InvalidRequest as error:
            raise item.fault(f"is wrong: {error.message}") from None
        except Exception as error:
            # Whatever a plug-in of somebody else's raises when it is imported.
            raise item.fault(f"names a policy that cannot be loaded: {error}") from error
        return name

    return read


# Readers of what has parts


def _list(read: Callable[[Item], T], item: Item) -> tuple[T, ...]:
    return tuple(map(read, item.items()))


def _names(item: Item) -> frozenset[str]:
    return frozenset(_list(_text, item))


def _labels(item: Item) -> dict[str, str]:
    return {name: str(value.scalar) for name, value in item.entries().items()}


def _gpus(item: Item) -> tuple[Gpu, ...]:
    """Read one group of equal devices, or a list of such groups."""
    found: list[Gpu] = []
    for group in item.items() if item.is_list else [item]:
        if not group.is_mapping:
            raise group.fault(f"must be like {{model: A100, count: 4}}, got {group.quote}")
        values = group.read(_GPUS)
        model, size = values["model"], values.get("memory", 0)
        found += [Gpu(len(found) + n, model, size) for n in range(values.get("count", 1))]
        if len(found) > _MOST_GPUS:
            raise item.fault(f"must be at most {_MOST_GPUS} devices, got {len(found)}")
    return tuple(found)


def _host(item: Item) -> Host:
    return item.build(Host, _HOST)


def _datacenter(item: Item) -> Datacenter:
    values = item.read(_DATACENTER)
    return Datacenter(values["name"], values.get("locations", ()))


def _link(item: Item) -> Link:
    values = item.read(_LINK)
    ends = frozenset(values["between"])
    if len(values["between"]) != 2 or len(ends) != 2:
        raise item.entry("between").fault(
            f"must be two different datacenters, got {', '.join(values['between']) or 'none'}"
        )
    return Link(ends, values["bandwidth"])


def _group(item: Item) -> UserGroup:
    return item.build(UserGroup, _GROUP)


def _queue(item: Item) -> Queue:
    return item.build(Queue, _QUEUE)


def _quota(item: Item) -> Quota:
    return item.build(Quota, _QUOTA)


def _rules(item: Item) -> Rules:
    return item.build(Rules, _RULES)


def _idle(item: Item) -> timedelta | None:
    return None if item.scalar == NEVER else item.by(parse_duration)


def _warnings(item: Item) -> tuple[timedelta, ...]:
    return tuple(sorted(set(_list(_by(parse_duration), item)), reverse=True))


def _signals(item: Item) -> frozenset[Signal]:
    return frozenset(_list(_choice(Signal), item))


def _lease_rule(item: Item) -> LeaseRule:
    def make(**values: Any) -> LeaseRule:
        matches = {name: values.pop(name) for name in _MATCHES if name in values}
        return LeaseRule(**matches, sets=values)

    return item.build(make, _LEASES)


_PRIORITY = _number(-HIGHEST_PRIORITY, HIGHEST_PRIORITY, is_whole=True)
_PORT = _number(1024, 65535, is_whole=True)
_GPUS: Keys = {
    "model": Field(_text, is_needed=True),
    "count": Field(_number(0, _MOST_GPUS, is_whole=True)),
    "memory": Field(_by(parse_memory)),
}
_HOST: Keys = {
    "name": Field(_text, is_needed=True),
    "cpus": Field(_by(parse_cpus), "cpus_milli", is_needed=True),
    "memory": Field(_by(parse_memory), "memory_bytes", is_needed=True),
    "gpus": Field(_gpus),
    "address": Field(_address),
    "datacenter": Field(_text),
    "rack": Field(_text),
    "executor": Field(_text),
    "state": Field(_choice(HostState)),
    "first_port": Field(_PORT),
    "last_port": Field(_PORT),
    "labels": Field(_labels),
}
_DATACENTER: Keys = {
    "name": Field(_text, is_needed=True),
    "locations": Field(partial(_list, _location)),
    "racks": Field(partial(_list, _text)),
}
_LINK: Keys = {
    "between": Field(partial(_list, _text), is_needed=True),
    "bandwidth": Field(_by(parse_bandwidth), is_needed=True),
}
_QUOTA: Keys = {
    "gpus": Field(_bound(_milli), "gpus_milli"),
    "cpus": Field(_bound(_milli), "cpus_milli"),
    "leases": Field(_bound(_number(0, math.inf, is_whole=True))),
}
_GROUP: Keys = {
    "name": Field(_text, is_needed=True),
    "users": Field(_names),
    "weight": Field(_number(0.001, 1000, is_whole=False)),
    "quota": Field(_quota),
}
_QUEUE: Keys = {
    "name": Field(_text, is_needed=True),
    "priority": Field(_PRIORITY),
    "highest": Field(_PRIORITY),
    "users": Field(_names),
    "may_preempt": Field(_truth),
    "preemptible": Field(_truth, "is_preemptible"),
}
_RULES: Keys = {
    "placement": Field(_policy(placement)),
    "ordering": Field(_policy(ordering)),
    "reserve_cpus": Field(_milli, "reserve_cpus_milli"),
    "reserve_memory": Field(_size, "reserve_memory_bytes"),
    "half_life": Field(_by(parse_duration)),
    "aging": Field(_by(parse_duration)),
    "renewals": Field(_choice(Renewals)),
}
_SHARE = _number(0.001, 1, is_whole=False)
_LEASES: Keys = {
    "kind": Field(_choice(LeaseKind)),
    "group": Field(_text),
    "size": Field(_text),
    "gpus": Field(_number(0, math.inf, is_whole=False)),
    "default": Field(_by(parse_duration)),
    "longest": Field(_by(parse_duration)),
    "renewal": Field(_by(parse_duration)),
    "renewals": Field(_number(0, math.inf, is_whole=True)),
    "latest_end": Field(_by(parse_duration)),
    "warnings": Field(_warnings),
    "idle": Field(_idle),
    "idle_warning": Field(_by(parse_duration)),
    "idle_ends": Field(_truth),
    "activity": Field(_signals),
    "cpu_busy": Field(_SHARE),
    "gpu_busy": Field(_SHARE),
}
_CLUSTER: Keys = {
    "hosts": Field(partial(_list, _host)),
    "datacenters": Field(partial(_list, _datacenter)),
    "links": Field(partial(_list, _link)),
    "bandwidth": Field(_by(parse_bandwidth), "bytes_per_second"),
    "groups": Field(partial(_list, _group)),
    "queues": Field(partial(_list, _queue)),
    "quota": Field(_quota),
    "quotas": Field(Item.entries),
    "rules": Field(_rules),
    "leases": Field(partial(_list, _lease_rule)),
}

KEYS: dict[str, Keys] = {
    "": _CLUSTER,
    "hosts": _HOST,
    "hosts.gpus": _GPUS,
    "datacenters": _DATACENTER,
    "links": _LINK,
    "groups": _GROUP,
    "queues": _QUEUE,
    "quota": _QUOTA,
    "rules": _RULES,
    "leases": _LEASES,
}
"""The keys of each part of the file; each user's quota in ``quotas`` has those of ``quota``."""


def read_cluster(
    path: Path,
    executors: Collection[str] | None = None,
    sizes: Collection[str] | None = None,
) -> Cluster:
    """Return what a cluster file says; raise InvalidRequest naming file, line and key.

    With ``executors`` a host must be of one of them, with ``sizes`` so must a rule's size.
    """
    file = read_yaml(path)
    if file is None:
        return Cluster()
    try:
        values = file.read(_CLUSTER)
    except RecursionError:
        raise InvalidRequest(f"{path}: this refers to itself") from None
    check_cluster(file.fields(_CLUSTER), executors, sizes)
    queues = values.get("queues", ())
    if all(queue.name != "default" for queue in queues):
        # What a request that names none waits in is always there.
        values["queues"] = (Queue(), *queues)
    quotas: dict[str, Item] = values.pop("quotas", {})
    own = partial(_own_quota, values.get("quota", Quota()))
    return Cluster(**values, quotas={user: own(item) for user, item in quotas.items()})


def _own_quota(default: Quota, item: Item) -> Quota:
    """Return a user's quota: what it leaves out is as for everybody."""
    everybody = {
        "gpus_milli": default.gpus_milli,
        "cpus_milli": default.cpus_milli,
        "leases": default.leases,
    }
    return Quota(**{**everybody, **item.read(_QUOTA)})
