"""Two at once, and the last moment: each has one result, and a sentence that people read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TypeVar

import pytest
from nimbus_spawner.ended import ended_notice

from nimbus_hub.client import Client, GroupRequest, Lease
from nimbus_hub.errors import Conflict, Ended, NimbusError
from tests.service.conftest import Service
from tests.service.waiting import until

NOTEBOOK = (GroupRequest("notebook", 1, 1, "2G"),)
FOUR_GPUS = (GroupRequest("notebook", 1, 1, "2G", 4),)
T = TypeVar("T")


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


def at_once(*actions: Callable[[], T]) -> list[T | NimbusError]:
    """Do all at the same moment; return what each came to."""
    barrier = Barrier(len(actions))

    def act(action: Callable[[], T]) -> T | NimbusError:
        barrier.wait(10)
        try:
            return action()
        except NimbusError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(act, actions))


def leases(found: Sequence[Lease | NimbusError]) -> list[Lease]:
    return [each for each in found if isinstance(each, Lease)]


# Renewal


def test_two_tabs_that_renew_at_once_count_as_one(service: Service, hub: Client) -> None:
    lease = held(service, hub, duration="30m")
    tabs = [service.client("ada-token") for _ in range(2)]
    first, second = leases(at_once(*(lambda tab=tab: tab.renew(lease.id, "1h") for tab in tabs)))
    assert first.renewals == second.renewals == 1
    assert first.expires_at == second.expires_at
    assert hub.lease(lease.id).renewals == 1


def test_a_renewal_never_goes_past_policy(service: Service, hub: Client, ada: Client) -> None:
    lease = held(service, hub, duration="2h")
    service.skip(timedelta(minutes=90))
    renewed = ada.renew(lease.id, "12h")
    assert renewed.expires_at == renewed.latest_end == lease.latest_end
    service.skip(timedelta(minutes=1))
    with pytest.raises(Conflict) as refused:
        ada.renew(lease.id)
    assert refused.value.message == (
        f"lease {lease.id} cannot be renewed past {lease.latest_end:%Y-%m-%d %H:%M} UTC, "
        "the latest end its policy allows; save your work and start again after it"
    )


def test_a_renewal_at_the_last_moment_wins_over_the_reaper_that_comes_after(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, duration="10m")
    service.skip(timedelta(minutes=9, seconds=58))
    renewed = ada.renew(lease.id)
    service.skip(timedelta(seconds=5))
    service.control.reconciler.wake()  # type: ignore[union-attr]
    assert ada.lease(lease.id, after=renewed.version, timeout=1.5).state == "active"
    assert service.servers.stopping == []


def test_a_renewal_after_the_reaper_came_is_told_that_the_lease_is_ending(
    service: Service, hub: Client, ada: Client
) -> None:
    lease = held(service, hub, duration="10m")
    service.skip(timedelta(minutes=10))
    until(lambda: ada.lease(lease.id), lambda seen: seen.state == "expiring")
    with pytest.raises(Ended) as refused:
        ada.renew(lease.id)
    assert refused.value.message == (
        f"lease {lease.id} is ending: its lease ran out and was not renewed; start again after it"
    )
    ada.saved(lease.id)
    over = ended(ada, lease)
    assert (over.state, over.renewals) == ("expired", 0)


def test_at_the_very_end_a_lease_is_either_renewed_or_ended_and_never_both(
    service: Service, hub: Client
) -> None:
    owned = [held(service, hub, name=f"s{number}", duration="10m") for number in range(6)]
    clients = [service.client("ada-token") for _ in owned]
    service.skip(timedelta(minutes=9, seconds=59))
    pairs = zip(clients, owned, strict=True)
    told = at_once(
        lambda: service.skip(timedelta(seconds=1)),
        *(lambda one=one, lease=lease: one.renew(lease.id) for one, lease in pairs),
    )[1:]
    service.skip(timedelta(seconds=2))  # nobody saves
    for lease, answer in zip(owned, told, strict=True):
        if isinstance(answer, Lease):
            assert hub.lease(lease.id).state == "active"
        else:
            assert isinstance(answer, Ended)
            assert "is ending: its lease ran out and was not renewed" in answer.message
            assert ended(hub, lease).state == "expired"


# The laptop is closed


def test_a_closed_laptop_ends_nothing_before_its_time_and_the_end_is_told_at_the_next_login(
    service: Service, hub: Client
) -> None:
    lease = held(service, hub)
    # Nobody polls, renews or reports: the browser and its machine are asleep.
    service.skip(timedelta(minutes=119))
    assert hub.lease(lease.id, after=lease.version, timeout=1.5).state == "active"
    assert service.servers.stopping == []
    service.skip(timedelta(minutes=2))
    until(lambda: hub.lease(lease.id), lambda seen: seen.state == "expiring")
    service.skip(timedelta(seconds=2))
    over = ended(hub, lease)
    assert over.ended_at is not None
    notice = ended_notice(over, "/hub/", "/user/ada/")
    assert re.sub(r"<time.*?>|</time>", "", notice).startswith(
        '<div class="alert alert-warning nimbus-session-ended" role="status">Your session ended '
        f"at {over.ended_at:%H:%M} UTC: its lease ran out and was not renewed."
    )
    assert "Start the same session again" in notice


# The queue


def test_who_cancels_while_queued_holds_nothing_and_is_told_so(
    service: Service, hub: Client, ada: Client
) -> None:
    first = held(service, hub, owner="bob", groups=FOUR_GPUS)
    queued = hub.request_lease(owner="ada", groups=FOUR_GPUS)
    until(lambda: ada.lease(queued.id), lambda seen: seen.position == 1)
    cancelled = ada.release(queued.id)
    assert (cancelled.state, cancelled.reason) == ("cancelled", "given back by ada")
    hub.release(first.id, "stopped by bob", is_stopped=True)
    ended(hub, first)
    assert ada.lease(queued.id, after=cancelled.version, timeout=1.5).state == "cancelled"
    with pytest.raises(Ended) as refused:
        ada.renew(queued.id)
    assert refused.value.message == (
        f"lease {queued.id} ended at {cancelled.ended_at:%Y-%m-%d %H:%M} UTC "
        "(given back by ada); start a new session or job"
    )
    assert hub.queue() == ()


def test_a_cancel_that_meets_the_grant_gives_back_what_was_granted(
    service: Service, hub: Client, ada: Client
) -> None:
    first = held(service, hub, owner="bob", groups=FOUR_GPUS)
    queued = hub.request_lease(owner="ada", groups=FOUR_GPUS)
    until(lambda: ada.lease(queued.id), lambda seen: seen.position == 1)
    at_once(
        lambda: ada.release(queued.id),
        lambda: hub.release(first.id, "stopped by bob", is_stopped=True),
    )
    over = ended(hub, queued)
    assert over.state in ("cancelled", "released")
    assert over.reason == "given back by ada"
    # What it held, if it held it for a moment, is there for the next one.
    assert held(service, hub, owner="eve", groups=FOUR_GPUS).state == "active"


def test_of_two_users_who_race_for_the_last_gpus_one_gets_them_and_the_other_knows_when(
    service: Service, hub: Client
) -> None:
    ask = [
        lambda owner=owner: hub.request_lease(owner=owner, groups=FOUR_GPUS)
        for owner in ("ada", "bob")
    ]
    asked = leases(at_once(*ask))
    assert len(asked) == 2
    seen = until(
        lambda: [hub.lease(each.id) for each in asked],
        lambda found: sorted(each.state for each in found) == ["granted", "queued"],
    )
    winner = next(each for each in seen if each.state == "granted")
    back = hub.activate(winner.id).expires_at
    (loser,) = (each for each in seen if each.state == "queued")
    sentence = f"waits for 4 GPUs; 4 come back at {back:%H:%M} UTC"
    told = until(lambda: hub.lease(loser.id), lambda lease: lease.starts_by == back)
    assert (told.position, told.reason) == (1, sentence)
    assert winner.owner not in f"{told.reason} {told.note}"
    hub.release(winner.id, "stopped", is_stopped=True)
    until(lambda: hub.lease(loser.id), lambda lease: lease.state == "granted")
