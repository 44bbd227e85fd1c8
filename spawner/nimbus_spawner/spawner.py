"""NimbusSpawner: a mix-in that makes any spawner of JupyterHub hold a lease.

start:  ask for a lease, wait for the grant, ask for the debug gang that goes with it and
        do not wait for that, start the server, wait until it answers, activate the lease
        (its time counts from there).
end:    however the server ends, JupyterHub runs the post-stop hook; the lease is released
        there, and the news is repeated until the service heard it.
The lease's id is part of the spawner's state, so a restarted hub goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from typing import Any

from jupyterhub.spawner import Spawner, SpawnException
from markupsafe import Markup
from traitlets import Float, Unicode, default, validate

from nimbus_hub.client.client import Client
from nimbus_hub.client.resources import Lease
from nimbus_hub.errors import Impossible, NimbusError
from nimbus_hub.model.quantities import parse_duration
from nimbus_spawner.calls import call, call_waiting, deliver, insist, service
from nimbus_spawner.ended import ended_notice, ending_notice, how_it_ended
from nimbus_spawner.form import render_form, unavailable_form
from nimbus_spawner.grant import (
    SessionRequest,
    gang_question,
    gang_request,
    lease_env,
    session_request,
)
from nimbus_spawner.options import SessionOptions, options_from_form
from nimbus_spawner.progress import ProgressLog, waiting_message
from nimbus_spawner.ready import answers, asking, origin
from nimbus_spawner.refused import refused, status_of

__all__ = ["NimbusSpawner"]

_LONG_POLL_SECONDS = 10
_RESTART_SECONDS = 20.0
"""How long a service that does not answer is taken to be restarting."""
_READY_POLL_SECONDS = 0.02
_DELIVERY_SECONDS = 3.0
"""How long a stop waits for its news to be heard before it is left to the background."""


class NimbusSpawner(Spawner):  # type: ignore[misc]
    """Mix-in, to stand before a spawner: ``class Mine(NimbusSpawner, DockerSpawner)``."""

    service_url = Unicode(
        "", help="Address of the Nimbus service as the hub reaches it, with its prefix."
    ).tag(config=True)
    public_service_url = Unicode(
        "", help="Address of the Nimbus service as sessions reach it. Default: service_url."
    ).tag(config=True)
    service_token = Unicode(
        "", help="Token of the hub-side service 'nimbus-spawner' (scope custom:nimbus:admin)."
    ).tag(config=True)
    patience = Unicode(
        "10m",
        help="How long a start waits in the queue at most, like 90s, 10m or 1h. "
        "Users may choose less.",
    ).tag(config=True)
    server_timeout = Float(
        60.0, min=1.0, help="Seconds a started server may take until it answers."
    ).tag(config=True)

    lease_id = Unicode("", help="The lease this session holds, or nothing.")
    own_options = frozenset[str]()
    """Names of user options that the spawner this is mixed into reads itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._lease: Lease | None = None
        self._progress = ProgressLog()
        self._is_starting = False
        self._end_reason = ""
        self._watcher: asyncio.Task[None] | None = None

    # settings

    @validate("patience")
    def _validate_patience(self, proposal: Mapping[str, Any]) -> str:
        parse_duration(proposal["value"])
        return str(proposal["value"])

    @default("start_timeout")
    def _default_start_timeout(self) -> int:
        # JupyterHub's limit covers the queue too.
        waiting = parse_duration(self.patience).total_seconds()
        return int(waiting + self.server_timeout + 3 * _RESTART_SECONDS)

    @default("options_form")
    def _default_options_form(self) -> Any:
        return type(self).render_options

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return options_from_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        # Read in start(): what this hook raises is logged with a traceback, as if the
        # hub were at fault for a user's typing error.
        return lambda spawner, user_options: None

    @property
    def nimbus(self) -> Client:
        """Return the client of the Nimbus service, with the spawner's token."""
        return service(self.service_url.rstrip("/"), self.service_token)

    # pages

    async def render_options(self) -> str:
        """Return the spawn form, with the reason on top if the last session was ended."""
        notice = str(await self.ended_notice())
        try:
            options, hosts = await asyncio.gather(
                call(self.nimbus.options, owner=self.user.name), call(self.nimbus.hosts)
            )
        except NimbusError as error:
            return unavailable_form(error.message, notice)
        return render_form(options, hosts, self.patience, notice)

    async def ended_notice(self) -> Markup:
        """Return HTML that says when and why the last session ended, or nothing.

        Nothing too if the service does not answer: the hub's pages work without it.
        """
        try:
            ended = await call(
                self.nimbus.leases,
                state="ended",
                kind="session",
                owner=self.user.name,
                name=self.name,
                limit=1,
            )
        except NimbusError:
            return Markup("")
        last = next((lease for lease in ended if lease.name == self.name), None)
        # Escaped where it is made.
        return Markup(ended_notice(last, self.hub.base_url, self.user.server_url(self.name)))

    async def ending_notice(self) -> Markup:
        """Return HTML that says that the running session is being stopped, or nothing."""
        reason, is_ending = "", self.pending == "stop"
        if self.lease_id and not is_ending:
            try:
                lease = await call(self.nimbus.lease, self.lease_id)
            except NimbusError:
                return Markup("")
            reason, is_ending = lease.reason, lease.state == "expiring" or lease.is_ended
        return Markup(ending_notice(reason) if is_ending else "")

    async def progress(self) -> AsyncIterator[dict[str, int | str]]:
        """Yield what happens during a start."""
        async for event in self._progress.follow():
            yield event

    # life

    async def start(self) -> Any:
        """Hold a lease, start the server, return its address when it answers."""
        self._progress = ProgressLog()
        self._is_starting = True
        self._end_reason = ""
        try:
            chosen = SessionOptions.parse(self.user_options, self.own_options)
            lease = self._lease = await self._hold_lease(chosen)
            await self._ask_for_gang(chosen, lease)
            self._progress.tell(50, f"Granted on {lease.slots[0].host}; starting JupyterLab ...")
            address = await self.launch()
            await self._answering(address)
            await self.settle()
            self._progress.tell(90, "JupyterLab answers.")
            await insist(partial(call, self.nimbus.activate, lease.id), _RESTART_SECONDS)
        except NimbusError as error:
            self._end_reason = f"the start failed: {error.message}"
            raise refused(error.message, error.code, status_of(error)) from None
        except SpawnException as error:
            self._end_reason = f"the start failed: {error.message.splitlines()[0]}"
            raise
        except asyncio.CancelledError:
            self._end_reason = "the start was cancelled"
            raise
        finally:
            self._is_starting = False
            self._progress.close()
        return address

    async def launch(self) -> Any:
        """Start the server on what was granted, by the spawner this is mixed into."""
        return await super().start()

    async def settle(self) -> None:
        """Do what is to be done when the server answers; here nothing."""

    @property
    def lease_environment(self) -> str:
        """Return the name of the environment the session was granted."""
        return self._lease.environment if self._lease is not None else "default"

    async def stop(self, now: bool = False) -> None:
        """Stop the server; the lease is released by the post-stop hook that follows."""
        self._end_reason = self._end_reason or f"stopped by {self.user.name} or an administrator"
        await super().stop(now=now)

    async def poll(self) -> int | None:
        """Return None while the server runs, else its exit code (0: unknown)."""
        status: int | None = await super().poll()
        if status is not None and self._is_starting and self._lease is None:
            return None
        if status is not None and not self._end_reason:
            self._end_reason = self.how_it_ended(status)
        return status

    async def run_post_stop_hook(self) -> None:
        """Release the lease: the server is gone, by whatever way."""
        lease_id, self.lease_id, self._lease = self.lease_id, "", None
        if lease_id:
            reason = self._end_reason or "the session has ended"
            news = deliver(self.nimbus, lease_id, reason, after=self.remains())
            await asyncio.wait((news,), timeout=_DELIVERY_SECONDS)
        found = super().run_post_stop_hook()
        if isawaitable(found):
            await found

    # state

    def get_state(self) -> dict[str, Any]:
        """Return what a restarted hub needs to go on with this session."""
        state: dict[str, Any] = super().get_state()
        if self.lease_id:
            state["lease_id"] = self.lease_id
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a session of the hub's last run.

        ``clear_state`` keeps the lease: only its release ends it, and JupyterHub clears
        the state before that.
        """
        super().load_state(state)
        self.lease_id = state.get("lease_id", "")

    def get_env(self) -> dict[str, str]:
        """Return the server's environment: JupyterHub's, and what the lease granted."""
        env: dict[str, str] = super().get_env()
        if self._lease is not None:
            env |= lease_env(self._lease, self.public_service_url or self.service_url)
        return env

    # watching

    def start_polling(self) -> None:
        """Watch the server; JupyterHub's own look every 30 s stays as a second net."""
        super().start_polling()
        self._watcher = asyncio.ensure_future(self._watch())

    def stop_polling(self) -> None:
        """Stop watching. The watcher itself gets here when it tells of the end."""
        super().stop_polling()
        watcher, self._watcher = self._watcher, None
        if watcher is not None and watcher is not asyncio.current_task():
            watcher.cancel()

    async def wait_until_gone(self) -> None:
        """Return when the server's process is gone; spawners may know a quicker way."""
        while await self.poll() is None:  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(1)

    def how_it_ended(self, status: int) -> str:
        """Return the reason for a server that ended by itself; spawners may know more."""
        return how_it_ended(status)

    def remains(self) -> Awaitable[None] | None:
        """Return what ends the rest of a session, before its lease is released; here nothing."""
        return None

    async def end_leftover(self, lease: Lease) -> None:
        """End what a start that was cut off has left, before its lease is released."""

    def last_lines(self) -> str:
        """Return the last lines of the server's log, if the spawner has it."""
        return ""

    async def _watch(self) -> None:
        await self.wait_until_gone()
        # While a start or stop is under way JupyterHub has not set up, or has taken down,
        # what is to be called here.
        while self.pending:  # noqa: ASYNC110 - JupyterHub's own flags
            await asyncio.sleep(0.1)
        await self.poll_and_notify()

    # parts of a start

    async def _hold_lease(self, chosen: SessionOptions) -> Lease:
        """Return a granted lease; the one of an earlier start that was cut off is released."""
        options = await insist(
            partial(call, self.nimbus.options, owner=self.user.name), _RESTART_SECONDS
        )
        request = session_request(chosen, options, self.user.name, self.name, self.patience)
        question = gang_question(chosen, request["wishes"])
        if question is not None:
            with suppress(Impossible):  # The session is good without it, which is said later.
                await insist(partial(call, self.nimbus.plan, question), _RESTART_SECONDS)
        await self._release_leftovers()
        self._progress.tell(5, "Asking for a lease ...")
        return await self._granted(await self._request(request))

    async def _ask_for_gang(self, chosen: SessionOptions, lease: Lease) -> None:
        """Ask for the debug gang that the session wants; without it the session is still good."""
        request = gang_request(chosen, lease)
        if request is None:
            return
        try:
            gang = await call(self.nimbus.request_gang, request)
        except NimbusError as error:
            self._progress.tell(45, f"No debug gang: {error.message}")
        else:
            self._progress.tell(45, f"Asked for debug gang {gang.lease.id}; %nimbus_debug tells.")

    async def _request(self, request: SessionRequest) -> Lease:
        asked = asyncio.ensure_future(call(self.nimbus.request_lease, **request))
        try:
            lease = await asyncio.shield(asked)
        except asyncio.CancelledError:
            # The answer will come, and nobody else would know of the lease.
            asked.add_done_callback(self._give_back)
            raise
        self.lease_id = lease.id
        return lease

    def _give_back(self, asked: asyncio.Future[Lease]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            deliver(self.nimbus, asked.result().id, "the start was cancelled")

    async def _granted(self, lease: Lease) -> Lease:
        while lease.state == "queued":
            self._progress.tell(10, waiting_message(lease))
            lease = await self._changed(lease)
        if lease.is_ended:
            why = lease.reason or "the lease has ended"
            raise refused(f"No session was started: {why}", "no-capacity", 503)
        return lease

    async def _changed(self, lease: Lease) -> Lease:
        look = partial(
            call_waiting,
            self.nimbus.lease,
            lease.id,
            after=lease.version,
            timeout=_LONG_POLL_SECONDS,
        )
        return await insist(look, _RESTART_SECONDS)

    async def _release_leftovers(self) -> None:
        live = await call(
            self.nimbus.leases, state="live", kind="session", owner=self.user.name, name=self.name
        )
        for lease in live:
            if lease.name == self.name:
                self.log.warning("Releasing lease %s of a start that was cut off", lease.id)
                await self.end_leftover(lease)
                await call(
                    self.nimbus.release,
                    lease.id,
                    reason="left over from a start that was cut off",
                    is_stopped=True,
                )
        self.lease_id = ""

    async def _answering(self, address: Any) -> None:
        """Return when the server answers; raise SpawnException if it ends before."""
        deadline = asyncio.get_running_loop().time() + self.server_timeout
        scheme = "https" if self.internal_ssl else "http"
        url = f"{origin(address, scheme)}{self.server.base_url}api"
        async with asking(self.user.settings if self.internal_ssl else {}) as session:
            while not await answers(session, url):
                status = await self.poll()
                if status is not None:
                    raise self._broken(self.how_it_ended(status))
                if asyncio.get_running_loop().time() > deadline:
                    raise self._broken(
                        f"the session's server does not answer after {self.server_timeout:g} s"
                    )
                await asyncio.sleep(_READY_POLL_SECONDS)

    def _broken(self, what: str) -> SpawnException:
        last = self.last_lines()
        return refused(f"{what}:\n{last}" if last else what, "server-ended", 500)
