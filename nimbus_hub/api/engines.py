"""Docker engines over HTTP: where they are, and what works on them."""

from __future__ import annotations

from collections.abc import Iterable

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.handler import ApiHandler, Operation
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.schemas import Response
from nimbus_hub.control.cluster_entry import engine_text
from nimbus_hub.model.check import HostCheck

__all__ = [
    "CheckHandler",
    "EngineCheck",
    "EngineCheckHandler",
    "EngineEntry",
    "EngineHandler",
    "HostEngine",
]


class CheckHandler(ApiHandler):
    """What works on a host."""

    operations = {"get": Operation("Look what works on a host", Scope.ADMIN, schemas.HostCheckList)}

    async def get(self, name: str) -> None:
        """Look now at what works on a host and what is missing."""
        found = await self.services.control.inventory.check(name)
        self.reply(schemas.HostCheckList(items=_views(found)))


class EngineEntry(Response):
    """An engine in the cluster file: the ``lines`` that name it, and the ``file``.

    That is empty if the service has none.
    """

    lines: str
    file: str


class EngineCheck(EngineEntry):
    """What works on an engine that is to be a host, and how to make it one."""

    items: list[schemas.HostCheck]


class EngineCheckHandler(ApiHandler):
    """What works on an engine that no host is of yet."""

    operations = {
        "post": Operation(
            "Look what works on an engine", Scope.ADMIN, EngineCheck, body=requests.EngineRequest
        )
    }

    async def post(self) -> None:
        """Look now at what works on an engine that is no host yet; nothing is kept of it."""
        engine = self.parse_body(requests.EngineRequest).engine()
        inventory = self.services.control.inventory
        items = _views(await inventory.check_engine(engine))
        self.reply(EngineCheck(items=items, lines=engine_text(engine), file=inventory.file_path))


class HostEngine(Response):
    """Where a host's Docker engine is reached: ``tls`` is a directory of the service's machine.

    ``address`` is where other machines reach the host.
    """

    endpoint: str
    tls: str
    address: str


class EngineHandler(ApiHandler):
    """The engine of a host, for the spawner."""

    operations = {"get": Operation("Tell where a host's engine is", Scope.ADMIN, HostEngine)}

    async def get(self, name: str) -> None:
        """Tell where the engine of a host is, and with which certificates of this machine."""
        engine = self.services.control.inventory.engine(name)
        self.reply(HostEngine(endpoint=engine.endpoint, tls=engine.tls, address=engine.address))


def _views(found: Iterable[HostCheck]) -> list[schemas.HostCheck]:
    return [
        schemas.HostCheck(name=e.name, is_ok=e.is_ok, text=e.text, remedy=e.remedy) for e in found
    ]
