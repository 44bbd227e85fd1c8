"""Full disks: a host that has no space left takes nothing new until it has some again.

All starts on such a host fail at once. It would stay free, and be given to one after the other.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace

from nimbus_hub.errors import NimbusError
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.host import Host, HostState

__all__ = ["Disks", "is_full"]

log = logging.getLogger(__name__)

PROBE_BYTES = 16 * 2**20
"""What must fit on a disk that was full."""
PROBE_SECONDS = 10.0

_FULL = "no space left on device"
_REASON = "its disk is full: make room there, as with docker system prune"
_PROBE = "nimbus-probe"


def is_full(words: str) -> bool:
    """Tell whether an engine says that its disk is full."""
    return _FULL in words


class Disks:
    """Knows whose disks are full, and tries again and again whether something can be written."""

    def __init__(self) -> None:
        """Begin with none; ``on_change`` is called when one is full, or not any more."""
        self.on_change: Callable[[], None] = lambda: None
        self._probes: dict[str, asyncio.Task[None]] = {}

    def note_full(self, client: EngineClient) -> None:
        """Note that a host's disk is full."""
        host = client.engine.host
        if host not in self._probes:
            log.warning("host %s: %s", host, _REASON)
            self._probes[host] = asyncio.create_task(self._probe(client))
            self.on_change()

    def marked(self, host: Host) -> Host:
        """Return a host as it stands."""
        if host.name not in self._probes or host.state is not HostState.READY:
            return host
        return replace(host, state=HostState.DRAINING, state_reason=_REASON)

    async def close(self) -> None:
        """Try no more."""
        for task in self._probes.values():
            task.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)

    async def _probe(self, client: EngineClient) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await client.carry(_write, client)
            except NimbusError as error:
                log.info("host %s: %s", client.engine.host, error)
            else:
                break
        log.info("host %s has space again", client.engine.host)
        del self._probes[client.engine.host]
        self.on_change()


def _write(client: EngineClient) -> None:
    """Make an image that nobody needs, and remove it: that takes no other image. Blocks."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        member = tarfile.TarInfo("noise")
        member.size = PROBE_BYTES
        file.addfile(member, io.BytesIO(os.urandom(PROBE_BYTES)))
    client.make_image(_PROBE, archive.getvalue())
    client.use(lambda sdk: sdk.remove_image(_PROBE))
