"""The executors of a service: processes of its machine, and containers on Docker engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.directories import Snapshots
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.cluster import Cluster

if TYPE_CHECKING:
    from nimbus_hub.executors.docker.cluster import ClusterEngines
    from nimbus_hub.executors.docker.executor import DockerExecutor

__all__ = ["EXECUTOR_NAMES", "Executors"]

EXECUTOR_NAMES = ("local", "docker")
"""What hosts of the cluster file may name, in the order of :attr:`Executors.all`."""


class Executors:
    """Makes them, and has Docker's follow the cluster's file.

    ``environments`` say by name where programs are on this machine (``bin``), and in which
    image they are in a container (``image``).
    """

    def __init__(
        self,
        state: Path,
        environments: Mapping[str, Mapping[str, str]],
        snapshots: Snapshots,
        cluster: Callable[[], Cluster],
        *,
        cpu_overcommit: float = 2.0,
        containers: Mapping[str, Any] | None = None,
        seen: Callable[[datetime], datetime] = lambda moment: moment,
    ) -> None:
        """Keep records below ``state``; ``containers`` is what the site says of all of them."""
        self._cluster = cluster
        programs = {
            name: Path(given["bin"]) for name, given in environments.items() if "bin" in given
        }
        self._local = LocalExecutor(
            state, programs, snapshots, cpu_overcommit=cpu_overcommit, seen=seen
        )
        self._engines: ClusterEngines | None = None
        self._docker: DockerExecutor | None = None
        try:
            from nimbus_hub.executors.docker.cluster import ClusterEngines
            from nimbus_hub.executors.docker.executor import DockerExecutor
            from nimbus_hub.executors.docker.policy import read_policy
        except ImportError:
            return  # The extra `docker` is not installed.
        images = {name: given["image"] for name, given in environments.items() if "image" in given}
        self._engines = ClusterEngines(cluster, next(iter(images.values()), ""))
        self._docker = DockerExecutor(
            state / "docker",
            self._engines,
            images,
            snapshots,
            self._engines.find_hosts,
            read_policy(containers or {}),
            seen=seen,
        )
        self._docker.disks.on_change = self._engines.note_change

    @property
    def all(self) -> tuple[Executor, ...]:
        """Return them, as :data:`EXECUTOR_NAMES` has them."""
        return (self._local,) if self._docker is None else (self._local, self._docker)

    async def prepare(self) -> None:
        """Get to know the nodes of Swarms; raise InvalidRequest if engines cannot be used."""
        cluster = self._cluster()
        if self._engines is not None:
            await self._engines.prepare()
        elif cluster.engines or cluster.swarms:
            raise InvalidRequest(
                "the cluster file names Docker engines, which need: pip install nimbus-hub[docker]"
            )

    async def changed(self) -> None:
        """Wait until hosts may be others, or stand otherwise."""
        if self._engines is None:
            await asyncio.Event().wait()
        else:
            await self._engines.changed()

    def note_change(self) -> None:
        """Tell that the cluster's file has changed."""
        if self._engines is not None:
            self._engines.note_change()

    async def close(self) -> None:
        """Let go of everything; replicas go on."""
        await self._local.close()
        if self._docker is not None and self._engines is not None:
            await self._docker.close()
            await self._engines.close()
