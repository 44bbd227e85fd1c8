"""Idle debug gangs of a real hub, with warm replicas: who runs nothing is told, and then ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nimbus_hub.client import Client, Gang, GangRequest, GroupRequest, Lease
from tests.hub.conftest import Terminal, wait_for

pytestmark = pytest.mark.hub

RULE = """\
leases:
  - kind: debug
    idle: 4s
    idle_warning: 2s
    idle_ends: {ends}
"""
NOTE = r"idle for \ds: no job, CPU and GPU at rest"
LONG = "import time\nprint('begun', flush=True)\ntime.sleep(10)\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    file.write_text(RULE.format(ends="false"))
    return file


@pytest.fixture(scope="module")
def configuration(cluster: Path) -> str:
    return f"c = get_config()\nc.NimbusHub.cluster_file = {str(cluster)!r}\n"


def held(client: Client) -> Gang:
    """Return a gang whose replicas are warm."""
    gang = client.request_gang(GangRequest(groups=(GroupRequest(count=2, memory="256M"),)))
    while gang.state in ("queued", "warming"):
        gang = client.gang(gang.lease.id, after=gang.version)
    assert (gang.state, [each.state for each in gang.replicas]) == ("ready", ["running"] * 2)
    return gang


def told(client: Client, gang: Gang) -> Lease:
    """Return the lease of a gang as soon as its user is told that it is idle."""
    lease = wait_for(
        lambda: (seen := client.lease(gang.lease.id)).note and seen, 60, "told that it is idle"
    )
    assert isinstance(lease, Lease)
    return lease


def test_a_gang_that_runs_nothing_is_told_of_until_it_is_used_or_kept(terminal: Terminal) -> None:
    client = terminal.client
    gang = held(client)
    idle = told(client, gang)
    assert re.fullmatch(f"{NOTE}; keep it, or give it back", idle.note), idle.note
    assert (idle.state, idle.expires_at) == ("active", gang.lease.expires_at)
    (terminal.directory / "long.py").write_text(LONG)
    with terminal.start("nimbus-run", "--on", "held", "long.py") as run:
        assert run.stdout is not None
        assert "begun" in run.stdout.readline()
        # It takes longer than the time-out: what is checked is that nothing is told.
        while run.poll() is None:
            lease = client.lease(gang.lease.id)
            assert lease.note == ""
            client.lease(gang.lease.id, after=lease.version, timeout=0.5)
    assert run.returncode == 0
    told(client, gang)
    assert client.keep(gang.lease.id).note == ""
    told(client, gang)
    client.release(gang.lease.id)
    given_back = wait_for(
        lambda: (seen := client.gang(gang.lease.id)).state == "ended" and seen, 30, "given back"
    )
    assert [each.state for each in given_back.replicas] == ["exited"] * 2


def test_a_gang_that_runs_nothing_ends_where_the_rules_say_so(
    terminal: Terminal, cluster: Path
) -> None:
    client = terminal.client
    gang = held(client)
    cluster.write_text(RULE.format(ends="true"))
    idle = wait_for(
        lambda: "it ends at" in (seen := client.lease(gang.lease.id)).note and seen, 60, "told"
    )
    assert re.fullmatch(f"{NOTE}; it ends at .* UTC unless it is kept", idle.note), idle.note
    over = wait_for(
        lambda: (seen := client.gang(gang.lease.id)).state == "ended" and seen, 60, "ended"
    )
    assert over.lease.state == "expired"
    assert re.fullmatch(NOTE, over.lease.reason), over.lease.reason
    assert [each.state for each in over.replicas] == ["exited"] * 2
