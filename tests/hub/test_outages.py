"""A service that is killed over the end of a lease, and started again.

These tests wait: for the end of a lease, and for long enough that it is an outage.
"""

from __future__ import annotations

import signal
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from nimbus_hub.up.processes import ProcessRecord
from tests.hub.conftest import HubProcess, User, wait_for

pytestmark = pytest.mark.hub


def moment(lease: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(lease[name])


def kill_service(hub: HubProcess) -> None:
    service = ProcessRecord.read(hub.state.service_record)
    assert service is not None
    service.send(signal.SIGKILL)
    wait_for(lambda: not service.is_alive, 10, "service gone")


def the(user: User, lease_id: str) -> dict[str, Any]:
    return next(lease for lease in user.leases() if lease["id"] == lease_id)


def test_after_an_outage_there_are_two_minutes_to_act(hub: HubProcess, user: User) -> None:
    user.start(duration="10s")
    (lease,) = user.leases("live")
    hub.kill()
    kill_service(hub)
    time.sleep(22)
    hub.start()
    moved = wait_for(lambda: [each for each in user.leases("live") if each["note"]], 10, "note")[0]
    assert (moved["id"], moved["state"]) == (lease["id"], "active")
    left = moment(moved, "expires_at") - moment(moved, "now")
    assert timedelta(seconds=100) < left <= timedelta(minutes=2)
    assert moved["note"].startswith("the service was away from ")
    assert user.http.get(f"/user/{user.name}/lab").status_code == 200


def test_a_quick_restart_over_the_end_reclaims_at_once(hub: HubProcess, user: User) -> None:
    user.start(duration="12s")
    (lease,) = user.leases("live")
    end = moment(lease, "expires_at")
    wait_for(lambda: end - moment(the(user, lease["id"]), "now") < timedelta(seconds=2), 20, "end")
    kill_service(hub)
    wait_for(lambda: not user.is_running, 30, "session stopped")
    (over,) = wait_for(
        lambda: [each for each in user.leases() if each["id"] == lease["id"] and each["is_ended"]],
        10,
        "lease over",
    )
    assert (over["state"], over["note"]) == ("expired", "")
    assert over["reason"].startswith("its lease ran out and was not renewed")
    assert moment(over, "ended_at") >= end == moment(over, "expires_at")
