"""What there is, who has it and who had it: hosts, GPUs, what may be asked for, usage.

The answers that no run needs are imported when they are asked for: each of their classes is
half a millisecond of a command's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nimbus_hub.client.decoding import decode, decode_items
from nimbus_hub.client.hosts import Host, HostCheck, HostEngine, HostList
from nimbus_hub.client.transport import Transport

if TYPE_CHECKING:
    from nimbus_hub.client.choices import GpuPool, Options
    from nimbus_hub.client.engines import EngineCheck
    from nimbus_hub.client.usage import UsageQuery, UsageReport
    from nimbus_hub.model.engine import Engine

__all__ = ["ClusterCalls"]

_API = "/api/v1"
_CHECK_SECONDS = 600.0
"""A check may pull an image of gigabytes."""


class ClusterCalls:
    """The calls of `Client` that are about the cluster."""

    transport: Transport

    def options(self, owner: str | None = None) -> Options:
        """Return what may be asked for; an administrator may ask for another ``owner``."""
        from nimbus_hub.client.choices import Options

        return decode(Options, self._ask("options", {"owner": owner}))

    def hosts(self) -> tuple[Host, ...]:
        """Return the hosts and what of them is free."""
        return decode_items(Host, self._ask("hosts"))

    def host_list(self) -> HostList:
        """Return the hosts with what an administrator must know of the cluster file."""
        return decode(HostList, self._ask("hosts"))

    def drain(self, host: str, reason: str = "") -> Host:
        """Have a host take nothing new until ``undrain`` (administrators)."""
        return self._tell(host, "drain", {"reason": reason})

    def undrain(self, host: str) -> Host:
        """Let a drained host take new slots again (administrators)."""
        return self._tell(host, "undrain", {})

    def check_host(self, host: str) -> tuple[HostCheck, ...]:
        """Return what works on a host and what is missing, looked at now (administrators)."""
        path = f"{_API}/hosts/{quote(host, safe='')}/check"
        answer = self.transport.request("GET", path, answer_seconds=_CHECK_SECONDS)
        return decode_items(HostCheck, answer)

    def check_engine(self, engine: Engine) -> EngineCheck:
        """Return what works on an engine that is no host yet, looked at now (administrators).

        Raises Conflict for a host that is there, InvalidRequest for an engine with which the
        cluster file would be refused.
        """
        from nimbus_hub.client.engines import EngineCheck

        path, body = f"{_API}/hosts/check", asdict(engine)
        answer = self.transport.request("POST", path, body=body, answer_seconds=_CHECK_SECONDS)
        return decode(EngineCheck, answer)

    def add_engine(self, engine: Engine) -> None:
        """Have the service write an engine into its cluster file (administrators).

        Raises Conflict if it has none or cannot write it, and as :meth:`check_engine`.
        """
        self.transport.request("POST", f"{_API}/hosts", body=asdict(engine))

    def engine(self, host: str) -> HostEngine:
        """Return where the Docker engine of a host is reached (administrators).

        Raises Conflict for a host that has none.
        """
        return decode(HostEngine, self._ask(f"hosts/{quote(host, safe='')}/engine"))

    def gpus(self) -> tuple[GpuPool, ...]:
        """Return the GPUs by model and datacenter, and who holds them."""
        from nimbus_hub.client.choices import GpuPool

        return decode_items(GpuPool, self._ask("gpus"))

    def usage(self, query: UsageQuery) -> UsageReport:
        """Return what was held and used in a period."""
        from nimbus_hub.client.usage import UsageReport

        return decode(UsageReport, self._ask("usage", query.params()))

    def usage_csv(self, query: UsageQuery) -> str:
        """Return the same as CSV: a heading, and a line for each row."""
        return str(self._ask("usage", {**query.params(), "format": "csv"}))

    def _ask(self, what: str, params: Mapping[str, str | None] | None = None) -> Any:
        return self.transport.request("GET", f"{_API}/{what}", params=params)

    def _tell(self, host: str, verb: str, body: object) -> Host:
        path = f"{_API}/hosts/{quote(host, safe='')}/{verb}"
        return decode(Host, self.transport.request("POST", path, body=body))
