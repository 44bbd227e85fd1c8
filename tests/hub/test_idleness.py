"""Idle sessions of a real hub: who does nothing is warned and ended, who works is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.hub.conftest import HubProcess, User, wait_for
from tests.hub.kernel import Kernel

pytestmark = pytest.mark.hub

CLUSTER = """\
leases:
  - kind: session
    idle: 16s
    idle_warning: 8s
"""
BUSY_SECONDS = 30


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    cluster = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    cluster.write_text(CLUSTER)
    return (
        "c = get_config()\n"
        f"c.NimbusHub.cluster_file = {str(cluster)!r}\n"
        "c.NimbusHub.save_time = '1s'\n"
        # Nothing of this is other with it: sessions of processes and the service talk all the same.
        "c.JupyterHub.internal_ssl = True\n"
    )


@contextmanager
def running_cell(user: User, code: str) -> Iterator[None]:
    """Have a new kernel of the session run a cell, as a page does that is then closed."""
    kernel = Kernel(user)
    request = kernel.send(code)

    def is_busy() -> bool:
        message = kernel.message(request)
        return bool(
            message["msg_type"] == "status" and message["content"]["execution_state"] == "busy"
        )

    wait_for(is_busy, 30, "the cell runs")
    kernel.disconnect()
    yield
    kernel.end()


def test_a_session_in_which_nothing_happens_is_warned_and_ended(
    hub: HubProcess, user: User
) -> None:
    user.start()
    (lease,) = user.leases("live")
    assert lease["idle_seconds"] == 16
    warned = wait_for(
        lambda: next((one for one in user.leases("live") if one["note"]), None), 60, "warned"
    )
    assert warned["note"].startswith("idle for ")
    assert warned["expires_at"] == lease["expires_at"]
    wait_for(lambda: not user.leases("live"), 60, "ended")
    wait_for(lambda: not user.is_running, 30, "its server is gone")
    (ended, *_) = user.leases("ended")
    assert (ended["id"], ended["state"]) == (lease["id"], "expired")
    assert "no kernel, terminal, other process, job or input, CPU at rest" in ended["reason"]
    assert ended["reason"] in user.http.get("/hub/home").text


def test_a_busy_kernel_keeps_its_session_however_quiet_it_is(hub: HubProcess, user: User) -> None:
    user.start()
    (lease,) = user.leases("live")
    with running_cell(user, "import time; time.sleep(600)"):
        # Waits for longer than the time-out: what is checked is that nothing happens.
        marks = [one["note"] for one in looks(user, BUSY_SECONDS)]
        assert set(marks) == {""}
        assert [one["id"] for one in user.leases("live")] == [lease["id"]]
    wait_for(lambda: not user.leases("live"), 90, "ended when the kernel was gone")
    assert user.leases("ended")[0]["state"] == "expired"


def looks(user: User, seconds: float) -> Iterator[dict[str, object]]:
    """Yield the session's lease again and again, for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (lease,) = user.leases("live")
        yield lease
        time.sleep(1)
