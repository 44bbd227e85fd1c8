"""Rankings: the best host for a shape, kept up to date host by host.

The costs of all hosts are in blocks with the least of each block beside them: a host that
changed costs one block, and the best is found in the least of the blocks.
"""

from __future__ import annotations

import numpy as np

from nimbus_hub.scheduler.free import Free, Ints, Seat, State
from nimbus_hub.scheduler.placement import Floats, Placement, chosen
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Ranking", "Rooms"]

_BLOCK = 64
_NOWHERE = float("inf")
_MOST = 64
_FEW = 4
_MOST_STATES = 100_000
_STRAY = 1e9
"""Added for a slot without GPUs on a host with some: first all hosts without."""


class Ranking:
    """The costs of one slot of a shape on every host of a view.

    Hosts in the same state cost the same: while few hosts change between two questions,
    what was computed once for a state is looked up.
    """

    def __init__(self, free: Free, placement: Placement, shape: Shape) -> None:
        self._free = free
        self._placement = placement
        self._shape = shape
        blocks = max(1, -(-len(free) // _BLOCK))
        self._costs = np.full(blocks * _BLOCK, np.inf)
        self._blocks = self._costs.reshape(blocks, _BLOCK)
        self._known: dict[State, float] = {}
        self._devices: dict[State, tuple[int, ...]] = {}
        self._has_strays = not shape.gpus and bool(free.has_gpus.any())
        self._seen = len(free.changes)
        self._compute(np.arange(len(free)))
        self._least = self._blocks.min(axis=1)

    def best(self) -> Seat | None:
        """Return the seat that costs least, or None if a slot fits nowhere."""
        self._refresh()
        block = int(self._least.argmin())
        host = block * _BLOCK + int(self._blocks[block].argmin())
        return None if self._costs[host] == _NOWHERE else self.seat(host)

    def seat(self, host: int) -> Seat:
        """Return the seat on a host on which a slot fits."""
        if not self._shape.gpus:
            return Seat(host, (), self._shape)
        state = self._free.state(host)
        devices = self._devices.get(state)
        if devices is None:
            if len(self._devices) > _MOST_STATES:
                self._devices.clear()
            fitting = self._free.fitting_devices(self._shape, host)
            devices = chosen(self._placement, self._shape, host, fitting)
            self._devices[state] = devices
        return Seat(host, devices, self._shape)

    def costs(self) -> Floats:
        """Return the costs of all hosts, infinite where a slot does not fit; do not change."""
        self._refresh()
        return self._costs[: len(self._free)]

    def _refresh(self) -> None:
        changes = self._free.changes
        new = len(changes) - self._seen
        if not new:
            return
        hosts = changes[self._seen :]
        self._seen = len(changes)
        if new <= _FEW:
            hosts = [host for host in hosts if not self._is_known(host)]
            if not hosts:
                return
        else:
            hosts = list(set(hosts))
        at = np.array(hosts)
        self._compute(at)
        if len(hosts) > len(self._blocks) // 2:
            self._blocks.min(axis=1, out=self._least)
        else:
            touched = list({host // _BLOCK for host in hosts})
            self._least[touched] = self._blocks[touched].min(axis=1)
        if new <= _FEW:
            self._remember(hosts)

    def _is_known(self, host: int) -> bool:
        """Set the cost of a host and return True if its state was seen before."""
        cost = self._known.get(self._free.state(host))
        if cost is None:
            return False
        self._costs[host] = cost
        block = host // _BLOCK
        if cost < self._least[block]:
            self._least[block] = cost
        else:
            self._least[block] = self._blocks[block].min()
        return True

    def _remember(self, hosts: list[int]) -> None:
        if len(self._known) > _MOST_STATES:
            self._known.clear()
        for host in hosts:
            self._known[self._free.state(host)] = float(self._costs[host])

    def _compute(self, at: Ints) -> None:
        costs = self._placement.costs(self._shape, at)
        if self._has_strays:
            costs = costs + _STRAY * self._free.has_gpus[at]
        costs[~self._free.fits(self._shape, at)] = np.inf
        self._costs[at] = costs


class Rooms:
    """How many slots of a shape fit on every host, and how many in each rack.

    ``_histogram[rack, k]`` counts the rack's hosts with room for ``_sizes[k]`` slots; more
    than _MOST count as _MOST, which only makes the number of hosts needed an estimate.
    """

    def __init__(self, free: Free, shape: Shape, hosts: Ints | None = None) -> None:
        """Count now; ``hosts`` is the room of each, if not all of it may be used."""
        self._free = free
        self._shape = shape
        self._count(free.room(shape) if hosts is None else hosts)

    def _count(self, hosts: Ints) -> None:
        free = self._free
        self.hosts = hosts
        starts = free.rack_starts
        self._rack_of = np.repeat(np.arange(len(starts)), np.diff([*starts, len(free)]))
        self.racks = np.bincount(self._rack_of, self.hosts, len(starts)).astype(np.int64)
        self.total = int(self.hosts.sum())
        most = int(min(_MOST, self.hosts.max(initial=0)))
        self._sizes = np.arange(most, -1, -1)
        self._histogram = np.zeros((len(starts), most + 1), np.int64)
        np.add.at(self._histogram, (self._rack_of, most - np.minimum(self.hosts, most)), 1)
        self._seen = len(free.changes)

    @property
    def most(self) -> int:
        """Return a bound on the slots that fit on one host: none has room for more."""
        sizes = len(self._sizes) - 1
        return sizes if sizes < _MOST else int(self.hosts.max())

    def refresh(self) -> None:
        """Look again at the hosts that changed."""
        changes = self._free.changes
        if self._seen == len(changes):
            return
        at = np.array(list(set(changes[self._seen :])))
        self._seen = len(changes)
        now, then = self._free.room(self._shape, at), self.hosts[at]
        most = len(self._sizes) - 1
        if most < _MOST and int(now.max()) > most:
            self._count(self._free.room(self._shape))
            return
        racks, grown = self._rack_of[at], now - then
        self.hosts[at] = now
        np.add.at(self.racks, racks, grown)
        self.total += int(grown.sum())
        np.add.at(self._histogram, (racks, most - np.minimum(then, most)), -1)
        np.add.at(self._histogram, (racks, most - np.minimum(now, most)), 1)

    def tightest_rack(self, count: int, among: Ints | None = None) -> int | None:
        """Return the rack that holds ``count`` slots on the fewest hosts, then the fullest."""
        racks = np.flatnonzero(self.racks >= count)
        if among is not None:
            racks = np.intersect1d(racks, among)
        if len(racks) < 2:
            return int(racks[0]) if len(racks) else None
        hosts = self._histogram[racks]
        slots = (hosts * self._sizes).cumsum(axis=1)
        enough = (slots >= count).argmax(axis=1)
        rows = np.arange(len(racks))
        spare = (slots[rows, enough] - count) // np.maximum(self._sizes[enough], 1)
        needed = hosts.cumsum(axis=1)[rows, enough] - spare
        return int(racks[(needed * (2**32) + self.racks[racks]).argmin()])
