"""The API from Python: one method per call, resources in and out.

A Client may be used from several threads. ``close`` it, or use it as a context manager.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from nimbus_hub.client import environment
from nimbus_hub.client.cluster import ClusterCalls
from nimbus_hub.client.decoding import decode, decode_items
from nimbus_hub.client.files import FileCalls, Progress
from nimbus_hub.client.follow import PATIENCE_SECONDS, follow
from nimbus_hub.client.http import Http
from nimbus_hub.client.requests import GangRequest, GroupRequest, JobRequest, WishesRequest
from nimbus_hub.client.resources import (
    ActivityTerms,
    Gang,
    Health,
    Job,
    Lease,
    LeaseWarning,
    LogText,
    Plan,
    Snapshot,
)
from nimbus_hub.client.snapshot import Manifest, scan
from nimbus_hub.client.transport import Transport, Wait
from nimbus_hub.errors import Conflict, Unavailable

__all__ = ["Client", "Progress"]

_API = "/api/v1"


class Client(ClusterCalls, FileCalls):
    """Talks to the Nimbus service at ``url`` (with /services/nimbus) with a hub's token."""

    def __init__(
        self,
        url: str,
        token: str,
        http: Http | None = None,
        wait: Wait | None = None,
    ) -> None:
        self.transport = Transport(url, token, http, wait)

    @classmethod
    def from_environment(cls) -> Self:
        """Return a client for the session or job this runs in."""
        return cls(*environment.address_and_token())

    @property
    def url(self) -> str:
        """Return the address of the service."""
        return self.transport.url

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        """Return this client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    # The service

    def health(self) -> Health:
        """Return whether the service works, and its version."""
        return decode(Health, self._get("/health"))

    def queue(self) -> tuple[Lease, ...]:
        """Return the leases that wait, in their order."""
        return decode_items(Lease, self._get(f"{_API}/queue"))

    # Leases

    def leases(
        self,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        owner: str | None = None,
        limit: int | None = None,
    ) -> tuple[Lease, ...]:
        """Return leases, newest first; ``state`` is live, ended or all."""
        params = {"state": state, "kind": kind, "name": name, "owner": owner, "limit": limit}
        return decode_items(Lease, self._get(f"{_API}/leases", params))

    def lease(self, lease_id: str, after: int | None = None, timeout: float | None = None) -> Lease:
        """Return a lease; with ``after`` wait for a later version, ``timeout`` seconds at most."""
        return decode(Lease, self._get_after(f"{_API}/leases/{lease_id}", after, timeout))

    def request_lease(
        self,
        *,
        groups: Sequence[GroupRequest],
        kind: str = "session",
        name: str = "",
        owner: str | None = None,
        environment: str = "default",
        duration: str | int | None = None,
        wait: str | int | None = None,
        wishes: WishesRequest | None = None,
    ) -> Lease:
        """Ask for a lease; it may have to wait in the queue."""
        body = {
            "kind": kind,
            "name": name,
            "owner": owner,
            "groups": [group.body() for group in groups],
            "environment": environment,
            "duration": duration,
            "wait": wait,
            **(wishes or WishesRequest()).body(),
        }
        return decode(Lease, self._post(f"{_API}/leases", body))

    def activate(self, lease_id: str) -> Lease:
        """Say that the session of a lease is ready (spawner only)."""
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/activate", {}))

    def renew(self, lease_id: str, duration: str | int | None = None) -> Lease:
        """Move the end of a lease to ``duration`` from now (None: the policy's step)."""
        body = {"duration": duration}
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/renew", body))

    def keep(self, lease_id: str) -> Lease:
        """Say that an idle lease is wanted: its idleness begins anew, its end stays."""
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/keep", {}))

    def report_activity(self, lease_id: str, activity: Mapping[str, object]) -> ActivityTerms:
        """Say what was measured in a session; fields as the API's ActivityRequest has them."""
        return decode(ActivityTerms, self._post(f"{_API}/leases/{lease_id}/activity", activity))

    def release(self, lease_id: str, reason: str = "", is_stopped: bool = False) -> Lease:
        """Give a lease back; ``is_stopped`` says that its process is gone already."""
        body = {"reason": reason, "is_stopped": is_stopped}
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/release", body))

    def saving(self, lease_id: str, seconds: float) -> Lease:
        """Say that the before-reclaim script of an ending session runs, so long at most."""
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/saving", {"seconds": seconds}))

    def saved(self, lease_id: str, opened: Sequence[str] = ()) -> Lease:
        """Say that all documents are saved, and which were open: the end need not wait for them."""
        body = {"part": "documents", "opened": list(opened)}
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/saved", body))

    def script_ended(self, lease_id: str, outcome: str) -> Lease:
        """Say what became of the before-reclaim script: the end need not wait for it."""
        body = {"part": "script", "outcome": outcome}
        return decode(Lease, self._post(f"{_API}/leases/{lease_id}/saved", body))

    # Debug gangs

    def request_gang(self, request: GangRequest) -> Gang:
        """Ask for a debug gang; it may have to wait in the queue.

        It is renewed and given back by its lease, with ``renew`` and ``release``.
        """
        request.check()
        return decode(Gang, self._post(f"{_API}/gangs", request.body()))

    def gangs(
        self, session: str | None = None, state: str = "live", owner: str | None = None
    ) -> tuple[Gang, ...]:
        """Return debug gangs, newest first, of all or of the session with this lease.

        ``state`` is live, ended or all.
        """
        params = {"session": session, "state": state, "owner": owner}
        return decode_items(Gang, self._get(f"{_API}/gangs", params))

    def gang(self, lease_id: str, after: int | None = None, timeout: float = 20.0) -> Gang:
        """Return a gang; with ``after`` wait for a later version, ``timeout`` seconds at most."""
        return decode(Gang, self._get_after(f"{_API}/gangs/{lease_id}", after, timeout))

    # Jobs

    def plan(self, request: JobRequest) -> Plan:
        """Return where a job would run, or why it would wait; nothing is started."""
        request.check()
        return decode(Plan, self._post(f"{_API}/jobs", request.body(), {"dry_run": "true"}))

    def submit(self, request: JobRequest) -> Job:
        """Start a job."""
        request.check()
        return decode(Job, self._post(f"{_API}/jobs", request.body()))

    def jobs(
        self, state: str | None = None, limit: int | None = None, gang: str | None = None
    ) -> tuple[Job, ...]:
        """Return jobs, newest first; ``state`` is live, ended or all.

        With the lease of a ``gang``, only the runs on it.
        """
        params = {"state": state, "limit": limit, "gang": gang}
        return decode_items(Job, self._get(f"{_API}/jobs", params))

    def job(self, job_id: str, after: int | None = None, timeout: float | None = None) -> Job:
        """Return a job; with ``after`` wait for a later version, ``timeout`` seconds at most."""
        return decode(Job, self._get_after(f"{_API}/jobs/{job_id}", after, timeout))

    def stop(self, job_id: str, reason: str = "") -> Job:
        """Stop a job."""
        return decode(Job, self._post(f"{_API}/jobs/{job_id}/stop", {"reason": reason}))

    def delete(self, job_id: str) -> Job:
        """Have the files and output of an ended job deleted; its record stays."""
        return decode(Job, self.transport.request("DELETE", f"{_API}/jobs/{job_id}"))

    def write_input(self, job_id: str, replica: str, text: str) -> Job:
        """Write to the standard input of a replica, like ``worker-0``; an empty text is its end."""
        body = {"replica": replica, "text": text}
        return decode(Job, self._post(f"{_API}/jobs/{job_id}/input", body))

    def report_progress(self, job_id: str, fraction: float, message: str = "") -> Job:
        """Say how far a job is; the job's own token may."""
        body = {"fraction": fraction, "message": message}
        return decode(Job, self._post(f"{_API}/jobs/{job_id}/progress", body))

    # Output

    def logs(
        self,
        job_id: str,
        replica: str | None = None,
        tail: int | None = None,
        offset: int = 0,
        attempt: int | None = None,
        limit: int | None = None,
    ) -> tuple[LogText, ...]:
        """Return a piece of the output of each replica asked for.

        Go on with its ``next_offset``. ``tail`` lines, or a negative offset, count from the end.
        """
        params = {
            "replica": replica,
            "tail": tail,
            "offset": offset if tail is None else None,
            "attempt": attempt,
            "limit": limit,
        }
        return decode_items(LogText, self._get(f"{_API}/jobs/{job_id}/logs", params))

    def whole_logs(
        self,
        job_id: str,
        replica: str | None = None,
        tail: int | None = None,
        attempt: int | None = None,
    ) -> Iterator[LogText]:
        """Yield all output there is now, replica after replica, piece by piece."""
        for piece in self.logs(job_id, replica, tail=tail, attempt=attempt):
            log = piece
            while log.next_offset > log.offset:
                yield log
                found = self.logs(job_id, log.replica, offset=log.next_offset, attempt=log.attempt)
                if not found:
                    break
                log = found[0]

    def follow(
        self, job_id: str, tail: int | None = None, replica: str | None = None
    ) -> Iterator[LogText | Job]:
        """Yield output and changes of a job as they come; the last item is the ended job.

        A restart of the service in the middle is not noticed but for the delay.
        """
        return follow(self, job_id, tail, replica)

    def events(self) -> Iterator[Lease | Job | LeaseWarning]:
        """Yield changes of the caller's leases and jobs, and warnings, for ever."""
        patience = self.transport.patience(PATIENCE_SECONDS)
        last_id = ""
        while True:
            try:
                for message in self.transport.stream(f"{_API}/events", last_id=last_id):
                    patience = self.transport.patience(PATIENCE_SECONDS)
                    last_id = message.id or last_id
                    if message.event in _EVENTS:
                        yield decode(_EVENTS[message.event], json.loads(message.data))
                patience.wait(Unavailable(f"the service at {self.url} sends no events"))
            except Unavailable as error:
                patience.wait(error)

    # Snapshots

    def upload(
        self,
        directory: Path | str | Manifest,
        extra: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Keep a working directory on the service and return its digest for ``JobRequest``.

        Only files that the service does not have yet are sent. ``extra`` are files by path
        that are added to those of the directory, or go before them.
        """
        if isinstance(directory, Manifest):
            manifest = directory
        else:
            cache = environment.cache_directory()
            manifest = scan(Path(directory), extra=extra, cache=cache)
        path = f"{_API}/snapshots"
        snapshot = decode(Snapshot, self._post(path, manifest.body()))
        if not snapshot.missing:
            return snapshot.digest
        # Imported here: mostly nothing is missing, and archives take long to import.
        from nimbus_hub.client.archive import tar_chunks, tar_size

        size = tar_size(manifest, snapshot.missing)
        chunks = _counted(tar_chunks(manifest, snapshot.missing), size, progress)
        self.transport.upload(f"{path}/files", chunks, size, "application/x-tar")
        snapshot = decode(Snapshot, self._post(path, manifest.body()))
        if snapshot.missing:
            raise Conflict("the working directory changed while it was uploaded; run it again")
        return snapshot.digest

    def _get(self, path: str, params: Mapping[str, str | int | None] | None = None) -> Any:
        return self.transport.request("GET", path, params=params)

    def _get_after(self, path: str, after: int | None, timeout: float | None) -> Any:
        if after is None:
            return self._get(path)
        seconds = 30.0 if timeout is None else timeout
        return self.transport.request(
            "GET",
            path,
            params={"after": after, "timeout": seconds},
            patience_seconds=60.0,
            answer_seconds=seconds + 30,
        )

    def _post(self, path: str, body: object, params: Mapping[str, str] | None = None) -> Any:
        return self.transport.request("POST", path, params=params, body=body)


_EVENTS: dict[str, type[Lease] | type[Job] | type[LeaseWarning]] = {
    "lease": Lease,
    "job": Job,
    "warning": LeaseWarning,
}


def _counted(chunks: Iterator[bytes], size: int, progress: Progress | None) -> Iterator[bytes]:
    """Tell ``progress`` about each chunk as it goes out."""
    sent = 0
    for chunk in chunks:
        yield chunk
        sent += len(chunk)
        if progress is not None:
            progress(sent, size)
