"""The whole service over a cluster file, as a process: ``python -m tests.docker.serve``.

It is put together as it always is; only who calls is known without a hub.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import Any

from tornado.web import Application

from nimbus_hub.api.describe import description
from nimbus_hub.api.identity import JobIdentity
from nimbus_hub.api.routes import tornado_routes
from nimbus_hub.api.services import Services
from nimbus_hub.app import NimbusHub
from nimbus_hub.control.draining import NoSessions
from tests.service.conftest import PREFIX, KnownTokens


async def serve(port: int, settings: dict[str, Any], address: str) -> None:
    """Serve until killed, also at an address; ``settings`` are those of `NimbusHub`."""
    os.environ["NIMBUS_API_URL"] = f"http://{address}:{port}{PREFIX}"
    app = NimbusHub(**settings)
    control = app.control(NoSessions())
    await app._executors.prepare()
    await control.reconciler.prepare()
    jobs = JobIdentity(control.settings.job_token_secret, control.records.job)
    services = Services(control, (jobs, KnownTokens()))
    web = Application(tornado_routes(PREFIX, services), openapi=description())
    for each in {"127.0.0.1", address}:
        web.listen(port, each)
    await asyncio.gather(control.reconciler.run(), control.meter.run(), *app._following(control))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    told = json.loads(sys.argv[1])
    asyncio.run(serve(told["port"], told["settings"], told.get("address", "127.0.0.1")))
