"""What must always hold of leases and jobs, whatever happens to them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeVar

from nimbus_hub.model.host import Host
from nimbus_hub.model.job import JOB_MOVES
from nimbus_hub.model.lease import LEASE_MOVES, Lease
from nimbus_hub.store.store import Store

T = TypeVar("T")


def check_capacity(hosts: Iterable[Host], leases: Iterable[Lease]) -> None:
    """Nothing is held twice, and no host over what it has."""
    slots = [slot for lease in leases if lease.state.is_holding for slot in lease.slots]
    for host in hosts:
        own = [slot for slot in slots if slot.host == host.name]
        assert sum(slot.cpus_milli for slot in own) <= host.cpus_milli
        assert sum(slot.memory_bytes for slot in own) <= host.memory_bytes
        devices = [gpu for slot in own for gpu in slot.gpus]
        assert len(set(devices)) == len(devices), f"a GPU of {host.name} is held twice"
        assert set(devices) <= {gpu.index for gpu in host.gpus}
    ports = [(slot.address, port) for slot in slots for port in slot.ports]
    assert len(set(ports)) == len(ports), "a port is held twice"


def seen_moves(moves: dict[T, frozenset[T]]) -> dict[str, set[str]]:
    """Return which public state may follow which; the same again is another reason."""
    return {str(state): {str(state), *map(str, after)} for state, after in moves.items()}


LEASE_SEEN = seen_moves(LEASE_MOVES)
JOB_SEEN = seen_moves(JOB_MOVES)


def check_history(store: Store, object_id: str, moves: dict[str, set[str]]) -> None:
    """Every change that people saw is one the table has."""
    states = [event.state for event in store.history(object_id)]
    # A run on a gang that is ready does not wait.
    assert states[0] == "queued" or (states[0] == "starting" and moves is JOB_SEEN)
    for before, after in pairwise(states):
        assert after in moves[before], f"{object_id} went from {before} to {after}"
