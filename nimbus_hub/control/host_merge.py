"""One host out of what several say of it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from nimbus_hub.model.host import Device, Host, HostMark, HostState

__all__ = ["declared_over_found", "marked", "silenced", "with_faults"]

_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default for field in fields(Host) if field.default is not MISSING
}


def declared_over_found(declared: Host, found: Host) -> Host:
    """Return a host that the cluster file declares and an executor found.

    What the file leaves out is as found, and a host that is down is down.
    """
    left_out = {
        name: getattr(found, name)
        for name, default in _DEFAULTS.items()
        if getattr(declared, name) == default
    }
    host = replace(declared, **left_out, labels={**found.labels, **declared.labels})
    if found.state is HostState.DOWN:
        return replace(host, state=found.state, state_reason=found.state_reason)
    return host


def silenced(host: Host, fault: str | None) -> Host:
    """Return a host whose executor does not answer, for ``fault`` (None: it does)."""
    if fault is None:
        return host
    reason = f"its executor does not answer: {fault}"
    return replace(host, state=HostState.DOWN, state_reason=reason)


def marked(host: Host, mark: HostMark | None) -> Host:
    """Return a host with what an operator said laid over it, and a reason for its state."""
    if mark is not None and host.state is not HostState.DOWN:
        reason = f"drained by {mark.marked_by}" + (f": {mark.reason}" if mark.reason else "")
        return replace(host, state=mark.state, state_reason=reason)
    if host.state is not HostState.READY and not host.state_reason:
        return replace(host, state_reason=f"declared to be {host.state}")
    return host


def with_faults(host: Host, faults: Mapping[Device, str]) -> Host:
    """Return a host whose devices say why they are out of service, those that are."""
    if not any(Device(host.name, gpu.index) in faults for gpu in host.gpus):
        return host
    gpus = (
        replace(gpu, fault=faults.get(Device(host.name, gpu.index), gpu.fault)) for gpu in host.gpus
    )
    return replace(host, gpus=tuple(gpus))
