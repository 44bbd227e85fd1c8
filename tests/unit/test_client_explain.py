"""What is said of waiting and of plans: compared whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nimbus_hub.client import Job, Lease, Plan, PlanHost, Site, decode
from nimbus_hub.client.explain import detail_text, plan_text, utc_moment, waiting_text
from tests.unit import fake_service as fake

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
STARTS = datetime(2025, 3, 1, 14, 32, tzinfo=UTC)
WAITS = {"position": 2, "reason": "waits for 1 GPU.", "starts_by": "2025-03-01T14:32:00Z"}
WAITING = decode(Plan, fake.waiting(**WAITS))
STARTING = decode(
    Plan,
    fake.plan(
        slots=[
            *(fake.slot(index, "a-1") for index in range(3)),
            fake.slot(3, "a-2"),
        ],
        hosts=[
            {
                "name": "a-1", "datacenter": "east", "rack": "r1", "gpus_milli": 3000,
                "slots": ["worker-0", "worker-1", "worker-2", "ps-0"],
            },
            {
                "name": "a-2", "datacenter": "east", "rack": "r2", "gpus_milli": 500,
                "slots": ["worker-3", "worker-5"],
            },
        ],
        placement="4 workers on 2 hosts in 2 racks: 500M per step cross racks",
    ),
)  # fmt: skip
SITES = (
    Site("asia", 120 * 2**30, 1030.0, None, is_chosen=False, reason="has no A100"),
    Site("east", 0, 0.0, 1500.0, is_chosen=True, reason=""),
)


def in_utc(moment: datetime) -> str:
    return utc_moment(moment, NOON)


@pytest.mark.parametrize(
    "waiting",
    [
        WAITING,
        decode(Lease, fake.lease(state="queued", **WAITS)),
        decode(Job, fake.job(state="queued", **WAITS)),
    ],
    ids=["plan", "lease", "job"],
)
def test_waiting_reads_the_same_whatever_waits(waiting: Plan | Lease | Job) -> None:
    assert waiting_text(waiting, in_utc) == (
        "position 2: waits for 1 GPU; starts at the latest 14:32 UTC"
    )


def test_what_others_did_to_it_comes_last() -> None:
    lease = decode(Lease, fake.lease(state="queued", **WAITS, note="bob renewed."))
    assert waiting_text(lease, in_utc).endswith("14:32 UTC; bob renewed")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("", "queued"),
        ("position 2: why", "queued, position 2: why"),
        ("being scheduled", "queued: being scheduled"),
    ],
)
def test_a_position_stands_beside_the_state_and_a_reason_behind_it(said: str, text: str) -> None:
    assert f"queued{detail_text(said)}" == text


def test_a_day_is_named_only_if_it_is_another() -> None:
    assert utc_moment(STARTS, NOON) == "14:32 UTC"
    assert utc_moment(STARTS.replace(day=2), NOON) == "Mar 02 14:32 UTC"


def test_a_plan_that_starts_shows_hosts_racks_gpus_and_why() -> None:
    assert plan_text(STARTING) == (
        "would start now on a-1 (3), a-2\n"
        "  4 workers on 2 hosts in 2 racks: 500M per step cross racks\n"
        "2 hosts in 2 racks of east:\n"
        "  host  rack  slots  GPUs  which\n"
        "  a-1   r1    4      3     worker-0..2, ps-0\n"
        "  a-2   r2    2      0.5   worker-3, worker-5"
    )


def test_a_plan_shows_the_datacenters_it_weighed_and_the_one_it_chose() -> None:
    plan = replace(WAITING, sites=SITES, starts_by=None)
    assert plan_text(plan) == (
        "would wait (resources), position 2: waits for 1 GPU\n"
        "Datacenters weighed:\n"
        "  datacenter  to move  transfer  wait     why\n"
        "* east        0B       0s        25m      least in all\n"
        "  asia        120G     17m10s    unknown  has no A100"
    )


@pytest.mark.parametrize(
    ("count", "ids", "line"),
    [
        (1, (), "  1 preemptible lease would be stopped for it"),
        (2, ("l-1", "l-2"), "  2 preemptible leases would be stopped for it: l-1, l-2"),
    ],
)
def test_a_plan_says_what_would_be_stopped_for_it(
    count: int, ids: tuple[str, ...], line: str
) -> None:
    plan = replace(WAITING, preemptions=count, preempted_lease_ids=ids)
    assert plan_text(plan).splitlines()[1] == line


def test_a_plan_on_one_host_counts_in_the_singular() -> None:
    host = PlanHost("a-1", "east", "r1", ("worker-0",), 0)
    assert "1 host in 1 rack of east:\n" in plan_text(replace(STARTING, hosts=(host,)))
