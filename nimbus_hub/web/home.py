"""The page at /services/nimbus/: what is mine, what waits and why, what ended and why."""

from __future__ import annotations

from datetime import datetime

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.web import RequestHandler, authenticated

from nimbus_hub.control.capacity import gpu_counts, host_uses
from nimbus_hub.control.control import Control
from nimbus_hub.model.lease import LeaseState

__all__ = ["HomeHandler", "page_routes"]

Route = tuple[str, type[RequestHandler], dict[str, object]]


class HomeHandler(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """One page, rendered for who is logged in at the hub."""

    def initialize(self, control: Control) -> None:
        """Take what the page shows."""
        self.control = control

    def set_default_headers(self) -> None:
        """Keep the page out of caches and frames."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'self'")

    @authenticated
    async def get(self) -> None:
        """Show the user's live and last leases, and jobs."""
        user = self.current_user["name"]
        records = self.control.records
        live = await records.live()
        ended = await records.read(records.store.leases, owner=user, is_live=False, limit=20)
        jobs = await records.read(records.store.jobs, owner=user, limit=50, is_holder=False)
        uses = host_uses(self.control.inventory.hosts, live.leases)
        await self.render(
            "home.html",
            user=user,
            leases=[lease for lease in live.leases if lease.owner == user],
            ended=ended,
            jobs=jobs,
            waiting={each.id: each for each in live.leases if each.state is LeaseState.QUEUED},
            gpus=gpu_counts(uses),
            uses=uses,
            hub_prefix=self.hub_auth.hub_prefix,
            stamp=_stamp,
        )


def page_routes(prefix: str, control: Control) -> list[Route]:
    """Return the pages' routes below ``prefix`` (no slash at its end)."""
    return [
        (prefix + "/?", HomeHandler, {"control": control}),
        (prefix + "/oauth_callback", HubOAuthCallbackHandler, {}),
    ]


def _stamp(moment: datetime | None) -> str:
    """Return a moment for a ``<time>`` element, which the page shows in the reader's zone."""
    return "" if moment is None else moment.isoformat(timespec="seconds")
