"""What the parts of a cluster file must be to each other: names differ, references lead somewhere.

The parts themselves were read before, so that each has its names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from nimbus_hub.control.yaml_nodes import Item
from nimbus_hub.model.engine import BRIDGE

__all__ = ["check_cluster"]

_ANYWHERE = "default"
"""The datacenter and the rack of a host that names none."""


def check_cluster(
    given: Mapping[str, Item],
    executors: Collection[str] | None,
    sizes: Collection[str] | None = None,
) -> None:
    """Raise InvalidRequest for the first thing that does not fit, naming its line."""
    parts = {name: given[name].items() if name in given else [] for name in _LISTS}
    for name in ("hosts", "datacenters", "groups", "queues"):
        _check_names(parts[name])
    racks = {site.entry("name").text: _texts(site, "racks") for site in parts["datacenters"]}
    for host in parts["hosts"]:
        _check_host(host, racks, executors)
    _check_engines(parts["engines"], parts["swarms"], racks)
    _check_links(parts["links"], racks)
    _check_members(parts["groups"])
    groups = [group.entry("name").text for group in parts["groups"]]
    for rule in parts["leases"]:
        _check_match(rule, "group", groups)
        if sizes is not None:
            _check_match(rule, "size", sizes)


_LISTS = ("hosts", "engines", "swarms", "datacenters", "links", "groups", "queues", "leases")


def _check_names(items: Iterable[Item], key: str = "name") -> None:
    """Refuse two of a name."""
    lines: dict[str, int] = {}
    for item in items:
        name = item.entry(key)
        if name.text in lines:
            raise name.fault(
                f"must differ from the others, got {name.text!r} as in line {lines[name.text]}"
            )
        lines[name.text] = name.line


def _check_host(
    host: Item, racks: Mapping[str, Collection[str]], executors: Collection[str] | None
) -> None:
    """Refuse a host of a site, a rack or an executor that is not there."""
    if executors is not None:
        _check_known(host, "executor", executors, "local")
    _check_site(host, racks)


def _check_site(host: Item, racks: Mapping[str, Collection[str]]) -> None:
    if racks:
        site = _check_known(host, "datacenter", racks, _ANYWHERE)
        if racks[site]:
            _check_known(host, "rack", racks[site], _ANYWHERE)


def _check_engines(
    engines: Sequence[Item], swarms: Sequence[Item], racks: Mapping[str, Collection[str]]
) -> None:
    """Refuse two of a name or a Swarm's site, and bridges where hosts must reach each other."""
    _check_names(engines, "host")
    _check_names(swarms, "datacenter")
    for engine in engines:
        _check_site(engine, racks)
    for swarm in swarms:
        if racks:
            _check_known(swarm, "datacenter", racks, _ANYWHERE)
    sites = Counter(_value(each, "datacenter", _ANYWHERE) for each in (*engines, *swarms))
    for engine in engines:
        site = _value(engine, "datacenter", _ANYWHERE)
        if sites[site] > 1 and _value(engine, "network", BRIDGE) == BRIDGE:
            raise engine.entry("network").fault(
                f"must be host or an overlay: {site} has other hosts, which do not reach the "
                "containers on a bridge; or put the engine into a datacenter of its own"
            )


def _check_known(item: Item, key: str, known: Collection[str], default: str) -> str:
    """Return the value of a key; refuse one that is not known."""
    value = _value(item, key, default)
    if value not in known:
        raise item.entry(key).fault(f"must be one of {', '.join(sorted(known))}, got {value!r}")
    return value


def _value(item: Item, key: str, default: str) -> str:
    at = item.entry(key)
    return default if at.node is item.node or at.is_null else at.text


def _check_links(links: Iterable[Item], sites: Collection[str]) -> None:
    """Refuse links to sites that are not there, and two between the same."""
    seen: set[frozenset[str]] = set()
    for link in links:
        between = link.entry("between")
        for end in between.items():
            if end.text not in sites:
                known = (
                    f"one of {', '.join(sorted(sites))}" if sites else "declared as a datacenter"
                )
                raise end.fault(f"must be {known}, got {end.text!r}")
        ends = frozenset(_texts(link, "between"))
        if ends in seen:
            raise between.fault(f"must be another pair, got {' and '.join(sorted(ends))} again")
        seen.add(ends)


def _check_members(groups: Iterable[Item]) -> None:
    """Refuse users of two groups: whose share and quota would be theirs?"""
    group_of: dict[str, str] = {}
    for group in groups:
        name = group.entry("name").text
        for user in group.entries()["users"].items() if "users" in group.entries() else ():
            other = group_of.setdefault(user.text, name)
            if other != name:
                raise user.fault(f"must be in one group, got {user.text!r}, who is in {other!r}")


def _check_match(rule: Item, key: str, known: Collection[str]) -> None:
    """Refuse a rule about something that is not there."""
    found = rule.entries().get(key)
    if found is not None and not found.is_null and found.text not in known:
        there = f"one of {', '.join(sorted(known))}" if known else f"a {key}, and there is none"
        raise found.fault(f"must be {there}, got {found.text!r}")


def _texts(item: Item, key: str) -> tuple[str, ...]:
    entries = item.entries()
    return tuple(each.text for each in entries[key].items()) if key in entries else ()
