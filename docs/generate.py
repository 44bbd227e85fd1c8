"""Writes the pages that are made from the source: ``python docs/generate.py``.

configuration.md has the settings and the cluster file, reference.md the scopes, operations,
error codes and metrics, magics.md at its end the help of every magic.
tests/unit/test_docs.py holds them against the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nimbus_spawner.docker import NimbusDockerSpawner
from nimbus_spawner.local import NimbusLocalSpawner
from nimbus_spawner.spawner import NimbusSpawner
from prometheus_client import Metric
from traitlets.config import Configurable

from nimbus_hub.api.handler import Operation, status_of
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.routes import ROUTES
from nimbus_hub.app import NimbusHub
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.errors import NimbusError, error_classes
from nimbus_hub.magics.extension import MAGICS
from nimbus_hub.up.login import OwnerAuthenticator

__all__ = ["CLUSTER_EXAMPLE", "CLUSTER_KEYS", "pages"]

DOCS = Path(__file__).parent

SETTINGS: dict[type[Configurable], str] = {
    NimbusHub: "The service",
    NimbusSpawner: "Sessions",
    NimbusLocalSpawner: "Sessions on this machine",
    NimbusDockerSpawner: "Sessions in containers",
    OwnerAuthenticator: "Log-in of the embedded hub",
}

CLUSTER_EXAMPLE = """\
hosts:
  - name: gpu-1
    cpus: 16
    memory: 64G
    gpus: {model: A100, count: 4, memory: 40G}
    rack: r1
  - name: cpu-1
    cpus: 32
    memory: 128G
