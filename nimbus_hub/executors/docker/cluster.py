"""The engines of a cluster: those that its file names, and the nodes of its Swarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nimbus_hub.executors.docker.hosts import HostFinder
from nimbus_hub.executors.docker.images import Credentials
from nimbus_hub.executors.docker.swarm import Swarms
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.engine import Engine, Swarm

__all__ = ["ClusterEngines"]


class ClusterEngines:
    """Tells the engines of a cluster as it changes, and when to look at their hosts again."""

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        image: str = "",
        credentials: Mapping[str, Credentials] | None = None,
    ) -> None:
        """Read ``cluster`` again and again; GPUs are asked for in containers of ``image``."""
        self._cluster = cluster
        self._swarms = Swarms(lambda: cluster().swarms, lambda: self.find_hosts.note_change())
        self._asked: tuple[Swarm, ...] = ()
        self.find_hosts = HostFinder(image, self._swarms, credentials)

    def __call__(self) -> tuple[Engine, ...]:
        """Return the engines there are, by what was told last."""
        return (*self._cluster().engines, *self._swarms.engines())

    async def prepare(self) -> None:
        """Ask Swarms that are new for their nodes, before anybody asks for hosts."""
        swarms = self._cluster().swarms
        if swarms != self._asked:
            self._asked = swarms
            await self._swarms.refresh()

    async def changed(self) -> None:
        """Wait until hosts may be others, or stand otherwise."""
        await self.find_hosts.changed()
        await self.prepare()

    def note_change(self) -> None:
        """Tell that the cluster's file has changed."""
        self.find_hosts.note_change()

    async def close(self) -> None:
        """Follow none any more."""
        self.find_hosts.close()
        await self._swarms.close()
