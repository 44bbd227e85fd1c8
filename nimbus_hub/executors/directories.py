"""Job directories: ``nimbus/JOB/{work,output,logs,checkpoints}`` in the owner's home.

They are made once for a job and kept over its attempts. The working directory is the
snapshot, unpacked beside it and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.accounts import Account
from nimbus_hub.executors.records import checked_id
from nimbus_hub.replica import directories

__all__ = ["JobDirectories", "Unpack"]

Unpack = Callable[[str, str, Path], None]
"""Puts an owner's snapshot, named by its digest, into an empty directory; may take long."""

_NAMES = (*directories.NAMES, "work")
_COPY_SECONDS = 300.0


class JobDirectories:
    """Makes them; the calls block, and for one job only one may run at a time."""

    def __init__(self, staging: Path, unpack: Unpack, service: Account, python: str) -> None:
        """Unpack for other accounts below ``staging``, which only the service may enter."""
        self._staging = staging
        self._unpack = unpack
        self._service = service
        self._python = python

    def prepare(self, account: Account, owner: str, job_id: str, snapshot: str | None) -> Path:
        """Return a job's directory, made if it is not there yet."""
        job = account.home / "nimbus" / checked_id(job_id)
        if all((job / name).is_dir() for name in _NAMES):
            return job
        if not account.home.is_dir():
            raise InvalidRequest(f"the account {account.name} has no home at {account.home}")
        try:
            if account.uid == self._service.uid:
                self._make_own(job, owner, snapshot)
            else:
                self._make_for(account, owner, job_id, snapshot)
        except OSError as error:
            raise InvalidRequest(f"the job's directories cannot be made: {error}") from error
        return job

    def _make_own(self, job: Path, owner: str, snapshot: str | None) -> None:
        # Copies have plain modes: what was private in a home must not be open here.
        job.parent.mkdir(parents=True, exist_ok=True)
        job.mkdir(mode=0o700, exist_ok=True)
        for name in directories.NAMES:
            (job / name).mkdir(exist_ok=True)
        if (job / "work").is_dir():
            return
        partial = job / directories.PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if snapshot is not None:
            self._unpack(owner, snapshot, partial)
        partial.rename(job / "work")

    def _make_for(self, account: Account, owner: str, job_id: str, snapshot: str | None) -> None:
        """Unpack where nobody else can reach, then let the account itself take a copy."""
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._staging) as staging:
            if snapshot is not None:
                self._unpack(owner, snapshot, Path(staging))
            _give(Path(staging), account)
            self._run_as(account, job_id, Path(staging), has_work=snapshot is not None)

    def _run_as(self, account: Account, job_id: str, staging: Path, *, has_work: bool) -> None:
        groups = ",".join(map(str, account.groups))
        identity = [str(account.uid), str(account.gid), groups]
        command = [self._python, "-I", "-S", directories.__file__, *identity]
        command += [str(account.home), job_id, *(["work"] if has_work else [])]
        try:
            # A home may be a file system of its user's own making, which never answers.
            done = subprocess.run(
                command,
                cwd=staging,
                env={"LANG": "C.UTF-8"},
                capture_output=True,
                text=True,
                timeout=_COPY_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise InvalidRequest(
                f"the job's directories were not made in {account.home} "
                f"within {_COPY_SECONDS:.0f} s"
            ) from None
        if done.returncode:
            words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise InvalidRequest(f"the job's directories cannot be made: {words[-1]}")


def _give(directory: Path, account: Account) -> None:
    """Make a tree the account's, links themselves and not what they point to."""
    os.chown(directory, account.uid, account.gid)
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            os.lchown(Path(folder) / name, account.uid, account.gid)
