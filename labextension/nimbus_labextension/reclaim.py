"""The end of the session as its own server sees it, with or without a browser.

A thread watches the lease. When its end is asked for, the user's before-reclaim script runs,
the service waits for it, and hears what became of it. A service that restarts meanwhile has
forgotten that it waits, so it is told again and again.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Protocol

from nimbus_hub.client import Lease
from nimbus_hub.errors import Conflict, NimbusError, NotFound
from nimbus_labextension.script import LONGEST_SECONDS, Script

__all__ = ["Reclaim", "ReclaimClient"]

log = logging.getLogger(__name__)

_LONG_POLL_SECONDS = 30.0
_PAUSE_SECONDS = 5.0
_TELL_AGAIN_SECONDS = 3.0


class ReclaimClient(Protocol):
    """What this needs of ``nimbus_hub.client.Client``; it blocks."""

    def lease(
        self, lease_id: str, /, after: int | None = None, timeout: float | None = None
    ) -> Lease:
        """Return the lease; with ``after`` wait for a later version."""

    def saving(self, lease_id: str, /, seconds: float) -> Lease:
        """Tell that the script runs."""

    def script_ended(self, lease_id: str, /, outcome: str) -> Lease:
        """Tell what became of the script."""


class Reclaim:
    """Runs the script of a session at its end."""

    def __init__(self, lease_id: str, client: ReclaimClient, script: Script | None = None) -> None:
        self._lease_id = lease_id
        self._client = client
        self._script = script or Script()
        self._turn = threading.Lock()
        self._is_announced = False
        self._is_over = threading.Event()

    def start(self) -> None:
        """Watch from now on; the thread does not keep the server from ending."""
        threading.Thread(target=self.watch, name="nimbus-reclaim", daemon=True).start()

    def watch(self) -> None:
        """Wait for the end of the lease, then run the script."""
        version: int | None = None
        while True:
            try:
                lease = self._client.lease(
                    self._lease_id, after=version, timeout=_LONG_POLL_SECONDS
                )
            except NotFound:
                return
            except NimbusError as error:
                log.info("lease %s is not seen: %s", self._lease_id, error.message)
                self._is_over.wait(_PAUSE_SECONDS)
                continue
            if lease.state == "expiring":
                self.end(lease)
            if lease.is_ended or lease.state == "expiring":
                return
            version = lease.version

    def announce(self) -> None:
        """Have the service wait for the script, if there is one.

        Whoever tells that documents are saved does this first: it must not cut the script off.
        """
        with self._turn:
            if not self._is_announced and self._script.is_there:
                self._is_announced = self._tell()

    def end(self, lease: Lease) -> None:
        """Run the script of a lease that ends, if there is one."""
        if not self._script.is_there:
            return
        self.announce()
        telling = threading.Thread(target=self._tell_again, daemon=True)
        telling.start()
        ends_at = lease.now + timedelta(seconds=LONGEST_SECONDS)
        variables = {
            "NIMBUS_LEASE_ID": lease.id,
            "NIMBUS_REASON": lease.reason,
            "NIMBUS_ENDS_AT": ends_at.isoformat(timespec="seconds"),
        }
        try:
            outcome = self._script.run(variables, f"lease {lease.id}: {lease.reason}")
        except OSError as error:
            outcome = f"could not be started ({error})"
        self._is_over.set()
        telling.join()
        log.info("before-reclaim: %s", outcome)
        try:
            self._client.script_ended(self._lease_id, outcome)
        except NimbusError as error:
            log.warning("the service was not told of before-reclaim: %s", error.message)

    def _tell_again(self) -> None:
        while not self._is_over.wait(_TELL_AGAIN_SECONDS):
            self._tell()

    def _tell(self) -> bool:
        """Tell that the script runs; return whether that was heard."""
        try:
            self._client.saving(self._lease_id, LONGEST_SECONDS)
        except Conflict:
            return False  # It does not end, or has ended.
        except NimbusError as error:
            log.warning("the service does not wait for before-reclaim: %s", error.message)
            return False
        return True
