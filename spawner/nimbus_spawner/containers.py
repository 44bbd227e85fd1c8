"""What a session's container is given, and how it ended, as values: pure functions."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from nimbus_hub.client.resources import Lease, Slot
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.lease import SERVER_DIED
from nimbus_hub.model.quantities import format_memory
from nimbus_hub.model.session_container import LEASE_LABEL
from nimbus_spawner.ended import how_it_ended

__all__ = [
    "PullProgress",
    "container_env",
    "engine_from",
    "exit_status",
    "granted_host",
    "labels",
    "pip_env",
    "pip_notice",
    "why_it_ended",
]

_MOST_PROCESSES = 16384
_PIP = frozenset({"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_CONFIG_FILE"})
_STEP = 5
"""Of how many percent of a pull people are told."""


def engine_from(host: str, given: Mapping[str, str]) -> Engine:
    """Return the engine of a host; raise InvalidRequest for what is no engine.

    Without an address it is reached where its endpoint is.
    """
    unknown = sorted(set(given) - {"endpoint", "tls", "address"})
    if unknown or "endpoint" not in given:
        what = f"got {unknown[0]!r}" if unknown else "it has no endpoint"
        raise InvalidRequest(f"engine {host!r} takes endpoint, tls and address: {what}")
    endpoint = given["endpoint"]
    address = given.get("address") or urlsplit(endpoint).hostname or "127.0.0.1"
    return Engine(host, endpoint, given.get("tls", ""), address)


def granted_host(given: Mapping[str, Any], slot: Slot) -> dict[str, Any]:
    """Return the settings of a container's host: those of the site, and what was granted.

    The site may say more about its containers, but not what is granted: memory without swap
    beside it, and exactly these devices.
    """
    security = [*given.get("security_opt", ()), "no-new-privileges:true"]
    usual = {
        "init": True,
        "cap_drop": ["ALL"],
        "pids_limit": _MOST_PROCESSES,
        "shm_size": slot.memory_bytes // 2,
    }
    granted: dict[str, Any] = {
        # Else nobody could be told how it ended.
        "auto_remove": False,
        "memswap_limit": slot.memory_bytes,
        "security_opt": list(dict.fromkeys(security)),
    }
    if slot.gpus:
        devices = [str(index) for index in slot.gpus]
        granted["device_requests"] = [
            {"Driver": "nvidia", "DeviceIDs": devices, "Capabilities": [["gpu"]]}
        ]
    others = {name: value for name, value in given.items() if name != "device_requests"}
    return {**usual, **others, **granted}


def labels(lease: Lease) -> dict[str, str]:
    """Return the labels by which a session's container is found."""
    return {LEASE_LABEL: lease.id, "nimbus.owner": lease.owner}


def container_env(slot: Slot) -> dict[str, str]:
    """Return what differs within a container: only the granted devices are there to count."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(slot.gpus))))}


def pip_env(image_env: Iterable[str]) -> dict[str, str]:
    """Return what has pip install into the home, which outlives the container.

    Where site-packages cannot be written it does so by itself, but in many images they can be.
    A virtual environment has no place in the home, and an image that says more is left alone.
    """
    said = {line.partition("=")[0] for line in image_env}
    return {} if said & {"VIRTUAL_ENV", *_PIP} else {"PIP_USER": "1"}


def pip_notice(env: Mapping[str, str], image_env: Iterable[str]) -> str:
    """Return a sentence for people about what becomes of what they install, or nothing."""
    if env.get("PIP_USER") == "1":
        return "What you install with pip goes into your home (~/.local) and stays."
    if any(line.startswith("VIRTUAL_ENV=") for line in image_env):
        return "What you install with pip goes into this image's environment and does not stay."
    return ""


def exit_status(state: Mapping[str, Any]) -> int | None:
    """Return how a container ended: None while it has not, minus the signal if one ended it."""
    if state["Running"] or state["Status"] == "created":
        return None
    code: int = state["ExitCode"]
    # Init, as a shell does, tells 128 and the signal of the main process.
    number = code - 128
    return -number if 0 < number < signal.NSIG else code


def why_it_ended(state: Mapping[str, Any] | None, status: int) -> str:
    """Return the reason for a server that ended by itself; no state: its container is gone."""
    if state is None:
        return f"{SERVER_DIED} unknown: its container was removed"
    reason = how_it_ended(status)
    if state.get("OOMKilled") and status == -signal.SIGKILL:
        reason += ": its memory limit was reached"
    return f"{reason}: {state['Error']}" if state.get("Error") else reason


class PullProgress:
    """How far a pull is, by what the engine tells of each layer."""

    def __init__(self) -> None:
        """Know of no layer."""
        self._had: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._told = -1

    def note(self, event: Mapping[str, Any]) -> str:
        """Take what the engine tells; return what is worth telling people, or nothing.

        Raises InvalidRequest for an error, with the words of the registry.
        """
        if "error" in event:
            raise InvalidRequest(str(event["error"]))
        layer, detail = event.get("id"), event.get("progressDetail") or {}
        if layer and event.get("status") == "Downloading" and detail.get("total"):
            self._total[layer], self._had[layer] = detail["total"], detail.get("current", 0)
        elif layer in self._total and event.get("status") == "Download complete":
            self._had[layer] = self._total[layer]
        return self._news()

    def _news(self) -> str:
        total = sum(self._total.values())
        if not total:
            return ""
        percent = 100 * sum(self._had.values()) // total
        if percent // _STEP == self._told:
            return ""
        self._told = percent // _STEP
        return f"{percent} % of {format_memory(total)}"
