"""The service's own wiring: engines come and go with the cluster file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nimbus_hub.app import NimbusHub
from nimbus_hub.control.control import Control
from nimbus_hub.control.draining import NoSessions
from nimbus_hub.model.engine import Engine

ENGINE = "engines:\n  - {host: %s, endpoint: '%s'}\n"


def names(control: Control) -> list[str]:
    return [host.name for host in control.inventory.hosts]


async def until_hosts_are(control: Control, wanted: list[str]) -> None:
    async with asyncio.timeout(15):
        while names(control) != wanted:  # noqa: ASYNC110 - a file is looked at every second
            await asyncio.sleep(0.05)


async def test_engines_come_and_go_with_the_cluster_file(
    engine: Engine, python_image: str, tmp_path: Path
) -> None:
    """Bound: 15 s for each change."""
    file = tmp_path / "cluster.yaml"
    file.write_text(ENGINE % ("gpu-1", engine.endpoint))
    app = NimbusHub(
        state_dir=str(tmp_path / "state"),
        cluster_file=str(file),
        environments={"default": {"image": python_image}},
    )
    control = app.control(NoSessions())
    await app._executors.prepare()
    await control.inventory.refresh()
    # This machine is no host beside engines unless it is declared.
    assert names(control) == ["gpu-1"]
    (host,) = control.inventory.hosts
    assert (host.executor, host.state) == ("docker", "ready")
    assert host.network
    following = [asyncio.create_task(each) for each in app._following(control)]
    try:
        new = Engine("gpu-2", engine.endpoint, datacenter="far")
        found = {check.name: check for check in await control.inventory.check_engine(new)}
        assert {check.text for name, check in found.items() if name in ("gpus", "runtime")} == {
            "none", "runc, none for GPUs",
        }  # fmt: skip
        assert [name for name, check in found.items() if not check.is_ok] in ([], ["disk"]), found
        assert names(control) == ["gpu-1"], "nothing is kept of a check"
        await control.inventory.add_engine(new)
        await until_hosts_are(control, ["gpu-1", "gpu-2"])
        file.write_text(ENGINE % ("gpu-2", engine.endpoint))
        await until_hosts_are(control, ["gpu-2"])
        file.write_text("hosts: [{name: here, cpus: 2, memory: 4G}]\n")
        await until_hosts_are(control, ["here"])
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await app._executors.close()
        control.close()
