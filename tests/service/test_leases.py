import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.client import Client, GroupRequest
from nimbus_hub.client.resources import Lease
from nimbus_hub.errors import Conflict, Ended, Forbidden, Impossible, InvalidRequest, NotFound
from tests.service.conftest import Service
from tests.service.waiting import until

NOTEBOOK = (GroupRequest("notebook", 1, 1, "2G"),)
FOUR_GPUS = (GroupRequest("notebook", 1, 1, "2G", 4),)


@pytest.fixture
def hub(service: Service) -> Client:
    return service.client("admin-token")


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


def held(service: Service, hub: Client, owner: str = "ada", **wish: object) -> Lease:
    lease = hub.request_lease(owner=owner, **{"groups": NOTEBOOK, **wish})  # type: ignore[arg-type]
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "granted")
    service.servers.alive.add((owner, lease.name))
    return hub.activate(lease.id)


def ended(client: Client, lease: Lease) -> Lease:
    return until(lambda: client.lease(lease.id), lambda seen: seen.is_ended)


def test_a_lease_is_queued_granted_and_active(service: Service, hub: Client) -> None:
    lease = hub.request_lease(owner="ada", groups=NOTEBOOK)
    assert lease.state == "queued"
    granted = until(lambda: hub.lease(lease.id), lambda seen: seen.state == "granted")
    assert [(slot.host, slot.gpus) for slot in granted.slots] == [("cpu-1", ())]
    active = hub.activate(lease.id)
    assert active.state == "active"
    assert active.expires_at is not None
    assert active.active_at is not None
    assert active.expires_at - active.active_at == timedelta(hours=2)
    assert hub.activate(lease.id).version == active.version


def test_who_waits_knows_position_reason_and_start(service: Service, hub: Client) -> None:
    held(service, hub, groups=FOUR_GPUS)
    bob = hub.request_lease(owner="bob", groups=FOUR_GPUS)
    seen = until(lambda: hub.lease(bob.id), lambda seen: seen.position is not None)
    assert seen.position == 1
    assert "GPU" in seen.reason
    assert seen.starts_by is not None
    assert [lease.id for lease in service.client("bob-token").queue()] == [bob.id]
    assert service.client("ada-token").queue() == ()


def test_a_released_slot_goes_to_who_waits(service: Service, hub: Client) -> None:
    first = held(service, hub, groups=FOUR_GPUS)
    bob = hub.request_lease(owner="bob", groups=FOUR_GPUS)
    hub.release(first.id, "stopped by ada", is_stopped=True)
    until(lambda: hub.lease(bob.id), lambda seen: seen.state == "granted")
    assert ended(hub, first).reason == "stopped by ada"


def test_renewing_moves_the_end_to_the_step_from_now(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, duration="30m")
    renewed = ada.renew(lease.id)
    assert renewed.expires_at is not None
    left = renewed.expires_at - renewed.now
    assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)
    assert renewed.renewals == 1


def test_renewals_at_once_count_as_one(service: Service, hub: Client, ada: Client) -> None:
    lease = held(service, hub, duration="30m")
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: service.client("ada-token").renew(lease.id), range(8)))
    assert {one.renewals for one in seen} == {1}


def test_a_lease_cannot_be_renewed_past_its_latest_end(service: Service, hub: Client) -> None:
    lease = held(service, hub, duration="12h")
    assert not lease.can_renew
    with pytest.raises(Conflict, match="cannot be renewed past"):
        hub.renew(lease.id)


def test_a_lease_that_runs_out_is_saved_stopped_and_expired(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, duration="2m")
    service.skip(timedelta(minutes=2, seconds=1))
    until(lambda: ada.lease(lease.id), lambda seen: seen.state == "expiring")
    assert service.servers.stopping == []
    ada.saved(lease.id)
    over = ended(ada, lease)
    assert over.state == "expired"
    assert "ran out" in over.reason
    assert service.servers.stopping[0] == ("ada", "")


def test_an_ending_session_that_never_says_saved_is_stopped_anyway(
    service: Service, hub: Client
) -> None:
    lease = held(service, hub, duration="2m")
    service.skip(timedelta(minutes=3))
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "expiring")
    service.skip(timedelta(seconds=2))
    assert ended(hub, lease).state == "expired"


def test_an_ended_lease_cannot_be_renewed_and_says_what_to_do(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub)
    hub.release(lease.id, "stopped by ada", is_stopped=True)
    with pytest.raises(Ended, match=r"ended at .* \(stopped by ada\); start a new session"):
        ada.renew(lease.id)


def test_a_renewal_that_moves_a_promised_start_tells_both(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, groups=FOUR_GPUS)
    bob = hub.request_lease(owner="bob", groups=FOUR_GPUS)
    until(lambda: hub.lease(bob.id), lambda seen: seen.starts_by is not None)
    service.skip(timedelta(minutes=30))
    renewed = ada.renew(lease.id)
    assert renewed.note.startswith("renewed although another request, which was promised a start")
    told = service.client("bob-token").lease(bob.id)
    assert told.starts_by == renewed.expires_at
    assert told.note.endswith("a lease it waits for was renewed")
    assert "ada" not in told.note


def test_a_renewal_over_the_patience_of_who_was_promised_is_refused(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, groups=FOUR_GPUS)
    bob = hub.request_lease(owner="bob", groups=FOUR_GPUS, wait="125m")
    until(lambda: hub.lease(bob.id), lambda seen: seen.starts_by is not None)
    service.skip(timedelta(minutes=30))
    with pytest.raises(Conflict, match="another request, which waits for what it holds, was"):
        ada.renew(lease.id)
    assert hub.lease(lease.id).renewals == 0


