"""Hosts as the service finds them: asked again whenever something changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from nimbus_hub.executors.docker.engine import Engines
from nimbus_hub.executors.docker.hosts import HostFinder
from nimbus_hub.executors.docker.swarm import Swarms
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Host

__all__ = ["Finding", "finding"]


class Finding:
    """Engines, Swarms and who finds their hosts."""

    def __init__(
        self, engines: Sequence[Engine] = (), swarms: Sequence[Swarm] = (), image: str = ""
    ) -> None:
        self.engines = list(engines)
        self.swarms = Swarms(lambda: swarms, lambda: self.finder.note_change())
        self.finder = HostFinder(image, self.swarms)
        self.clients = Engines(lambda: [*self.engines, *self.swarms.engines()])

    async def hosts(self) -> dict[str, Host]:
        """Return all hosts by name."""
        return {host.name: host for host in await self.finder(self.clients.all())}

    async def until(self, is_so: Callable[[dict[str, Host]], bool], seconds: float) -> float:
        """Wait until hosts are so, looking only when told to; return how long it took."""
        began = time.monotonic()
        while not is_so(found := await self.hosts()):
            left = seconds - (time.monotonic() - began)
            assert left > 0, f"not within {seconds:g} s: {found}"
            try:
                await asyncio.wait_for(self.finder.changed(), left)
            except TimeoutError:
                raise AssertionError(f"nothing was told within {seconds:g} s: {found}") from None
        return time.monotonic() - began


@asynccontextmanager
async def finding(
    engines: Sequence[Engine] = (), swarms: Sequence[Swarm] = (), image: str = ""
) -> AsyncIterator[Finding]:
    """Give hosts that are followed."""
    made = Finding(engines, swarms, image)
    await made.swarms.refresh()
    try:
        yield made
    finally:
        made.finder.close()
        await made.swarms.close()
        made.clients.close()