"""

CLUSTER_KEYS: dict[str, dict[str, tuple[str, str]]] = {
    "": {
        "hosts": ("none", "the machines, a list"),
        "engines": ("none", "Docker engines, each one host, a list"),
        "swarms": ("none", "Docker Swarms, whose nodes are hosts, a list"),
        "datacenters": ("none", "the sites, a list; if given, every host must be in one of them"),
        "links": ("none", "how fast data moves between two datacenters, a list"),
        "bandwidth": ("1Gbit", "the same between those without a link"),
        "groups": ("none", "people who share a quota and a share of the cluster, a list"),
        "queues": ("default", "where requests wait, a list; `default` is always one of them"),
        "quota": ("no bounds", "the most that each user may hold at once"),
        "quotas": ("none", "the quota of some users, by name; keys left out are as in `quota`"),
        "rules": ("", "how the scheduler decides"),
        "leases": ("none", "how long leases last and when they are idle, a list of rules"),
    },
    "hosts": {
        "name": ("", "what the host is called; must be given and differ from the others"),
        "cpus": ("", "CPUs to lease, like `16` or `0.5`; must be given"),
        "memory": ("", "memory to lease, like `64G`; must be given"),
        "gpus": ("none", "a group of equal devices, or a list of groups; indices count from 0"),
        "address": ("127.0.0.1", "IPv4 address that its replicas are reached at"),
        "datacenter": ("default", "a gang never spans two"),
        "rack": ("default", "hosts of one rack are near to each other"),
        "executor": ("local", "how replicas run there"),
        "state": ("ready", "`ready`, `draining` (takes nothing new) or `down`"),
        "first_port": ("20000", "first port that may be given to slots, at least 1024"),
        "last_port": ("29999", "last port that may be given to slots"),
        "labels": ("none", "names and values of your own, shown with the host"),
    },
    "hosts.gpus": {
        "model": ("", "like `A100`; must be given"),
        "count": ("1", "how many"),
        "memory": ("unknown", "of each device, like `40G`"),
    },
    "engines": {
        "host": ("", "what the host is called; must be given and differ from the others"),
        "endpoint": (
            "",
            "`unix:///var/run/docker.sock`, `tcp://10.0.0.5:2376` or `ssh://user@gpu-1`; must be "
            "given",
        ),
        "tls": ("none", "directory with ca.pem, cert.pem and key.pem; tcp needs it"),
        "address": ("that of a tcp endpoint", "IPv4 address that other hosts reach it at"),
        "datacenter": ("default", "a gang never spans two"),
        "rack": ("that label of the engine", "hosts of one rack are near to each other"),
        "labels": ("none", "names and values, over those of the engine"),
        "network": ("bridge", "`bridge`, `host` or what overlays are named after"),
        "subnet": (
            "one that is free",
            "addresses, of which each gang gets a part, like `10.64.0.0/16`",
        ),
    },
    "swarms": {
        "datacenter": ("", "the one that its nodes are in; must be given, a Swarm has its own"),
        "manager": ("", "endpoint of a manager; must be given"),
        "tls": ("none", "directory with ca.pem, cert.pem and key.pem, for it and for all nodes"),
        "engine": (
            "tcp://{address}:2376",
            "endpoint of each node; `{address}` and `{hostname}` are the node's",
        ),
        "network": ("nimbus", "what overlays of gangs are named after; or `host`"),
        "subnet": ("10.64.0.0/16", "addresses, of which each gang gets a part"),
    },
    "datacenters": {
        "name": ("", "must be given and differ from the others"),
        "locations": ("none", "starts of URLs: data there is near, like `s3://north-`"),
        "racks": ("any", "the racks there are; if given, every host there must be in one"),
    },
    "links": {
        "between": ("", "two datacenters, like `[north, south]`; must be given"),
        "bandwidth": ("", "bits or bytes a second, like `10Gbit` or `1.25GB`; must be given"),
    },
    "groups": {
        "name": ("", "must be given and differ from the others"),
        "users": ("none", "who is in it; a user is in one group at most"),
        "weight": ("1", "twice the weight is twice the fair share; from 0.001 to 1000"),
        "quota": ("no bounds", "the most that all of them together may hold at once"),
    },
    "queues": {
        "name": ("", "must be given and differ from the others"),
        "priority": ("0", "added to that of the request; from -1000 to 1000"),
        "highest": ("0", "the highest priority that a request may ask for here"),
        "users": ("everybody", "who may use it"),
        "may_preempt": ("false", "may have preemptible leases of lower priority stopped"),
        "preemptible": ("false", "its leases may be stopped for others"),
    },
    "quota": {
        "gpus": ("none", "GPUs, shares counted, like `8` or `0.5`; `none`: no bound"),
        "cpus": ("none", "CPUs"),
        "leases": ("none", "leases: sessions and jobs"),
    },
    "rules": {
        "placement": ("fragmentation", "the policy that chooses hosts, by name"),
        "ordering": ("fair", "the policy that orders what waits, by name"),
        "reserve_cpus": ("2", "CPUs that each free GPU keeps from slots without GPUs"),
        "reserve_memory": ("8G", "memory that it keeps so"),
        "half_life": ("7d", "after this time used GPU time counts half"),
        "aging": ("1d", "who has waited longer comes first, whatever priority and share say"),
        "renewals": (
            "patience",
            "whether a renewal may move the promised start of others: `allowed`, `refused`, or "
            "within the `patience` of who was promised",
        ),
    },
    "leases": {
        "kind": ("all", "the rule is for leases of this kind: `session`, `job` or `debug`"),
        "group": ("all", "for users of this group"),
        "size": ("all", "for sessions of this size of the spawn form"),
        "gpus": ("all", "for leases with at least so many GPUs, shares counted"),
        "default": ("", "length without a wish; what a rule leaves out stays as it was"),
        "longest": ("", "the longest that may be asked for"),
        "renewal": ("", "a renewal moves the end to this from now"),
        "renewals": ("", "how often a lease may be renewed"),
        "latest_end": ("", "latest end after the start"),
        "warnings": ("", "how long before the end people are warned, a list"),
        "idle": ("", "time without activity after which a lease ends, or `never`"),
        "idle_warning": ("10m", "how long before that people are warned; at most half of `idle`"),
        "idle_ends": ("true", "`false`: people are only told; the default of debug gangs"),
        "activity": ("all", "the signals that count, a list"),
        "cpu_busy": ("0.05", "share of a core from which on CPUs count as busy"),
        "gpu_busy": ("0.05", "share of a GPU from which on GPUs count as busy"),
    },
}

SCOPES = {
    Scope.READ: "see one's own leases, jobs and logs, and what hosts there are",
    Scope.USE: "hold leases and run jobs; includes reading",
    Scope.ADMIN: "all of it for everybody; includes the others",
}


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {
        "configuration.md": configuration(),
        "reference.md": reference(),
        "magics.md": magics(),
    }


def magics() -> str:
    """Return the page about magics with the help of each at its end."""
    written, _, _ = (DOCS / "magics.md").read_text().partition("\n### ")
    return written + "".join(
        f"\n### `%{magic.name}`\n\n```text\n{magic.help()}\n```\n" for magic in MAGICS
    )


def configuration() -> str:
    """Return the page about settings."""
    return "\n".join(
        (
            "# Configuration",
            "",
            "Settings are Python, in a file of your own that `nimbus-hub up --config my.py` loads",
            "on top of the embedded hub's `jupyterhub_config.py`; hub and service read the same",
            "file. Durations are written `90s`, `10m`, `2h`, `1d`, sizes `512M`, `4G`.",
            "",
            "```python",
            'c.NimbusHub.default_length = "4h"',
            'c.NimbusHub.cluster_file = "/etc/nimbus/cluster.yaml"',
            'c.NimbusSpawner.patience = "30m"',
            "```",
            "",
            "The service alone takes its settings as options too, which win over the file:",
            "`nimbus-hub serve --NimbusHub.default_length=4h`. A wrong value is refused at the",
            "start with the setting's name. All of JupyterHub's own settings remain",
            "(`c.JupyterHub`, `c.Spawner`, `c.Authenticator`).",
            *(line for cls, title in SETTINGS.items() for line in settings(cls, title)),
            *cluster_file(),
            "",
        )
    )


def settings(cls: type[Configurable], title: str) -> Iterable[str]:
    """Yield the section about a class's own settings."""
    yield from ("", f"## {title}: `c.{cls.__name__}`", "")
    traits = sorted(own_traits(cls).items())
    rows = [(f"`{name}`", default_text(trait), sentence(trait.help)) for name, trait in traits]
    yield from table(("Setting", "Default", "Meaning"), rows)


