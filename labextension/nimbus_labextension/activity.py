"""What happens in this session: which signal of activity showed last, and when.

Times are of a clock that only runs forward (seconds), and what others keep with times of the
wall clock, like kernels their last activity, counts as having happened when it was seen to
change: a clock that is set makes nobody idle.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from nimbus_hub.model.policy import LeasePolicy, Signal
from nimbus_labextension.gpus import Gpus
from nimbus_labextension.processes import Process, Processes, Share, gained

__all__ = ["Connections", "Measure", "Rooms", "rooms_of"]

_BYTES_PER_SECOND = 20
"""Less than this is what open pages send by themselves to be kept connected."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the server's own managers say of kernels and terminals at one moment.

    ``kernels`` and ``terminals`` change with each activity there.
    """

    kernels: Hashable = ()
    terminals: Hashable = ()
    busy_kernels: int = 0
    kernel_pids: frozenset[int] = frozenset()
    terminal_pids: frozenset[int] = frozenset()


def rooms_of(settings: Mapping[str, Any]) -> Rooms:
    """Return kernels and terminals of a server with these settings."""
    manager = settings.get("kernel_manager")
    kernels = (
        [(each, manager.get_kernel(each)) for each in manager.list_kernel_ids()] if manager else []
    )
    terminals = dict(getattr(settings.get("terminal_manager"), "terminals", {}))
    states = {name: getattr(kernel, "execution_state", None) for name, kernel in kernels}
    return Rooms(
        tuple((name, states[name], getattr(one, "last_activity", None)) for name, one in kernels),
        tuple((name, getattr(one, "last_activity", None)) for name, one in terminals.items()),
        sum(state == "busy" for state in states.values()),
        _pids(getattr(one, "provisioner", None) for _, one in kernels),
        _pids(getattr(one, "ptyproc", None) for one in terminals.values()),
    )


class Connections:
    """The open websockets of a server, and whether their browsers send input."""

    def __init__(self) -> None:
        self._bytes_in: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def watch(self, settings: dict[str, Any]) -> None:
        """See every websocket that is opened: the server logs it, as any answered request."""
        log_request: Callable[[Any], None] = settings["log_function"]

        def log_and_see(handler: Any) -> None:
            log_request(handler)
            if handler.get_status() == 101:
                self._bytes_in[handler] = 0

        settings["log_function"] = log_and_see

    def had_input(self, seconds: float) -> bool:
        """Tell whether one got more than keeps it open, in the seconds since the last call."""
        most = 0
        for handler, before in list(self._bytes_in.items()):
            # Closed ones have none; tornado counts data, not its pings.
            found = getattr(handler.ws_connection, "_message_bytes_in", before)
            self._bytes_in[handler] = found
            most = max(most, found - before)
        return most > _BYTES_PER_SECOND * seconds


@dataclass(slots=True)
class Measure:
    """Measures again and again; knows when each signal last showed, at the start at first.

    ``clock`` tells seconds and only runs forward. ``cpu_busy`` and ``gpu_busy`` are shares of
    a core and of a GPU that count as busy.
    """

    server: int
    processes: Processes
    gpus: Gpus
    clock: Callable[[], float]
    cpu_busy: float = LeasePolicy().cpu_busy
    gpu_busy: float = LeasePolicy().gpu_busy
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    memory_bytes: int = 0
    _rooms: Rooms = field(default_factory=Rooms)
    _share: Share | None = None
    _looked_at: float = field(init=False)
    _showed_at: dict[Signal, float] = field(init=False)

    def __post_init__(self) -> None:
        """Begin now: a session that has just started is not idle."""
        self._looked_at = self.clock()
        always = (Signal.KERNELS, Signal.TERMINALS, Signal.CONNECTIONS)
        self._showed_at = dict.fromkeys(always, self._looked_at)

    @property
    def seconds(self) -> float:
        """Return the seconds since the last look."""
        return self.clock() - self._looked_at

    def quiet_seconds(self, signal: Signal) -> float:
        """Return for how long a signal did not show."""
        return self.clock() - self._showed_at[signal]

    def show(self, signal: Signal, seconds_ago: float = 0.0) -> None:
        """Note that a signal showed so long ago."""
        shown = self.clock() - max(0.0, seconds_ago)
        self._showed_at[signal] = max(shown, self._showed_at.get(signal, shown))

    def look(self, rooms: Rooms) -> None:
        """Measure; reads files, so it is for a thread."""
        seconds = max(self.seconds, 0.001)
        self._looked_at = self.clock()
        self._look_at_rooms(rooms)
        self._look_at_processes(rooms, seconds)
        self._look_at_gpus(seconds)

    def body(self, open_documents: Iterable[str]) -> dict[str, object]:
        """Return the report of the last look."""
        now = self.clock()
        return {
            "idle_seconds": {
                signal.value: round(now - shown, 1) for signal, shown in self._showed_at.items()
            },
            "busy_kernels": self._rooms.busy_kernels,
            "cpu_seconds": round(self.cpu_seconds, 2),
            "gpu_seconds": round(self.gpu_seconds, 2),
            "memory_bytes": self.memory_bytes,
            "open_documents": list(open_documents),
        }

    def _look_at_rooms(self, rooms: Rooms) -> None:
        before, self._rooms = self._rooms, rooms
        if rooms.busy_kernels or rooms.kernels != before.kernels:
            self.show(Signal.KERNELS)
        if rooms.terminals != before.terminals:
            self.show(Signal.TERMINALS)

    def _look_at_processes(self, rooms: Rooms, seconds: float) -> None:
        before = self._share
        share = self.processes.look(self.server, rooms.kernel_pids, rooms.terminal_pids)
        self._share = share
        if share is None:
            return
        self.memory_bytes = sum(each.memory_bytes for each in share.all.values())
        if before is None:
            # What was used until now is used, but not all of it just now.
            self.cpu_seconds = sum(each.cpu_seconds for each in share.all.values())
            self.show(Signal.CPU)
            self.show(Signal.PROCESSES)
            return
        used = gained(share.all, before.all)
        self.cpu_seconds += used
        self._show_if(used / seconds, Signal.CPU)
        self._show_if(_rate(share.others, before.others, seconds), Signal.PROCESSES)
        self._show_if(_rate(share.terminals, before.terminals, seconds), Signal.TERMINALS)

    def _show_if(self, cpu_share: float, signal: Signal) -> None:
        if cpu_share >= self.cpu_busy:
            self.show(signal)

    def _look_at_gpus(self, seconds: float) -> None:
        shares = self.gpus.busy_shares()
        if not shares:
            self._showed_at.pop(Signal.GPU, None)
            return
        self.gpu_seconds += sum(shares) * seconds
        if Signal.GPU not in self._showed_at or max(shares) >= self.gpu_busy:
            self.show(Signal.GPU)


def _rate(now: Mapping[int, Process], before: Mapping[int, Process], seconds: float) -> float:
    return gained(now, before) / seconds


def _pids(owners: Iterable[Any]) -> frozenset[int]:
    """Return the process ids of those that have one; a kernel elsewhere has none here."""
    found = (getattr(owner, "pid", None) for owner in owners)
    return frozenset(pid for pid in found if isinstance(pid, int))
