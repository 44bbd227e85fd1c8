"""What an operator may say of the service, with the usual values: the traits of `NimbusHub`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from nimbus_hub.control.settings import (
    NEVER,
    SIZES,
    debug_policy,
    read_sizes,
    read_timeout,
    read_warnings,
)
from nimbus_hub.errors import NimbusError
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeasePolicy, LeaseRule
from nimbus_hub.model.quantities import parse_duration
from nimbus_hub.notifiers.registry import read_notifiers

__all__ = ["ServiceSettings"]

_READERS: dict[str, Callable[[Any], object]] = {
    "sizes": read_sizes,
    "warnings": read_warnings,
    "idle_time": read_timeout,
    "stall_time": read_timeout,
    "keep_jobs": read_timeout,
    "notifiers": read_notifiers,
}
"""How settings are read that are no durations."""


class ServiceSettings(Configurable):
    """The settings of the service, read."""

    config_file = Unicode("", help="A Python file that sets c.NimbusHub.*").tag(config=True)
    state_dir = Unicode(
        ".nimbus", help="Directory of the database, secrets, records and snapshots"
    ).tag(config=True)
    database_url = Unicode(
        "", help="Database as an SQLAlchemy URL; by default SQLite in the state directory"
    ).tag(config=True)
    cluster_file = Unicode(
        "",
        help="YAML file that declares hosts, sites, quotas and rules, read again when it changes; "
        "without it this machine is the only host",
    ).tag(config=True)
    environments = Dict(
        {},
        help="Software that sessions and jobs run in: name to {'bin': directory of its programs, "
        "'image': its image on Docker hosts, 'description': text}; by default the service's own, "
        "named 'default'",
    ).tag(config=True)
    containers = Dict(
        {},
        help="What all containers of jobs have: 'user' ('1000:1000'), 'storage' of all hosts "
        "('jobs', 'homes', 'service_path'), 'mounts' (a list of {'source', 'target', "
        "'read_only'}; {owner} is the owner), 'read_only' (environments whose "
        "root cannot be written), 'ulimits', 'registries' (name to {'username', 'password'})",
    ).tag(config=True)
    sizes = List(
        [dict(size) for size in SIZES],
        help="Choices of the spawn form: a list of {'name': text, 'cpus': number, 'memory': size, "
        "'gpus': number or left out}; the first is that of a session without a choice",
    ).tag(config=True)
    warnings = List(
        ["15m", "5m", "1m"], help="How long before a session's end its user is warned"
    ).tag(config=True)
    notifiers = Dict(
        {}, help="How notices reach people: name of a notifier, smtp or webhook, to its settings"
    ).tag(config=True)
    cpu_overcommit = Float(
        2.0, min=1.0, help="CPUs to lease for each core of this machine; notebooks mostly idle"
    ).tag(config=True)
    snapshot_limit = Unicode("500M", help="Largest working directory of a job").tag(config=True)
    default_length = Unicode("2h", help="Length of a session's lease").tag(config=True)
    longest_length = Unicode("12h", help="Longest a session may be asked for").tag(config=True)
    renewal = Unicode("2h", help="A renewal moves the end to this from now").tag(config=True)
    renewals = Int(100, min=0, help="How often a lease may be renewed").tag(config=True)
    latest_end = Unicode("12h", help="Latest end of a session after its start").tag(config=True)
    job_length = Unicode("1d", help="Length of a job's lease").tag(config=True)
    longest_job = Unicode("7d", help="Longest a job's lease may be asked for or renewed to").tag(
        config=True
    )
    debug_length = Unicode("1h", help="Length of a debug gang's lease").tag(config=True)
    longest_debug = Unicode(
        "8h", help="Longest a debug gang's lease may be asked for or renewed to"
    ).tag(config=True)
    idle_time = Unicode(
        NEVER, help="A session in which nothing happened for this time is ended, or 'never'"
    ).tag(config=True)
    save_time = Unicode("10s", help="How long an ending session may save its documents").tag(
        config=True
    )
    stop_grace = Unicode("10s", help="From asking a replica to end until it is killed").tag(
        config=True
    )
    host_patience = Unicode(
        "2m", help="How long a host may be down before the leases on it are given up as lost"
    ).tag(config=True)
    measure_time = Unicode("10s", help="How often the use of CPUs and GPUs is measured").tag(
        config=True
    )
    start_time = Unicode("5m", help="How long a granted session or gang may take to start").tag(
        config=True
    )
    sweep_time = Unicode(
        "20s", help="How often sessions are compared with the hub's servers and with containers"
    ).tag(config=True)
    stall_time = Unicode(
        "1h",
        help="A job of several replicas that gives no sign of life for this time is ended as "
        "stalled, or 'never'; `--stall` says otherwise, and for jobs of one replica",
    ).tag(config=True)
    keep_jobs = Unicode(
        "never",
        help="After what time files and output of ended jobs are deleted, like '30d', or 'never'; "
        "what became of a job stays known",
    ).tag(config=True)
    trust_token_cache = Bool(
        True, help="Keep the hub's answer about a token for a minute; otherwise for a second"
    ).tag(config=True)

    @validate(
        "default_length",
        "longest_length",
        "renewal",
        "latest_end",
        "job_length",
        "longest_job",
        "debug_length",
        "longest_debug",
        "idle_time",
        "save_time",
        "stop_grace",
        "start_time",
        "measure_time",
        "sweep_time",
        "stall_time",
        "keep_jobs",
        "host_patience",
        "sizes",
        "warnings",
        "notifiers",
    )
    def _readable(self, proposal: Any) -> Any:
        try:
            _READERS.get(proposal.trait.name, parse_duration)(proposal.value)
        except NimbusError as error:
            raise TraitError(f"NimbusHub.{proposal.trait.name}: {error.message}") from error
        return proposal.value

    def named_environments(self) -> dict[str, dict[str, str]]:
        """Return the environments, the service's own if none were named."""
        own = {
            "bin": str(Path(sys.executable).parent),
            "description": f"Python {sys.version_info.major}.{sys.version_info.minor} of the hub",
        }
        return dict(self.environments) or {"default": own}

    def policies(self) -> dict[LeaseKind, LeasePolicy]:
        """Return what is said of leases by their kind, where the cluster file says no other."""
        sets = {"idle": read_timeout(self.idle_time)}
        session = LeaseRule(sets=sets).applied_to(self._session_policy())
        length = parse_duration(self.job_length)
        longest = parse_duration(self.longest_job)
        job = LeasePolicy(length, longest, length, self.renewals, longest, (timedelta(minutes=15),))
        debug = debug_policy(
            parse_duration(self.debug_length), parse_duration(self.longest_debug), self.renewals
        )
        return {LeaseKind.SESSION: session, LeaseKind.JOB: job, LeaseKind.DEBUG: debug}

    def _session_policy(self) -> LeasePolicy:
        return LeasePolicy(
            default=parse_duration(self.default_length),
            longest=parse_duration(self.longest_length),
            renewal=parse_duration(self.renewal),
            renewals=self.renewals,
            latest_end=parse_duration(self.latest_end),
            warnings=read_warnings(self.warnings),
        )
