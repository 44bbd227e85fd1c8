"""The end of a session for real: its script, its processes, and the same session again."""

from __future__ import annotations

import html
import re
import signal

import psutil
import pytest

from nimbus_hub.up.processes import ProcessRecord
from tests.hub.conftest import HubProcess, Terminal, User, wait_for

pytestmark = pytest.mark.hub

SCRIPT = """#!/bin/sh
echo "$NIMBUS_LEASE_ID $NIMBUS_REASON" > told
echo saving
# What does not want to end and hides in a session of its own.
setsid python3 -c '
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("stubborn", "w").write(str(os.getpid()))
time.sleep(300)' > /dev/null 2>&1 &
while [ ! -s stubborn ]; do sleep 0.1; done
exit 7
"""


def test_at_the_end_the_script_runs_and_then_every_process_is_ended(
    hub: HubProcess, user: User
) -> None:
    directory = hub.home / ".nimbus"
    directory.mkdir(exist_ok=True)
    script = directory / "before-reclaim"
    script.write_text(SCRIPT)
    script.chmod(0o700)
    try:
        user.start(duration="10m")
        kernel = user.http.post(f"/user/{user.name}/api/kernels", headers=_headers(user))
        assert kernel.status_code == 201, kernel.text
        (lease,) = user.leases("live")
        processes = _processes_of(lease["id"])
        assert len(processes) >= 2
        with Terminal(user, hub.directory).client as client:
            client.release(lease["id"], "tried out")
        wait_for(lambda: not user.leases("live"), 60, "lease over")
    finally:
        script.unlink()
    (ended,) = (each for each in user.leases() if each["id"] == lease["id"])
    outcome = "before-reclaim: exit code 7, see ~/.nimbus/before-reclaim.log"
    assert ended["reason"] == f"tried out; {outcome}"
    assert (hub.home / "told").read_text() == f"{lease['id']} tried out\n"
    assert "saving\n" in (directory / "before-reclaim.log").read_text()
    stubborn = int((hub.home / "stubborn").read_text())
    assert not ProcessRecord.of(stubborn).is_alive
    assert [record for record in processes if record.is_alive] == []


def test_the_same_session_is_a_click_away_after_an_end(hub: HubProcess, user: User) -> None:
    user.start(size="medium", duration="11m")
    (first,) = user.leases("live")
    record = ProcessRecord.read(next(hub.state.sessions.glob("*.json")))
    assert record is not None
    record.send(signal.SIGKILL)
    wait_for(lambda: not user.leases("live"), 10, "lease released")
    page = wait_for(lambda: _with_button(user), 10, "the notice")
    link = html.unescape(re.search(r'nimbus-again" href="([^"]+)"', page)[1])
    user.http.get(link)
    wait_for(lambda: [each for each in user.leases("live") if each["state"] == "active"], 30, "it")
    (second,) = user.leases("live")
    assert second["id"] != first["id"]
    for field in ("size", "environment", "length_seconds", "groups", "queue"):
        assert second[field] == first[field]
    assert second["size"] == "medium"
    # Asked again, as by the page that waits for it, the address leads to JupyterLab.
    shown = user.http.get(link)
    assert shown.url.path == f"/user/{user.name}/lab"
    assert [each["id"] for each in user.leases("live")] == [second["id"]]


def _with_button(user: User) -> str:
    page = user.http.get("/hub/home").text
    return page if "nimbus-again" in page else ""


def _headers(user: User) -> dict[str, str]:
    token = user.api("POST", f"/users/{user.name}/tokens", json={"expires_in": 600}).json()
    return {"Authorization": f"token {token['token']}"}


def _processes_of(lease_id: str) -> list[ProcessRecord]:
    return [
        ProcessRecord.of(process.pid)
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("NIMBUS_LEASE_ID") == lease_id
    ]
