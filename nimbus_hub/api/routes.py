"""Every path of the API and who handles it."""

from __future__ import annotations

import re

from tornado.web import HTTPError

from nimbus_hub.api.activity import ActivityHandler, KeepHandler
from nimbus_hub.api.engines import CheckHandler, EngineCheckHandler, EngineHandler
from nimbus_hub.api.events import EventsHandler
from nimbus_hub.api.files import FileHandler, FilesHandler
from nimbus_hub.api.gangs import GangHandler, GangsHandler
from nimbus_hub.api.handler import ApiHandler
from nimbus_hub.api.health import HealthHandler, MetricsHandler
from nimbus_hub.api.hosts import DrainHandler, HostsHandler, UndrainHandler
from nimbus_hub.api.jobs import (
    InputHandler,
    JobHandler,
    JobsHandler,
    ProgressHandler,
    StopHandler,
)
from nimbus_hub.api.leases import (
    ActivateHandler,
    LeaseHandler,
    LeasesHandler,
    QueueHandler,
    ReleaseHandler,
    RenewHandler,
    SavedHandler,
    SavingHandler,
)
from nimbus_hub.api.logs import LogsHandler, LogStreamHandler
from nimbus_hub.api.openapi import OpenApiHandler
from nimbus_hub.api.options import GpusHandler, OptionsHandler
from nimbus_hub.api.services import Services
from nimbus_hub.api.snapshots import SnapshotFilesHandler, SnapshotsHandler
from nimbus_hub.api.usage import UsageHandler

__all__ = ["ROUTES", "tornado_routes"]

ROUTES: dict[str, type[ApiHandler]] = {
    "/health": HealthHandler,
    "/metrics": MetricsHandler,
    "/openapi.json": OpenApiHandler,
    "/api/v1/options": OptionsHandler,
    "/api/v1/hosts": HostsHandler,
    "/api/v1/hosts/check": EngineCheckHandler,
    "/api/v1/hosts/{name}/check": CheckHandler,
    "/api/v1/hosts/{name}/drain": DrainHandler,
    "/api/v1/hosts/{name}/engine": EngineHandler,
    "/api/v1/hosts/{name}/undrain": UndrainHandler,
    "/api/v1/gpus": GpusHandler,
    "/api/v1/queue": QueueHandler,
    "/api/v1/usage": UsageHandler,
    "/api/v1/events": EventsHandler,
    "/api/v1/leases": LeasesHandler,
    "/api/v1/leases/{lease_id}": LeaseHandler,
    "/api/v1/leases/{lease_id}/activate": ActivateHandler,
    "/api/v1/leases/{lease_id}/renew": RenewHandler,
    "/api/v1/leases/{lease_id}/activity": ActivityHandler,
    "/api/v1/leases/{lease_id}/keep": KeepHandler,
    "/api/v1/leases/{lease_id}/release": ReleaseHandler,
    "/api/v1/leases/{lease_id}/saving": SavingHandler,
    "/api/v1/leases/{lease_id}/saved": SavedHandler,
    "/api/v1/gangs": GangsHandler,
    "/api/v1/gangs/{lease_id}": GangHandler,
    "/api/v1/jobs": JobsHandler,
    "/api/v1/jobs/{job_id}": JobHandler,
    "/api/v1/jobs/{job_id}/stop": StopHandler,
    "/api/v1/jobs/{job_id}/progress": ProgressHandler,
    "/api/v1/jobs/{job_id}/input": InputHandler,
    "/api/v1/jobs/{job_id}/logs": LogsHandler,
    "/api/v1/jobs/{job_id}/logs/stream": LogStreamHandler,
    "/api/v1/jobs/{job_id}/files": FilesHandler,
    "/api/v1/jobs/{job_id}/files/{path}": FileHandler,
    "/api/v1/snapshots": SnapshotsHandler,
    "/api/v1/snapshots/files": SnapshotFilesHandler,
}

Route = tuple[str, type[ApiHandler], dict[str, object]]


class UnknownHandler(ApiHandler):
    """Whatever is not in the table."""

    async def prepare(self) -> None:
        """Refuse."""
        raise HTTPError(404, f"there is nothing at {self.request.path}")


def tornado_routes(prefix: str, services: Services) -> list[Route]:
    """Return the table as tornado wants it, below ``prefix`` (no slash at its end)."""
    arguments: dict[str, object] = {"services": services}
    known: list[Route] = [
        (prefix + _pattern(path), handler, arguments) for path, handler in ROUTES.items()
    ]
    return [*known, (prefix + "/api(?:/.*)?", UnknownHandler, arguments)]


def _pattern(path: str) -> str:
    """Return what matches a path of the table; ``{path}`` is one of several parts."""
    return re.sub(r"{\w+}", "([^/]+)", path.replace("{path}", "(.+?)")) + "/?"
