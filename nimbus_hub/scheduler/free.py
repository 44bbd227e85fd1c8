"""What is free in one datacenter: arrays over its hosts, by rack and name, changed in place.

``hold`` and its undoing are exact inverses, in any order, also for more than a host has
(a host may have shrunk). ``changes`` is the log of hosts that changed: who caches what he
computed of a host, like :class:`~nimbus_hub.scheduler.ranking.Ranking`, reads on from where
he was, so that the cost of a decision does not grow with the number of hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nimbus_hub.model.cluster import Rules
from nimbus_hub.model.host import Host
from nimbus_hub.model.slot import PORTS_PER_SLOT
from nimbus_hub.scheduler.shape import Shape

__all__ = ["ENDLESS", "WHOLE", "Free", "Hosts", "Ints", "Seat", "State", "is_model"]

Ints = NDArray[np.int64]
Hosts = Ints | slice
"""Places of hosts in the arrays."""

WHOLE = 1000
"""A whole GPU, in thousandths."""

ENDLESS = 2**40
"""So many that nobody counts them."""

_NONE = -1


State = tuple[int, int, bool, bytes, int]
"""What is free on a host, and the kind of host it is."""


class Seat(NamedTuple):
    """Where ``slots`` equal slots of one host would be: places of the host and its devices.

    The first ``shape.gpus`` devices are those of the first slot, and so on.
    """

    host: int
    devices: tuple[int, ...]
    shape: Shape
    slots: int = 1


@lru_cache(maxsize=4096)
def is_model(asked: str, model: str) -> bool:
    """Tell whether a GPU of ``model`` is what was asked for.

    ``A100`` and ``a100-sxm4`` both mean ``NVIDIA A100-SXM4-40GB``: whole words, any case.
    """
    words = f"-{model}-".casefold().replace(" ", "-")
    return f"-{asked}-".casefold().replace(" ", "-") in words


class Free:
    """What is free on the hosts of a datacenter.

    ``cpus`` and ``memory``: free milli-CPUs and bytes, shape (hosts,). ``gpus``: free
    thousandths of each device, shape (hosts, devices), negative where there is none (or
    where more is held than there is). ``models``: each device's place in ``model_names``,
    -1 where there is none. ``port_slots``: for how many slots there are ports.

    ``is_cautious``: every GPU keeps its reserve, free or not. For promises: whatever ends
    early then only makes more room.
    """

    def __init__(self, hosts: Sequence[Host], rules: Rules | None = None) -> None:
        """Start with all of these hosts free, whatever their state."""
        rules = rules or Rules()
        self.hosts = tuple(sorted(hosts, key=lambda host: (host.rack, host.name)))
        width = max((len(host.gpus) for host in self.hosts), default=0)
        names = sorted({gpu.model for host in self.hosts for gpu in host.gpus})
        self.model_names = tuple(names)
        self.cpus = np.array([host.cpus_milli for host in self.hosts], np.int64)
        self.memory = np.array([host.memory_bytes for host in self.hosts], np.int64)
        self.gpus = np.full((len(self.hosts), width), _NONE, np.int64)
        self.models = np.full((len(self.hosts), width), _NONE, np.int64)
        place = {name: at for at, name in enumerate(names)}
        for at, host in enumerate(self.hosts):
            self.gpus[at, : len(host.gpus)] = WHOLE
            self.models[at, : len(host.gpus)] = [place[gpu.model] for gpu in host.gpus]
        self.port_slots = np.array([_port_slots(host) for host in self.hosts], np.int64)
        self._reserve(rules)
        self._finish()
        self.rack_starts = np.array(
            [next(group)[0] for _, group in groupby(enumerate(self.hosts), lambda x: x[1].rack)],
            np.int64,
        )

    @classmethod
    def of_arrays(
        cls, cpus: Ints, memory: Ints, gpus: Ints, models: Ints, model_names: Sequence[str]
    ) -> Self:
        """Return a view of arrays that somebody else changes; he has to call ``changed``.

        All hosts are in one rack, nothing is reserved, and ports are endless.
        """
        free = cls.__new__(cls)
        free.hosts = ()
        free.model_names = tuple(model_names)
        free.cpus, free.memory, free.gpus, free.models = cpus, memory, gpus, models
        free.port_slots = np.full(len(cpus), ENDLESS, np.int64)
        free.reserve_cpus = np.zeros(len(cpus), np.int64)
        free.reserve_memory = np.zeros(len(cpus), np.int64)
        free.rack_starts = np.zeros(min(1, len(cpus)), np.int64)
        free._finish()
        return free

    def _reserve(self, rules: Rules) -> None:
        """Set what each free GPU keeps: at most half of its equal share of the host."""
        halves = [2 * max(1, len(host.gpus)) for host in self.hosts]
        self.reserve_cpus = np.array(
            [
                min(rules.reserve_cpus_milli, host.cpus_milli // half) if host.gpus else 0
                for host, half in zip(self.hosts, halves, strict=True)
            ],
            np.int64,
        )
        self.reserve_memory = np.array(
            [
                min(rules.reserve_memory_bytes, host.memory_bytes // half) if host.gpus else 0
                for host, half in zip(self.hosts, halves, strict=True)
            ],
            np.int64,
        )

    def _finish(self) -> None:
        self.is_cautious = False
        self._view()
        self._has_ports = bool((self.port_slots < ENDLESS).any())
        self._is_reserving = bool(self.reserve_cpus.any() or self.reserve_memory.any())
        self.has_gpus = (self.models != _NONE).any(axis=1)
        kinds: dict[tuple[bytes, int, int], int] = {}
        rows = zip(self.models, self.reserve_cpus, self.reserve_memory, strict=True)
        self._kinds = [
            kinds.setdefault((row.tobytes(), int(cpus), int(memory)), len(kinds))
            for row, cpus, memory in rows
        ]
        self.changes: list[int] = []
        self._states: list[State | None] = [None] * len(self.cpus)
        self._allowed: dict[tuple[str, ...], NDArray[np.bool_] | None] = {}

    def _view(self) -> None:
        """See the arrays as plain memory, too: a single number is read and set much faster."""
        self._cpus, self._memory = self.cpus.data, self.memory.data
        self._gpus, self._port_slots = self.gpus.data, self.port_slots.data

    def __len__(self) -> int:
        """Return the number of hosts."""
        return len(self.cpus)

    def changed(self, host: int) -> None:
        """Note that the arrays of a host were changed from outside."""
        self.changes.append(host)
        self._states[host] = None

    def hold(self, seat: Seat, sign: int = 1) -> None:
        """Take what slots need, or with -1 give it back."""
        host, devices, (cpus, memory, _, share, _), count = seat
        count *= sign
        self._cpus[host] -= count * cpus
        self._memory[host] -= count * memory
        self._port_slots[host] -= count
        share *= sign
        gpus = self._gpus
        for device in devices:
            gpus[host, device] -= share
        self.changes.append(host)
        self._states[host] = None

    def close(self, host: int, device: int) -> None:
        """Take a device out of service: it is there, and nothing of it is free."""
        self._gpus[host, device] -= WHOLE
        self.changed(host)

    def state(self, host: int) -> State:
        """Return all that a cost may depend on: hosts in one state are alike."""
        state = self._states[host]
        if state is None:
            state = self._states[host] = (
                self._cpus[host],
                self._memory[host],
                self._port_slots[host] > 0,
                self.gpus[host].tobytes(),
                self._kinds[host],
            )
        return state

    def allowed(self, models: tuple[str, ...]) -> NDArray[np.bool_] | None:
        """Return which devices are of these models, or None where all are."""
        if not models:
            return None
        if models not in self._allowed:
            wanted = [any(is_model(asked, name) for asked in models) for name in self.model_names]
            self._allowed[models] = np.array([*wanted, False])[self.models]
        return self._allowed[models]

    def free_gpus(self, models: tuple[str, ...] = (), at: Hosts = slice(None)) -> Ints:
        """Return the free thousandths of each device of these models, 0 for others."""
        free = np.maximum(self.gpus[at], 0)
        allowed = self.allowed(models)
        return free if allowed is None else np.where(allowed[at], free, 0)

    def count_gpus(self, models: tuple[str, ...] = ()) -> int:
        """Return how many devices of these models there are, free or not."""
        allowed = self.allowed(models)
        return int(np.count_nonzero(self.models != _NONE if allowed is None else allowed))

    def room(self, shape: Shape, at: Hosts = slice(None)) -> Ints:
        """Return how many slots of a shape fit on each host.

        Slots without GPUs get only what a host's free GPUs do not keep for themselves.
        """
        cpus, memory = self.cpus[at], self.memory[at]
        if not shape.gpus and self._is_reserving:
            cpus, memory = cpus - self.kept_cpus(at), memory - self.kept_memory(at)
        count = np.minimum(cpus // shape.cpus_milli, memory // shape.memory_bytes)
        np.minimum(count, self.port_slots[at], out=count)
        if shape.gpus:
            if shape.gpu_milli == WHOLE:
                whole = self.gpus[at] >= WHOLE
                allowed = self.allowed(shape.models)
                if allowed is not None:
                    whole &= allowed[at]
                devices = whole.sum(axis=1)
            else:
                devices = (self.free_gpus(shape.models, at) // shape.gpu_milli).sum(axis=1)
            if shape.gpus > 1:
                devices //= shape.gpus
            np.minimum(count, devices, out=count)
        return np.maximum(count, 0, out=count)

    def fits(self, shape: Shape, at: Ints) -> NDArray[np.bool_]:
        """Tell on which hosts at least one slot of a shape fits: where there is room."""
        cpus, memory = self.cpus[at], self.memory[at]
        if not shape.gpus and self._is_reserving:
            cpus, memory = cpus - self.kept_cpus(at), memory - self.kept_memory(at)
        fits = cpus >= shape.cpus_milli
        fits &= memory >= shape.memory_bytes
        if self._has_ports:
            fits &= self.port_slots[at] > 0
        if shape.gpus:
            enough = self.gpus[at] >= shape.gpu_milli
            allowed = self.allowed(shape.models)
            if allowed is not None:
                enough &= allowed[at]
            fits &= enough.any(axis=1) if shape.gpus == 1 else enough.sum(axis=1) >= shape.gpus
        return fits

    def kept_cpus(self, at: Hosts = slice(None)) -> Ints:
        """Return the milli-CPUs that each host keeps for its free GPUs."""
        return np.asarray(self.reserve_cpus[at] * self._keeping(at) // WHOLE, np.int64)

    def kept_memory(self, at: Hosts = slice(None)) -> Ints:
        """Return the bytes that each host keeps for its free GPUs."""
        return np.asarray(self.reserve_memory[at] * self._keeping(at) // WHOLE, np.int64)

    def _keeping(self, at: Hosts) -> Ints:
        """Return the thousandths of GPUs of each host that keep a reserve."""
        if self.is_cautious:
            return np.asarray((self.models[at] != _NONE).sum(axis=1) * WHOLE, np.int64)
        return np.asarray(np.maximum(self.gpus[at], 0).sum(axis=1), np.int64)

    def fitting_devices(self, shape: Shape, host: int) -> list[int]:
        """Return the devices of a host with enough left for a shape, in their order."""
        share = shape.gpu_milli
        free = self.gpus[host].tolist()
        allowed = self.allowed(shape.models)
        if allowed is None:
            return [device for device, left in enumerate(free) if left >= share]
        own = allowed[host].tolist()
        return [device for device, left in enumerate(free) if left >= share and own[device]]

    def rack_of(self, host: int) -> int:
        """Return the place of a host's rack."""
        return int(np.searchsorted(self.rack_starts, host, side="right")) - 1

    def rack(self, rack: int) -> slice:
        """Return the hosts of a rack."""
        last = len(self) if rack + 1 == len(self.rack_starts) else int(self.rack_starts[rack + 1])
        return slice(int(self.rack_starts[rack]), last)

    def copy(self) -> Self:
        """Return an independent view in the same state."""
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other.cpus, other.memory = self.cpus.copy(), self.memory.copy()
        other.gpus, other.port_slots = self.gpus.copy(), self.port_slots.copy()
        other.changes = []
        other._states = self._states.copy()
        other._view()
        return other


def _port_slots(host: Host) -> int:
    """Return for how many slots a host has ports; with addresses of their own they share none."""
    for_ports = (host.last_port - host.first_port + 1) // PORTS_PER_SLOT
    return ENDLESS if host.network and for_ports else for_ports
