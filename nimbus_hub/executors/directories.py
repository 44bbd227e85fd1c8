"""Job directories: ``nimbus/JOB/{work,output,logs,checkpoints}`` in the owner's home.

They are made once for a job and kept over its attempts. The working directory is the
snapshot, unpacked beside it and renamed, so it is there whole or not at all; or it is a link
to that of a workspace, ``nimbus/WORKSPACE/work``, of which only what changed is replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.accounts import Account
from nimbus_hub.executors.records import checked_id
from nimbus_hub.model.snapshot import SnapshotFile
from nimbus_hub.replica import directories

__all__ = ["JobDirectories", "Snapshots"]

_NAMES = (*directories.NAMES, "work")
_COPY_SECONDS = 300.0


class Snapshots(Protocol):
    """Where the files of owners' snapshots come from; the calls block."""

    def files(self, owner: str, digest: str) -> Sequence[SnapshotFile]:
        """Return the files of a snapshot."""
        ...

    def unpack(
        self, owner: str, digest: str, target: Path, some: Iterable[SnapshotFile] | None = None
    ) -> None:
        """Put a snapshot, or some of its files, into a directory; may take long."""
        ...


class JobDirectories:
    """Makes them; the calls block, and only one at a time may be for a job or workspace."""

    def __init__(self, staging: Path, snapshots: Snapshots, service: Account, python: str) -> None:
        """Unpack for other accounts below ``staging``, which only the service may enter."""
        self._staging = staging
        self._snapshots = snapshots
        self._service = service
        self._python = python

    def prepare(
        self,
        account: Account,
        owner: str,
        job_id: str,
        snapshot: str | None,
        workspace: str | None = None,
    ) -> Path:
        """Return a job's directory, made if it is not there yet."""
        job = account.home / "nimbus" / checked_id(job_id)
        if all((job / name).is_dir() for name in _NAMES):
            return job
        if not account.home.is_dir():
            raise InvalidRequest(f"the account {account.name} has no home at {account.home}")
        is_own = account.uid == self._service.uid
        try:
            if workspace is not None:
                update = self._update_own if is_own else self._update_for
                update(account, owner, job_id, snapshot, checked_id(workspace))
            elif is_own:
                unpack = partial(self._unpack, owner, snapshot) if snapshot else None
                directories.make(str(job), unpack)
            else:
                self._make_for(account, owner, job_id, snapshot)
        except OSError as error:
            raise _impossible(str(error)) from error
        return job

    def _update_own(
        self, account: Account, owner: str, job_id: str, snapshot: str | None, workspace: str
    ) -> None:
        top = account.home / "nimbus"
        files = self._files(owner, snapshot)

        def fetch(paths: list[str], target: str) -> None:
            assert snapshot is not None
            assert files is not None
            some = [files[path] for path in paths]
            self._snapshots.unpack(owner, snapshot, Path(target), some)

        directories.update(str(top / workspace), _manifest(files), fetch)
        directories.make(str(top / job_id), None, workspace)

    def _update_for(
        self, account: Account, owner: str, job_id: str, snapshot: str | None, workspace: str
    ) -> None:
        """Let the account say what it needs, and unpack that where nobody else can reach."""
        files = self._files(owner, snapshot)
        with (
            self._staging_of(account) as staging,
            self._helper(account, job_id, staging, "workspace", workspace) as helper,
        ):
            assert helper.stdin is not None
            assert helper.stdout is not None
            helper.stdin.write(json.dumps(_manifest(files)) + "\n")
            helper.stdin.flush()
            answer = helper.stdout.readline()
            if answer:
                assert snapshot is not None
                assert files is not None
                some = [files[path] for path in json.loads(answer)]
                self._snapshots.unpack(owner, snapshot, staging, some)
                _give(staging, account)
                helper.stdin.write("\n")

    def _make_for(self, account: Account, owner: str, job_id: str, snapshot: str | None) -> None:
        """Unpack where nobody else can reach, then let the account itself take a copy."""
        with self._staging_of(account) as staging:
            if snapshot is not None:
                self._snapshots.unpack(owner, snapshot, staging)
                _give(staging, account)
            with self._helper(account, job_id, staging, *(["work"] if snapshot else [])):
                pass

    @contextmanager
    def _staging_of(self, account: Account) -> Iterator[Path]:
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._staging) as staging:
            _give(Path(staging), account)
            yield Path(staging)

    @contextmanager
    def _helper(
        self, account: Account, job_id: str, staging: Path, *arguments: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Run the program that works under the account, to its end; raise what it says."""
        groups = ",".join(map(str, account.groups))
        identity = [str(account.uid), str(account.gid), groups, str(account.home)]
        helper = subprocess.Popen(
            [self._python, "-I", "-S", directories.__file__, *identity, job_id, *arguments],
            cwd=staging,
            env={"LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        is_late = threading.Event()
        # A home may be a file system of its user's own making, which never answers.
        watch = threading.Timer(_COPY_SECONDS, _give_up, (helper, is_late))
        watch.start()
        problem = ""
        try:
            with suppress(BrokenPipeError):
                yield helper
            _, problem = helper.communicate()
        finally:
            watch.cancel()
            helper.kill()
            helper.communicate()
        if is_late.is_set():
            where = f"in {account.home} within {_COPY_SECONDS:.0f} s"
            raise InvalidRequest(f"the job's directories were not made {where}")
        if helper.returncode:
            words = problem.strip().splitlines() or [f"exit code {helper.returncode}"]
            raise _impossible(words[-1])

    def _files(self, owner: str, snapshot: str | None) -> dict[str, SnapshotFile] | None:
        if snapshot is None:
            return None
        return {file.path: file for file in self._snapshots.files(owner, snapshot)}

    def _unpack(self, owner: str, snapshot: str, target: str) -> None:
        Path(target).mkdir()
        self._snapshots.unpack(owner, snapshot, Path(target))


def _manifest(files: Mapping[str, SnapshotFile] | None) -> list[tuple[str, str, bool]] | None:
    if files is None:
        return None
    return [(file.path, file.digest, file.is_executable) for file in files.values()]


def _impossible(words: str) -> InvalidRequest:
    return InvalidRequest(f"the job's directories cannot be made: {words}")


def _give_up(helper: subprocess.Popen[str], is_late: threading.Event) -> None:
    is_late.set()
    helper.kill()


def _give(directory: Path, account: Account) -> None:
    """Make a tree the account's, links themselves and not what they point to."""
    os.chown(directory, account.uid, account.gid)
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            os.lchown(Path(folder) / name, account.uid, account.gid)
