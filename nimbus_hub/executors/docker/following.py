"""Followers of containers' output, each in a thread, awaited from the event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass

from nimbus_hub.executors.docker.ends import is_over
from nimbus_hub.executors.docker.engine import EngineClient, Pieces
from nimbus_hub.executors.docker.logs import Follower

__all__ = ["Container", "followed"]


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the source of output; see `logs.Source`."""

    client: EngineClient
    name: str

    def is_running(self) -> bool | None:
        """Tell whether it runs, or will; None if it is gone."""
        found = self.client.inspect(self.name)
        return None if found is None else not is_over(found)

    def output(self, *, follow: bool) -> Pieces:
        """Return its output from the beginning."""
        return self.client.output(self.name, follow=follow)


async def followed(follower: Follower, attached: Pieces | None, name: str) -> bool:
    """Wait until all output is read; False if the follower was closed before."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def work() -> None:
        problem: OSError | None = None
        is_whole = False
        try:
            is_whole = follower.run(attached)
        except OSError as error:
            problem = error
        # Nobody waits any more: the loop may even be closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, is_whole, problem)

    def tell(is_whole: bool, problem: OSError | None) -> None:
        if done.done():
            return
        if problem is None:
            done.set_result(is_whole)
        else:
            done.set_exception(problem)

    threading.Thread(target=work, name=f"output-{name}", daemon=True).start()
    try:
        return await done
    finally:
        follower.close()
