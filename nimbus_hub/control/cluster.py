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
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nimbus_hub.control import cluster_values as scalar
from nimbus_hub.control.cluster_checks import check_cluster
from nimbus_hub.control.cluster_values import parse_bandwidth
from nimbus_hub.control.settings import NEVER
from nimbus_hub.control.yaml_nodes import Field, Item, Keys, parse_yaml, read_text
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
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeaseRule, Signal
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_memory
from nimbus_hub.model.wishes import HIGHEST_PRIORITY
from nimbus_hub.scheduler.policies import ordering, placement

__all__ = ["KEYS", "parse_bandwidth", "parse_cluster", "read_cluster"]

T = TypeVar("T")

_MOST_GPUS = 1000
_MATCHES = ("kind", "group", "size", "gpus")
"""The keys of a lease rule that say which leases it is for; the others say what it sets."""


# Readers of what has parts


def _list(read: Callable[[Item], T], item: Item) -> tuple[T, ...]:
    return tuple(map(read, item.items()))


def _names(item: Item) -> frozenset[str]:
    return frozenset(_list(scalar.text, item))


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


def _engine(item: Item) -> Engine:
    """Read an engine; its address is that of its endpoint, if it has one and no other is given."""

    def make(**found: Any) -> Engine:
        with suppress(ValueError):
            found.setdefault(
                "address", str(IPv4Address(urlsplit(found["endpoint"]).hostname or ""))
            )
        return Engine(**found)

    return item.build(make, _ENGINE)


def _swarm(item: Item) -> Swarm:
    return item.build(Swarm, _SWARM)


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
    return tuple(sorted(set(_list(scalar.by(parse_duration), item)), reverse=True))


def _signals(item: Item) -> frozenset[Signal]:
    return frozenset(_list(scalar.choice(Signal), item))


def _lease_rule(item: Item) -> LeaseRule:
    def make(**values: Any) -> LeaseRule:
        matches = {name: values.pop(name) for name in _MATCHES if name in values}
        return LeaseRule(**matches, sets=values)

    return item.build(make, _LEASES)


_PRIORITY = scalar.number(-HIGHEST_PRIORITY, HIGHEST_PRIORITY, is_whole=True)
_PORT = scalar.number(1024, 65535, is_whole=True)
_GPUS: Keys = {
    "model": Field(scalar.text, is_needed=True),
    "count": Field(scalar.number(0, _MOST_GPUS, is_whole=True)),
    "memory": Field(scalar.by(parse_memory)),
}
_HOST: Keys = {
    "name": Field(scalar.text, is_needed=True),
    "cpus": Field(scalar.by(parse_cpus), "cpus_milli", is_needed=True),
    "memory": Field(scalar.by(parse_memory), "memory_bytes", is_needed=True),
    "gpus": Field(_gpus),
    "address": Field(scalar.address),
    "datacenter": Field(scalar.text),
    "rack": Field(scalar.text),
    "executor": Field(scalar.text),
    "state": Field(scalar.choice(HostState)),
    "first_port": Field(_PORT),
    "last_port": Field(_PORT),
    "labels": Field(scalar.labels),
}
_ENGINE: Keys = {
    "host": Field(scalar.text, is_needed=True),
    "endpoint": Field(scalar.text, is_needed=True),
    "tls": Field(scalar.text),
    "address": Field(scalar.address),
    "datacenter": Field(scalar.text),
    "rack": Field(scalar.text),
    "labels": Field(scalar.labels),
    "network": Field(scalar.text),
    "subnet": Field(scalar.network),
}
_SWARM: Keys = {
    "datacenter": Field(scalar.text, is_needed=True),
    "manager": Field(scalar.text, is_needed=True),
    "tls": Field(scalar.text),
    "engine": Field(scalar.text),
    "network": Field(scalar.text),
    "subnet": Field(scalar.network),
}
_DATACENTER: Keys = {
    "name": Field(scalar.text, is_needed=True),
    "locations": Field(partial(_list, scalar.location)),
    "racks": Field(partial(_list, scalar.text)),
}
_LINK: Keys = {
    "between": Field(partial(_list, scalar.text), is_needed=True),
    "bandwidth": Field(scalar.by(parse_bandwidth), is_needed=True),
}
_QUOTA: Keys = {
    "gpus": Field(scalar.bound(scalar.milli), "gpus_milli"),
    "cpus": Field(scalar.bound(scalar.milli), "cpus_milli"),
    "leases": Field(scalar.bound(scalar.number(0, math.inf, is_whole=True))),
}
_GROUP: Keys = {
    "name": Field(scalar.text, is_needed=True),
    "users": Field(_names),
    "weight": Field(scalar.number(0.001, 1000, is_whole=False)),
    "quota": Field(_quota),
}
_QUEUE: Keys = {
    "name": Field(scalar.text, is_needed=True),
    "priority": Field(_PRIORITY),
    "highest": Field(_PRIORITY),
    "users": Field(_names),
    "may_preempt": Field(scalar.truth),
    "preemptible": Field(scalar.truth, "is_preemptible"),
}
_RULES: Keys = {
    "placement": Field(scalar.policy(placement)),
    "ordering": Field(scalar.policy(ordering)),
    "reserve_cpus": Field(scalar.milli, "reserve_cpus_milli"),
    "reserve_memory": Field(scalar.size, "reserve_memory_bytes"),
    "half_life": Field(scalar.by(parse_duration)),
    "aging": Field(scalar.by(parse_duration)),
    "renewals": Field(scalar.choice(Renewals)),
}
_SHARE = scalar.number(0.001, 1, is_whole=False)
_LEASES: Keys = {
    "kind": Field(scalar.choice(LeaseKind)),
    "group": Field(scalar.text),
    "size": Field(scalar.text),
    "gpus": Field(scalar.number(0, math.inf, is_whole=False)),
    "default": Field(scalar.by(parse_duration)),
    "longest": Field(scalar.by(parse_duration)),
    "renewal": Field(scalar.by(parse_duration)),
    "renewals": Field(scalar.number(0, math.inf, is_whole=True)),
    "latest_end": Field(scalar.by(parse_duration)),
    "warnings": Field(_warnings),
    "idle": Field(_idle),
    "idle_warning": Field(scalar.by(parse_duration)),
    "idle_ends": Field(scalar.truth),
    "activity": Field(_signals),
    "cpu_busy": Field(_SHARE),
    "gpu_busy": Field(_SHARE),
}
_CLUSTER: Keys = {
    "hosts": Field(partial(_list, _host)),
    "engines": Field(partial(_list, _engine)),
    "swarms": Field(partial(_list, _swarm)),
    "datacenters": Field(partial(_list, _datacenter)),
    "links": Field(partial(_list, _link)),
    "bandwidth": Field(scalar.by(parse_bandwidth), "bytes_per_second"),
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
    "engines": _ENGINE,
    "swarms": _SWARM,
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
    return parse_cluster(read_text(path), path, executors, sizes)


def parse_cluster(
    text: str,
    path: Path,
    executors: Collection[str] | None = None,
    sizes: Collection[str] | None = None,
) -> Cluster:
    """Return what a cluster file at ``path`` would say with this text, as `read_cluster`."""
    file = parse_yaml(text, path)
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
