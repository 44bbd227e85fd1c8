"""Policies: what the rules of the cluster file make of the defaults."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nimbus_hub.control.cluster import read_cluster
from nimbus_hub.control.policies import Policies
from nimbus_hub.control.settings import Settings
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.cluster import Cluster, UserGroup
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeasePolicy, LeaseRule, Signal, ruled
from nimbus_hub.model.slot import SlotGroup

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SESSION, JOB, DEBUG = LeaseKind.SESSION, LeaseKind.JOB, LeaseKind.DEBUG
RULES = """\
groups:
  - {name: vision, users: [ann, bob]}
  - {name: guests, users: [eve]}
leases:
  - {kind: session, idle: 2h, idle_warning: 15m}
  - {kind: session, gpus: 1, idle: 30m, idle_warning: 10m, gpu_busy: 0.2}
  - {group: guests, default: 1h, longest: 2h, latest_end: 4h, renewals: 3}
  - {size: small, idle: never}
  - {kind: debug, group: vision, idle_ends: true, activity: [jobs, gpu]}
"""


def rules(tmp_path: Path, text: str = RULES, sizes: list[str] | None = None) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return read_cluster(path, sizes=sizes)


def found(
    tmp_path: Path, kind: LeaseKind, owner: str, size: str = "", gpus: int = 0
) -> LeasePolicy:
    cluster = rules(tmp_path)
    policies = Policies(Settings("", b"").policies, lambda: cluster)
    return policies.find(kind, owner, size, [SlotGroup("worker", 1, gpus=gpus)])


@pytest.mark.parametrize(
    ("kind", "owner", "size", "gpus", "changes"),
    [
        (SESSION, "zoe", "", 0, {"idle": 2 * HOUR, "idle_warning": 15 * MINUTE}),
        (
            SESSION,
            "zoe",
            "",
            2,
            {"idle": 30 * MINUTE, "idle_warning": 10 * MINUTE, "gpu_busy": 0.2},
        ),
        (SESSION, "ann", "small", 0, {"idle": None, "idle_warning": 15 * MINUTE}),
        (
            SESSION,
            "eve",
            "",
            0,
            {
                "idle": 2 * HOUR,
                "idle_warning": 15 * MINUTE,
                "default": HOUR,
                "longest": 2 * HOUR,
                "latest_end": 4 * HOUR,
                "renewals": 3,
            },
        ),
        (JOB, "ann", "", 0, {}),
        (DEBUG, "zoe", "", 0, {}),
        (
            DEBUG,
            "ann",
            "",
            4,
            {"idle_ends": True, "activity": frozenset({Signal.JOBS, Signal.GPU})},
        ),
    ],
)
def test_rules_change_what_they_match_the_later_over_the_earlier(
    tmp_path: Path, kind: LeaseKind, owner: str, size: str, gpus: int, changes: dict[str, object]
) -> None:
    default = Settings("", b"").policies[kind]
    assert found(tmp_path, kind, owner, size, gpus) == replace(default, **changes)  # type: ignore[arg-type]


def test_without_rules_the_settings_hold() -> None:
    defaults = Settings("", b"").policies
    policies = Policies(defaults, Cluster)
    assert {kind: policies.find(kind, "ann") for kind in LeaseKind} == dict(defaults)
    debug = defaults[DEBUG]
    assert (debug.default, debug.idle, debug.idle_ends) == (HOUR, 20 * MINUTE, False)
    assert defaults[SESSION].idle is None


def test_a_file_that_changed_counts_at_once() -> None:
    clusters = [Cluster(leases=(LeaseRule(sets={"idle": HOUR}),)), Cluster()]
    policies = Policies(Settings("", b"").policies, lambda: clusters[0])
    assert policies.find(SESSION, "ann").idle == HOUR
    del clusters[0]
    assert policies.find(SESSION, "ann").idle is None


def test_who_changes_group_has_the_policy_of_the_new_one() -> None:
    rule = LeaseRule(group="vision", sets={"renewals": 1})
    clusters = [
        Cluster(groups=(UserGroup("vision", frozenset({who})),), leases=(rule,))
        for who in ("ann", "bob")
    ]
    policies = Policies(Settings("", b"").policies, lambda: clusters[0])
    assert [policies.find(SESSION, who).renewals for who in ("ann", "bob")] == [1, 100]
    del clusters[0]
    assert [policies.find(SESSION, who).renewals for who in ("ann", "bob")] == [100, 1]


@pytest.mark.parametrize(
    ("sets", "bounds"),
    [
        ({"longest": HOUR}, (1, 1, 12)),
        ({"latest_end": HOUR}, (1, 1, 1)),
        ({"latest_end": 4 * HOUR}, (2, 4, 4)),
        ({"default": 24 * HOUR}, (24, 24, 24)),
        ({"longest": 24 * HOUR}, (2, 24, 24)),
        ({"default": 3 * HOUR, "latest_end": 4 * HOUR}, (3, 4, 4)),
        ({"latest_end": 48 * HOUR}, (2, 12, 48)),
    ],
)
def test_a_bound_that_is_set_moves_those_that_are_not(
    sets: dict[str, object], bounds: tuple[int, int, int]
) -> None:
    policy = LeaseRule(sets=sets).applied_to(LeasePolicy())
    lengths = (policy.default, policy.longest, policy.latest_end)
    assert lengths == tuple(hours * HOUR for hours in bounds)


def test_a_short_time_out_is_warned_of_at_half_of_it() -> None:
    policy = LeaseRule(sets={"idle": 10 * MINUTE}).applied_to(LeasePolicy())
    assert policy.idle_warning == 5 * MINUTE
    later = LeaseRule(sets={"idle_warning": HOUR}).applied_to(policy)
    assert later.idle_warning == 5 * MINUTE


def test_a_job_is_never_idle_whatever_a_rule_for_all_says() -> None:
    rule = LeaseRule(sets={"idle": HOUR})
    assert ruled(LeasePolicy(), [rule], JOB, None, "", 0).idle is None
    assert ruled(LeasePolicy(), [rule], SESSION, None, "", 0).idle == HOUR


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("leases: {}", ":1: leases must be a list, got a mapping"),
        ("leases:\n  - {kind: notebook}", ":2: leases[0].kind must be one of session, job, debug"),
        ("leases:\n  - {group: vision}", ":2: leases[0].group must be a group, and there is none"),
        (
            "groups: [{name: vision}]\nleases:\n  - group: visoin",
            ":3: leases[0].group must be one of vision, got 'visoin'",
        ),
        ("leases:\n  - {size: tiny}", ":2: leases[0].size must be one of large, small, got 'tiny'"),
        ("leases:\n  - {gpus: some}", ":2: leases[0].gpus must be a number of at least 0"),
        ("leases:\n  - {idle: soon}", ":2: leases[0].idle must be like 90m, 2h or 1d, got 'soon'"),
        ("leases:\n  - {idle: 0}", ":2: leases[0].idle must be more than 0"),
        (
            "leases:\n  - {idle: 5m, idle_warning: 6m}",
            ":2: leases[0] is wrong: idle_warning must be less than idle (5m), got 6m",
        ),
        (
            "leases:\n  - {default: 2h, longest: 1h}",
            ":2: leases[0] is wrong: a lease policy needs 0 < default <= longest <= latest_end",
        ),
        ("leases:\n  - {kind: job, idle: 1h}", ":2: leases[0] is wrong: a job is never idle"),
        ("leases:\n  - {renewals: -1}", ":2: leases[0].renewals must be a whole number of at"),
        ("leases:\n  - {warnings: 5m}", ":2: leases[0].warnings must be a list, got '5m'"),
        ("leases:\n  - {warnings: [x]}", ":2: leases[0].warnings[0] must be like 90m, 2h or 1d"),
        ("leases:\n  - {activity: cpu}", ":2: leases[0].activity must be a list, got 'cpu'"),
        (
            "leases:\n  - activity: [cpu, kernel]",
            ":2: leases[0].activity[1] must be one of kernels, terminals, processes, cpu, gpu, "
            "jobs, connections, got 'kernel'",
        ),
        ("leases:\n  - {cpu_busy: 2}", ":2: leases[0].cpu_busy must be a number from 0.001 to 1"),
        ("leases:\n  - {gpu_busy: 0}", ":2: leases[0].gpu_busy must be a number from 0.001 to 1"),
        ("leases:\n  - {idle_end: yes}", ":2: leases[0].idle_end is not known; did you mean idle"),
    ],
)
def test_a_wrong_rule_is_refused_with_line_and_key(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rules(tmp_path, text, sizes=["small", "large"])
    assert refused.value.message.startswith(f"{tmp_path / 'cluster.yaml'}{sentence}")


def test_renewals_lead_as_far_as_their_number_and_the_latest_end() -> None:
    policy = LeasePolicy(longest=4 * HOUR, renewal=2 * HOUR, renewals=3)
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    latest = noon + 10 * HOUR
    assert policy.renewable_until(noon, latest, 0) == latest
    assert policy.renewable_until(noon, latest, 2) == noon + 4 * HOUR
    assert policy.renewable_until(noon, latest, 3) is None
    assert policy.renewable_until(latest, latest, 0) is None