def test_giving_back_stops_the_server_first(service: Service, hub: Client, ada: Client) -> None:
    lease = held(service, hub)
    assert ada.release(lease.id).state == "expiring"
    ada.saved(lease.id)
    over = ended(ada, lease)
    assert (over.state, over.reason) == ("released", "given back by ada; its documents were saved")


def test_patience_that_is_over_cancels_with_the_reason(service: Service, hub: Client) -> None:
    held(service, hub, groups=FOUR_GPUS)
    bob = hub.request_lease(owner="bob", groups=FOUR_GPUS, wait="5m")
    until(lambda: hub.lease(bob.id), lambda seen: seen.position == 1)
    service.skip(timedelta(minutes=6))
    over = ended(hub, bob)
    assert over.state == "cancelled"
    assert over.reason.startswith("nothing was free within")
    assert "GPU" in over.reason


def test_a_second_lease_for_the_same_session_is_refused(service: Service, hub: Client) -> None:
    lease = held(service, hub)
    with pytest.raises(Conflict, match=f"holds lease {lease.id} already"):
        hub.request_lease(owner="ada", groups=NOTEBOOK)
    hub.request_lease(owner="ada", name="second", groups=NOTEBOOK)


def test_a_granted_session_that_never_starts_is_given_up(service: Service, hub: Client) -> None:
    lease = hub.request_lease(owner="ada", groups=NOTEBOOK)
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "granted")
    service.skip(timedelta(minutes=6))
    over = ended(hub, lease)
    assert (over.state, over.reason) == ("lost", "the session did not start within 5m")


def test_warnings_come_once_and_in_time(service: Service, hub: Client) -> None:
    lease = held(service, hub, duration="20m")
    seconds = []
    with service.raw("ada-token") as http, http.stream("GET", "/api/v1/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": ping"  # from here on nothing is missed
        for minutes in (5, 10, 4):
            service.skip(timedelta(minutes=minutes, seconds=1))
            next(line for line in lines if line == "event: warning")
            seconds.append(json.loads(next(lines).removeprefix("data: "))["seconds"])
    assert seconds == [900, 300, 60]
    assert hub.lease(lease.id).state == "active"


@pytest.mark.parametrize(
    ("wish", "error", "sentence"),
    [
        ({"groups": (GroupRequest("notebook", 1, 1, "lots"),)}, InvalidRequest, "got 'lots'"),
        ({"groups": (GroupRequest("notebook", 1, 0),)}, InvalidRequest, "cpus must be more than 0"),
        ({"groups": (GroupRequest("notebook", 0),)}, InvalidRequest, "at least 1, got 0"),
        ({"groups": (GroupRequest("notebook", 1, 1, "2G", 5),)}, Impossible, "4"),
        ({"groups": (GroupRequest("notebook", 1, 1, "2G", "H100:1"),)}, Impossible, "A100"),
        ({"duration": "soon"}, InvalidRequest, "duration must be like 90m, 2h or 1d"),
        ({"duration": "13h"}, InvalidRequest, "at most 12h, got 13h"),
        ({"environment": "cobol"}, InvalidRequest, "there is no environment 'cobol'"),
    ],
)
def test_a_bad_request_is_one_sentence_and_changes_nothing(
    hub: Client, wish: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        hub.request_lease(owner="ada", **{"groups": NOTEBOOK, **wish})  # type: ignore[arg-type]
    assert hub.leases(state="all") == ()


def test_nobody_reaches_what_is_anothers(service: Service, hub: Client) -> None:
    lease = held(service, hub)
    bob = service.client("bob-token")
    for attempt in (bob.lease, bob.renew, bob.release, bob.saved):
        with pytest.raises(NotFound, match=f"there is no lease {lease.id}"):
            attempt(lease.id)
    with pytest.raises(Forbidden):
        bob.activate(lease.id)
    assert bob.leases(state="all") == ()
    assert hub.lease(lease.id).version == lease.version


def test_only_the_hub_says_that_a_session_stopped(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub)
    with pytest.raises(Forbidden):
        ada.release(lease.id, is_stopped=True)
    assert ada.lease(lease.id).state == "active"


def last_beat(service: Service) -> datetime:
    assert service.control is not None
    beat = service.control.records.store.last_beat()
    return datetime.min.replace(tzinfo=UTC) if beat is None else beat.at


def test_a_service_that_was_started_again_over_the_end_reclaims_at_once(
    service: Service, hub: Client
) -> None:
    lease = held(service, hub, duration="2m")
    service.skip(timedelta(seconds=115))
    now = service.clock.now()
    until(lambda: last_beat(service), lambda at: at >= now)
    service.stop()
    service.clock.ahead += timedelta(seconds=8)
    service.start()
    seen = until(lambda: hub.lease(lease.id), lambda seen: seen.state == "expiring")
    assert seen.expires_at == lease.expires_at
    assert ended(hub, lease).state == "expired"


def test_after_an_outage_there_are_two_minutes_to_act_and_then_it_is_over(
    service: Service, hub: Client
) -> None:
    lease = held(service, hub, duration="2m")
    service.stop()
    service.clock.ahead += timedelta(minutes=30)
    service.start()
    seen = until(lambda: hub.lease(lease.id), lambda seen: bool(seen.note))
    assert seen.expires_at is not None
    left = (seen.expires_at - seen.now).total_seconds()
    assert seen.state == "active"
    assert 105 < left <= 120
    assert re.fullmatch(
        r"the service was away from \d\d:\d\d UTC to .* UTC, so this ends no sooner than .* UTC",
        seen.note,
    )
    service.skip(timedelta(seconds=121))
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "expiring")
    hub.saved(lease.id)
    assert ended(hub, lease).state == "expired"
