"""The composition root: the Nimbus service as an application.

The only module that knows all others. JupyterHub runs it as a managed service and tells it
by environment variables where to listen and how to reach the hub
(https://jupyterhub.readthedocs.io/en/stable/reference/services.html).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.web import Application as WebApplication
from traitlets.config import Application

from nimbus_hub import __version__
from nimbus_hub.api.describe import description
from nimbus_hub.api.identity import HubIdentity, JobIdentity
from nimbus_hub.api.routes import tornado_routes
from nimbus_hub.api.services import Services
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.control.control import Control
from nimbus_hub.control.draining import NoSessions, drain
from nimbus_hub.control.notices import Notices
from nimbus_hub.control.sessions import Sessions
from nimbus_hub.control.settings import (
    Settings,
    read_sizes,
    read_timeout,
)
from nimbus_hub.control.tokens import kept_secret
from nimbus_hub.errors import NimbusError
from nimbus_hub.executors.jupyterhub import HubSessions
from nimbus_hub.executors.registry import EXECUTOR_NAMES, Executors
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.quantities import parse_duration, parse_memory
from nimbus_hub.notifiers.registry import read_notifiers
from nimbus_hub.service_log import log_request, start_logging
from nimbus_hub.service_settings import ServiceSettings
from nimbus_hub.steady_clock import SteadyClock
from nimbus_hub.store.sent import Sent
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store
from nimbus_hub.web.home import page_routes

__all__ = ["NimbusHub", "end_everything", "main"]

log = logging.getLogger(__name__)

_DEFAULT_PREFIX = "/services/nimbus"


class NimbusHub(ServiceSettings, Application):
    """The Nimbus service."""

    name = "nimbus-hub serve"
    description = "The Nimbus service, which JupyterHub runs as a managed service."
    version = __version__

    aliases = {  # noqa: RUF012 - traitlets' own form
        "state": "NimbusHub.state_dir",
        "config": "NimbusHub.config_file",
        "cluster": "NimbusHub.cluster_file",
        "log-level": "Application.log_level",
    }

    def initialize(self, argv: list[str] | None = None) -> None:
        """Read the command line and the configuration file; the command line wins."""
        self.parse_command_line(argv)
        if self.config_file:
            given = self.cli_config
            self.load_config_file(self.config_file)
            self.update_config(given)

    def start(self) -> None:
        """Serve until told to end."""
        start_logging(cast("int", self.log_level))
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        hub = HubOAuth.instance(cache_max_age=self.token_cache_seconds)
        keys = hub.keyfile, hub.certfile, hub.client_ca
        sessions = HubSessions(hub.api_url, hub.api_token, keys)
        control = self.control(sessions)
        await self._executors.prepare()
        await control.reconciler.prepare()
        await control.meter.prepare()
        acting = asyncio.create_task(control.reconciler.run())
        others = (*self._following(control), self._notices(control).run(), control.meter.run())
        tasks = [acting, *map(asyncio.create_task, others)]
        server = self._listen(control, hub)
        try:
            ended = asyncio.create_task(ending.wait())
            await asyncio.wait({acting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if acting.done():
                acting.result()
        finally:
            server.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await control.meter.close()
            await sessions.close()
            await self._executors.close()
            control.close()

    async def drain(self, reason: str) -> None:
        """End every lease and job, while no hub runs."""
        control = self.control(NoSessions())
        await self._executors.prepare()
        try:
            await drain(control, reason)
        finally:
            await self._executors.close()

    @property
    def token_cache_seconds(self) -> int:
        """Return how long the hub's answer about a token is kept."""
        # JupyterHub takes 0 for "for ever".
        return 60 if self.trust_token_cache else 1

    def control(self, sessions: Sessions) -> Control:
        """Put the control layer together."""
        state = Path(self.state_dir).absolute()
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        cluster_file = self._cluster_file()
        store = Store.open(self.database_url or f"sqlite:///{state / 'nimbus.sqlite'}")
        # Where nothing is live nothing can be hurt: the system clock is believed as it is.
        clock = SteadyClock(store.last_beat() if store.leases(is_live=True, limit=1) else None)
        snapshots = SnapshotStore(state / "snapshots", parse_memory(self.snapshot_limit))
        environments = self.named_environments()
        self._executors = Executors(
            state,
            environments,
            snapshots,
            lambda: cluster_file.cluster if cluster_file else Cluster(),
            cpu_overcommit=self.cpu_overcommit,
            containers=self.containers,
            seen=clock.seen,
        )
        snapshots.remove_leftovers()
        settings = Settings(
            api_url=os.environ.get("NIMBUS_API_URL", f"http://127.0.0.1:8000{_DEFAULT_PREFIX}"),
            job_token_secret=kept_secret(state / "secrets" / "job_tokens"),
            environments={
                name: given.get("description", "") for name, given in environments.items()
            },
            policies=self.policies(),
            sizes=read_sizes(self.sizes),
            save=parse_duration(self.save_time),
            stop_grace=parse_duration(self.stop_grace),
            start=parse_duration(self.start_time),
            sweep=parse_duration(self.sweep_time),
            host_patience=parse_duration(self.host_patience),
            measure=parse_duration(self.measure_time),
            stall=read_timeout(self.stall_time),
            keep_jobs=read_timeout(self.keep_jobs),
        )
        return Control(
            store=store,
            snapshots=snapshots,
            executors=self._executors.all,
            executor_names=EXECUTOR_NAMES,
            sessions=sessions,
            settings=settings,
            clock=clock,
            heartbeat=clock.heartbeat,
            cluster_file=cluster_file,
        )

    def _following(self, control: Control) -> tuple[Coroutine[Any, Any, None], ...]:
        inventory, wake = control.inventory, control.reconciler.wake

        def on_file() -> None:
            self._executors.note_change()
            wake()

        return inventory.follow_file(on_file), inventory.follow_hosts(self._executors.changed, wake)

    def _cluster_file(self) -> ClusterFile | None:
        if not self.cluster_file:
            return None
        sizes = [size.name for size in read_sizes(self.sizes)]
        return ClusterFile(Path(self.cluster_file), EXECUTOR_NAMES, sizes)

    def _notices(self, control: Control) -> Notices:
        hub = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "").removesuffix("hub/")
        site = hub or control.settings.api_url.removesuffix(_DEFAULT_PREFIX)
        sent = Sent(Path(self.state_dir).absolute() / "notices")
        routes = read_notifiers(self.notifiers)
        return Notices(control.records, control.leases, control.metrics, routes, sent, site)

    def _listen(self, control: Control, hub: HubOAuth) -> HTTPServer:
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", _DEFAULT_PREFIX).rstrip("/")
        url = urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", "http://127.0.0.1:8001"))
        jobs = JobIdentity(control.settings.job_token_secret, control.records.job)
        services = Services(control, (jobs, HubIdentity(hub)))
        web = WebApplication(
            [*tornado_routes(prefix, services), *page_routes(prefix, control)],
            openapi=description(),
            template_path=str(Path(__file__).parent / "web" / "templates"),
            cookie_secret=secrets.token_bytes(32),
            log_function=log_request,
        )
        server = HTTPServer(web, xheaders=True)
        server.listen(url.port or 8001, url.hostname or "127.0.0.1")
        log.info("Nimbus listens at %s%s", url.geturl().rstrip("/"), prefix)
        return server


def end_everything(state_dir: Path, config_file: str, reason: str) -> None:
    """End every lease and job of a state directory whose service and hub do not run.

    Blocks until all are over; raises TimeoutError when that takes more than a minute.
    """
    app = NimbusHub()
    app.initialize([f"--state={state_dir}", f"--config={config_file}"])
    asyncio.run(app.drain(reason))


def main() -> None:
    """Run the service; an error for people is one line and exit code 1."""
    try:
        NimbusHub.launch_instance()
    except NimbusError as error:
        raise SystemExit(f"nimbus-hub: {error.message}") from error


if __name__ == "__main__":
    main()
