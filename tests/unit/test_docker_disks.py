"""Full disks: who is kept from new work, and until when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker import disks
from nimbus_hub.executors.docker.disks import Disks, is_full
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Host, HostState

HOST = Host("gpu-1", 1000, 2**30)
FULL = "the Docker engine of host gpu-1 says: write /x: no space left on device"


class Client(EngineClient):
    """An engine whose disk takes nothing until there is space."""

    has_space = False
    made = 0

    def make_image(self, reference: str, archive: bytes) -> None:
        Client.made += 1
        if not self.has_space:
            raise InvalidRequest(FULL)

    def use(self, work: Any, seconds: int = 0) -> Any:
        return None


def test_only_a_full_disk_is_one() -> None:
    assert is_full(FULL)
    assert not is_full("the Docker engine of host gpu-1 says: invalid reference format")


async def test_a_full_host_takes_nothing_until_it_has_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disks, "PROBE_SECONDS", 0)
    changes: list[HostState] = []
    found, client = Disks(), Client(Engine("gpu-1", "unix:///none"))
    found.on_change = lambda: changes.append(found.marked(HOST).state)
    found.note_full(client)
    found.note_full(client)
    assert "its disk is full: make room" in found.marked(HOST).state_reason
    other = Host("gpu-2", 1000, 2**30)
    assert found.marked(other) == other
    async with asyncio.timeout(5):
        while Client.made < 2:  # noqa: ASYNC110 - the probe counts in a thread
            await asyncio.sleep(0)
    assert changes == [HostState.DRAINING]
    client.has_space = True
    async with asyncio.timeout(5):
        while len(changes) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert changes == [HostState.DRAINING, HostState.READY]
    await found.close()
    client.close()
