"""Whether the service works, its figures, and its description."""

from __future__ import annotations

from nimbus_hub import __version__
from nimbus_hub.api import schemas
from nimbus_hub.api.handler import ApiHandler, Operation
from nimbus_hub.api.identity import Scope

__all__ = ["HealthHandler", "MetricsHandler"]


class HealthHandler(ApiHandler):
    """Open to all, so that a load balancer may ask."""

    operations = {"get": Operation("Tell whether the service works", None, schemas.Health)}

    async def get(self) -> None:
        """Answer when the store does."""
        records = self.services.control.records
        await records.read(records.store.last_event_id)
        self.reply(schemas.Health(version=__version__))


class MetricsHandler(ApiHandler):
    """Figures for Prometheus, which sends an administrator's token."""

    operations = {"get": Operation("Figures for Prometheus", Scope.ADMIN, media="text/plain")}

    async def get(self) -> None:
        """Answer in Prometheus's text format."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.services.control.metrics.text())
