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
_FEW = 4
_MOST_STATES = 100_000
_HOST_KEY = 2**32
_NO_RACK = 2**62
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
        number = host // _BLOCK
        if cost < self._least[number]:
            self._least[number] = cost
        else:
            block = self._blocks[number]
            self._least[number] = block[block.argmin()]
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
    """How many slots of a shape fit on every host and in each rack, and which rack is tightest.

    Each rack's key for a number of slots, by which the tightest is found, is kept until one
    of its hosts changes.
    """

    def __init__(self, free: Free, shape: Shape, hosts: Ints | None = None) -> None:
        """Count now; ``hosts`` is the room of each, if not all of it may be used."""
        self._free = free
        self._shape = shape
        self.hosts = free.room(shape) if hosts is None else hosts
        starts = free.rack_starts
        self._rack_of = np.repeat(np.arange(len(starts)), np.diff([*starts, len(free)]))
        self.racks = np.bincount(self._rack_of, self.hosts, len(starts)).astype(np.int64)
        self.total = int(self.hosts.sum())
        self.most = int(self.hosts.max(initial=0))
        """A bound on the slots that fit on one host: none has room for more."""
        self._seen = len(free.changes)
        self._touched: list[int] = []
        self._keys: dict[int, tuple[Ints, int]] = {}

    def refresh(self) -> None:
        """Look again at the hosts that changed."""
        changes = self._free.changes
        if self._seen == len(changes):
            return
        at = np.array(list(set(changes[self._seen :])))
        self._seen = len(changes)
        now = self._free.room(self._shape, at)
        grown = now - self.hosts[at]
        self.hosts[at] = now
        racks = self._rack_of[at]
        np.add.at(self.racks, racks, grown)
        self.total += int(grown.sum())
        self.most = max(self.most, int(now.max()))
        self._touched += set(racks.tolist())

    def tightest_rack(self, count: int, among: Ints | None = None) -> int | None:
        """Return the rack that holds ``count`` slots on the fewest hosts, then the fullest."""
        if len(self.racks) == 1:
            return 0 if self.racks[0] >= count else None
        keys = self._refreshed_keys(count)
        rack = int(keys.argmin() if among is None else among[keys[among].argmin()])
        return None if keys[rack] == _NO_RACK else rack

    def _refreshed_keys(self, count: int) -> Ints:
        keys, seen = self._keys.get(count) or (self._all_keys(count), len(self._touched))
        for rack in set(self._touched[seen:]):
            keys[rack] = self._key(rack, count)
        self._keys[count] = keys, len(self._touched)
        return keys

    def _key(self, rack: int, count: int) -> int:
        """Return the hosts needed in a rack, and how much room it has behind that."""
        if self.racks[rack] < count:
            return _NO_RACK
        needed, left = 0, count
        for room in sorted(self.hosts[self._free.rack(rack)].tolist(), reverse=True):
            needed += 1
            left -= room
            if left <= 0:
                break
        return needed * _HOST_KEY + int(self.racks[rack])

    def _all_keys(self, count: int) -> Ints:
        """Return the keys of all racks, at once."""
        by_room = np.sort(self._rack_of * _HOST_KEY - self.hosts)
        filled = (self._rack_of * _HOST_KEY - by_room).cumsum()
        before = self.racks.cumsum() - self.racks
        needed = np.searchsorted(filled, before + count) - self._free.rack_starts + 1
        return np.where(self.racks < count, _NO_RACK, needed * _HOST_KEY + self.racks)
