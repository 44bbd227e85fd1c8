"""Devices: GPUs whose memory is still held after the end of the lease that had them.

A device that comes back is looked at before it is given to anybody else, where its driver can be
asked. While something holds its memory it is out of service, which its host says, and so does
the scheduler to who waits for it. What held it before the service started is found out, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.records import Records
from nimbus_hub.errors import NimbusError, Unavailable
from nimbus_hub.executors.base import GpuReader
from nimbus_hub.model.host import Device, HeldMemory
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.quantities import format_memory

__all__ = ["Devices"]

log = logging.getLogger(__name__)

FLOOR_BYTES = 256 * 2**20
"""What drivers keep for themselves is less."""
_PATIENCE = timedelta(seconds=10)
"""How long freeing may take that is not worth a word."""
_FIRST_PAUSE = timedelta(seconds=0.25)
_LONGEST_PAUSE = timedelta(seconds=30)
_FREEING = "its memory is being looked at after the end of a lease"


@dataclass(slots=True)
class _Doubt:
    """A device of which it is not known that it is free; ``is_told`` that it is held."""

    since: datetime
    is_told: bool = False


class Devices:
    """Looks at devices that came back, and tells the inventory which are out of service."""

    def __init__(self, records: Records, inventory: Inventory) -> None:
        self._records = records
        self._inventory = inventory
        self._doubts: dict[Device, _Doubt] = {}
        self._faults: dict[Device, str] = {}
        self._due: dict[str, datetime] = {}
        self._pauses: dict[str, timedelta] = {}
        records.listen(self._hear)

    def begin(self) -> None:
        """Look at all devices that nobody holds; until then they are taken for free."""
        self._doubt(self._readable({host.name for host in self._inventory.hosts}))

    def due(self, now: datetime) -> list[str]:
        """Return the hosts whose devices are to be looked at."""
        return [host for host, at in self._due.items() if at <= now]

    @property
    def next_due(self) -> datetime | None:
        """Return when some host is."""
        return min(self._due.values(), default=None)

    async def look(self, host: str) -> None:
        """Look at the devices of a host that are in doubt and that no live lease holds."""
        began = self._records.clock.now()
        memory = await self._ask(host)
        # Asked for last: what was granted meanwhile is somebody's own.
        live = await self._records.live()
        slots = [slot for lease in live.leases if lease.state.is_holding for slot in lease.slots]
        for device in [Device(slot.host, gpu) for slot in slots for gpu in slot.gpus]:
            if device.host == host and device in self._doubts:
                self._clear(device)
        now = self._records.clock.now()
        doubts = {each: doubt for each, doubt in self._doubts.items() if each.host == host}
        for device, doubt in doubts.items():
            # One that came back meanwhile may have been asked of before.
            if memory is not None and doubt.since <= began:
                self._judge(device, doubt, memory.get(device.index), now)
        if any(device in self._doubts for device in doubts):
            pause = self._pauses[host]
            self._due[host] = now + pause
            self._pauses[host] = min(2 * pause, _LONGEST_PAUSE)
        else:
            self._due.pop(host, None)
        self._tell()

    def _hear(self, written: Lease | Job) -> None:
        """Have the devices of a lease that is over looked at before anybody else gets them."""
        if not isinstance(written, Lease) or not written.state.is_end:
            return
        had = {Device(slot.host, gpu) for slot in written.slots for gpu in slot.gpus}
        if back := had and had & self._readable({device.host for device in had}):
            self._faults.update(dict.fromkeys(back, _FREEING))
            self._doubt(back)
            self._tell()

    def _doubt(self, devices: Set[Device]) -> None:
        now = self._records.clock.now()
        for device in devices:
            self._doubts[device] = _Doubt(now)
            self._due[device.host], self._pauses[device.host] = now, _FIRST_PAUSE

    def _readable(self, names: Set[str]) -> set[Device]:
        """Return the devices of hosts that their drivers know."""
        return {
            Device(host.name, gpu.index)
            for host in self._inventory.hosts
            if host.name in names
            for gpu in host.gpus
            if gpu.uuid
        }

    async def _ask(self, host: str) -> Mapping[int, HeldMemory] | None:
        """Return what is held of a host's devices; None if it does not answer just now."""
        try:
            executor = self._inventory.executor(host)
            if not isinstance(executor, GpuReader):
                return {}
            async with asyncio.timeout(_LONGEST_PAUSE.total_seconds()):
                return await executor.gpu_memory(host)
        except (Unavailable, TimeoutError) as error:
            log.info("the GPUs of host %s are looked at later: %s", host, error)
            return None
        except NimbusError as error:
            log.warning("the GPUs of host %s cannot be looked at: %s", host, error)
            return {}

    def _judge(self, device: Device, doubt: _Doubt, held: HeldMemory | None, now: datetime) -> None:
        """Take a device out of service, or back into it."""
        if held is None or held.bytes <= FLOOR_BYTES:
            if doubt.is_told:
                log.info("GPU %d of host %s is free again", device.index, device.host)
            self._clear(device)
            return
        self._faults[device] = _words(held)
        if not doubt.is_told and now - doubt.since >= _PATIENCE:
            doubt.is_told = True
            words = self._faults[device]
            log.warning("GPU %d of host %s is out of service: %s", device.index, device.host, words)

    def _clear(self, device: Device) -> None:
        del self._doubts[device]
        self._faults.pop(device, None)

    def _tell(self) -> None:
        if self._inventory.note_gpu_faults(self._faults):
            self._records.wake()


def _words(held: HeldMemory) -> str:
    by = ""
    if held.pids:
        word = "process" if len(held.pids) == 1 else "processes"
        by = f" by {word} {', '.join(map(str, held.pids))}"
    return f"{format_memory(held.bytes)} of its memory are held{by}, but by no lease"
