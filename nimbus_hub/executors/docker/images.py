"""Images: each is pulled once to an engine, however many wait for it, and tells how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import docker

from nimbus_hub.errors import InvalidRequest, NotFound
from nimbus_hub.executors.docker.engine import EngineClient

__all__ = ["Credentials", "Images", "Progress", "auth_for", "ensure_image", "registry_of"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Progress:
    """What an engine has told of a pull: bytes had and bytes in all, by layer."""

    had: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    is_left: bool = False

    def note(self, event: Mapping[str, Any]) -> None:
        """Take what the engine tells; raise InvalidRequest if that is an error."""
        if "error" in event:
            raise InvalidRequest(str(event["error"]))
        layer, status = event.get("id"), event.get("status")
        detail = event.get("progressDetail") or {}
        if layer and status == "Downloading" and detail.get("total"):
            self.total[layer] = detail["total"]
            self.had[layer] = detail.get("current", 0)
        elif layer in self.total and status in ("Download complete", "Pull complete"):
            self.had[layer] = self.total[layer]

    def __str__(self) -> str:
        """Return how far it is, in the greatest unit that fits."""
        total = sum(self.total.values())
        if not total:
            return "pulling"
        size, unit = next(
            ((size, unit) for size, unit in ((10**9, "GB"), (10**6, "MB")) if total >= size),
            (10**3, "kB"),
        )
        return f"pulling {sum(self.had.values()) / size:.1f}/{total / size:.1f} {unit}"


class Images:
    """Sees to it that engines have the images that replicas run in."""

    def __init__(self, credentials: Mapping[str, Credentials]) -> None:
        """Take who we are by registry, like ``registry.example.org:5000``."""
        self._credentials = credentials
        self._pulls: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._progress: dict[tuple[str, str], Progress] = {}

    async def find(self, client: EngineClient, reference: str) -> str | None:
        """Return the id of an image that an engine has, None if it must be pulled."""
        found = await client.call(client.image, reference)
        return None if found is None else str(found["Id"])

    async def pull(self, client: EngineClient, reference: str) -> str:
        """Return the id of an image that is pulled unless it is there; raise what went wrong."""
        key = client.engine.host, reference
        if key not in self._pulls:
            self._progress[key] = Progress()
            task = self._pulls[key] = asyncio.create_task(self._pull(client, reference))
            task.add_done_callback(lambda task: self._forget(key, task))
        # Who does not wait any longer does not end it for the others.
        await asyncio.shield(self._pulls[key])
        found = await self.find(client, reference)
        if found is None:
            raise InvalidRequest(f"the image {reference} was pulled and is gone again")
        return found

    def progress(self, host: str, reference: str) -> str:
        """Return how far a pull is."""
        return str(self._progress.get((host, reference), "pulling"))

    async def close(self) -> None:
        """Wait for no pull any more; engines may go on."""
        tasks = list(self._pulls.values())
        for progress in self._progress.values():
            progress.is_left = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pull(self, client: EngineClient, reference: str) -> None:
        auth = auth_for(reference, self._credentials)
        progress = self._progress[client.engine.host, reference]
        try:
            await client.carry(lambda: _note(client.pull(reference, auth), progress))
        except (InvalidRequest, NotFound) as error:
            raise InvalidRequest(
                f"the image {reference} cannot be pulled: {error.message}"
            ) from error

    def _forget(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._pulls[key], self._progress[key]
        if not task.cancelled():
            # Whoever waits is told; if nobody does any more, nobody needs to know.
            task.exception()


def auth_for(reference: str, credentials: Mapping[str, Credentials]) -> dict[str, str] | None:
    """Return who we are to an image's registry, as the SDK has it; None for nobody."""
    known = credentials.get(registry_of(reference))
    return {"username": known.username, "password": known.password} if known else None


def ensure_image(
    client: EngineClient, reference: str, credentials: Mapping[str, Credentials]
) -> None:
    """Have an engine pull an image that it does not have; raise what went wrong. Blocks."""
    if client.image(reference) is None:
        _note(client.pull(reference, auth_for(reference, credentials)), Progress())


def registry_of(reference: str) -> str:
    """Return the registry that an image comes from."""
    registry: str = docker.auth.resolve_repository_name(reference)[0]
    return registry


def _note(events: Iterable[dict[str, Any]], progress: Progress) -> None:
    for event in events:
        # Else the thread would wait on, and the service with it.
        if progress.is_left:
            return
        progress.note(event)