def own_traits(cls: type[Configurable]) -> dict[str, Any]:
    """Return a class's own settings, and those of its bases of ours that have no section."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("nimbus_")]
    found: dict[str, Any] = {}
    for base in bases:
        if base is cls or (issubclass(base, Configurable) and base not in SETTINGS):
            found |= base.class_own_traits(config=True)
    return found


def default_text(trait: Any) -> str:
    """Return a setting's default as one would write it, and its lower bound."""
    least = getattr(trait, "min", None)
    bound = "" if least in (None, float("-inf")) else f", at least {least:g}"
    value = trait.default()
    return (f"`{value!r}`" if value not in ("", None) else "empty") + bound


def sentence(text: str) -> str:
    """Return a help text as a table's cell."""
    return " ".join(text.split()).rstrip(".").replace("|", "\\|")


def cluster_file() -> Iterable[str]:
    """Yield the section about the cluster file."""
    yield from (
        "",
        "## The cluster file",
        "",
        "`c.NimbusHub.cluster_file` names a YAML file that declares hosts, sites, quotas and",
        "rules; [the cluster file](cluster.md) explains it by example. Without it this machine is",
        "the only host, with what is found on it.",
        "",
        "```yaml",
        CLUSTER_EXAMPLE.rstrip(),
        "```",
    )
    for part, keys in CLUSTER_KEYS.items():
        rows = [
            (f"`{key}`", f"`{default}`" if default else "", meaning)
            for key, (default, meaning) in keys.items()
        ]
        yield from ("", f"### Keys of `{part}`" if part else "### Keys", "")
        yield from table(("Key", "Default", "Meaning"), rows)


def reference() -> str:
    """Return the page about what programs meet."""
    return "\n".join(
        (
            "# Reference",
            "",
            "The REST API is below `/services/nimbus` of the hub; [openapi.json](openapi.json)",
            "describes it in full and is served at `/services/nimbus/openapi.json`. Send",
            "`Authorization: token T` with a token of the hub (its page `/hub/token` makes one).",
            *scopes(),
            *operations(),
            *errors(),
            *metrics(),
            "",
        )
    )


def scopes() -> Iterable[str]:
    """Yield the section about scopes."""
    yield from ("", "## Scopes", "")
    rows = [(f"`{scope.hub_scope}`", SCOPES[scope]) for scope in Scope]
    yield from table(("Scope", "Allows to"), rows)
    yield from (
        "",
        "Users hold the first two for what is their own (`!user`). What no scope allows is",
        "refused; another user's object is not found. A job's replicas have a token",
        "(`NIMBUS_TOKEN`) that reaches this job alone and ends with it.",
    )


def operations() -> Iterable[str]:
    """Yield the section about paths and verbs."""
    yield from ("", "## Operations", "")
    rows = [
        (f"`{verb.upper()} {path}`", operation.summary, needs(operation))
        for path, handler in ROUTES.items()
        for verb, operation in handler.operations.items()
    ]
    yield from table(("Operation", "Does", "Needs"), rows)


def needs(operation: Operation) -> str:
    """Return who may do it."""
    if operation.scope is None:
        return "nothing: open to all"
    return f"{operation.scope}" + (", or the job's token" if operation.for_jobs else "")


def errors() -> Iterable[str]:
    """Yield the section about error codes."""
    yield from (
        "",
        "## Errors",
        "",
        'An error is `{"code": ..., "message": ...}`: the code is stable, the message a sentence',
        "for people. `nimbus_hub.client` raises the class of the code.",
        "",
    )
    rows = [
        (f"`{code}`", str(status_of(cls(""))), f"`{cls.__name__}`", sentence(cls.__doc__ or ""))
        for code, cls in sorted(error_classes().items())
        if cls is not NimbusError
    ]
    rows.append(("`error`", "500", "`NimbusError`", "The service failed; its log says why"))
    yield from table(("Code", "Status", "Class", "When"), rows)


def metrics() -> Iterable[str]:
    """Yield the section about metrics."""
    yield from (
        "",
        "## Metrics",
        "",
        "At `/services/nimbus/metrics`, for Prometheus:",
        "",
    )
    rows = [
        (f"`{exposed(family)}`", family.type, sentence(family.documentation))
        for family in Metrics().registry.collect()
    ]
    yield from table(("Name", "Kind", "Meaning"), rows)


def exposed(family: Metric) -> str:
    """Return a metric's name as it is scraped."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Yield a table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    for file, text in pages().items():
        (DOCS / file).write_text(text, encoding="utf-8")
