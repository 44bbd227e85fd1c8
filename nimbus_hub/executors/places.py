"""Places: the account, programs and directory that a replica gets on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.commands import supervisor_spec
from nimbus_hub.executors.directories import JobDirectories
from nimbus_hub.executors.limits import Limits, ReplicaLimits
from nimbus_hub.executors.records import Record, checked_id
from nimbus_hub.executors.supervisors import SUPERVISOR, WARM, spawn
from nimbus_hub.model.replica import ReplicaSpec

__all__ = ["Place", "Places"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica runs."""

    account: Account
    programs: Path
    directory: Path


@dataclass(frozen=True, slots=True)
class Places:
    """Makes them, and supervisors in them; the calls block."""

    accounts: Accounts
    environments: Mapping[str, Path]
    directories: JobDirectories
    limits: Limits

    def prepare(self, spec: ReplicaSpec) -> Place:
        """Find account and programs, and make the job's directories; a holder needs none."""
        account = self.accounts.find(spec.owner)
        if spec.environment not in self.environments:
            known = ", ".join(sorted(self.environments)) or "none"
            raise InvalidRequest(f"there is no environment {spec.environment!r}; known: {known}")
        if spec.modules is not None:
            directory = account.home / "nimbus" / checked_id(spec.job_id)
        else:
            directory = self.directories.prepare(
                account, spec.owner, spec.job_id, spec.snapshot, spec.workspace
            )
        return Place(account, self.environments[spec.environment], directory)

    def spawn(self, spec: ReplicaSpec, place: Place, record: Record) -> tuple[int, int]:
        """Start a supervisor; return its pid and what closes when the replica runs."""
        limits = self.limits.create(spec.id, spec.cpus_milli, spec.memory_bytes)
        self._write(spec, place, record, limits)
        return spawn(SUPERVISOR if spec.modules is None else WARM, record)

    def write(self, spec: ReplicaSpec, place: Place, record: Record, holder: Record) -> None:
        """Write for its holder what is to run within the holder's limits."""
        self._write(spec, place, record, holder.limits())

    def _write(
        self, spec: ReplicaSpec, place: Place, record: Record, limits: ReplicaLimits
    ) -> None:
        if spec.has_input:
            record.make_input()
        service = self.accounts.service
        record.write_spec(
            supervisor_spec(spec, service, place.account, place.programs, place.directory, limits)
        )
