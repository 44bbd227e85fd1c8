"""TensorFlow's master: its roles, TF_CONFIG, when a job is done, whom it replaces or refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.environment import contract_environment
from nimbus_hub.masters.tensorflow import TensorFlowMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LAUNCH = Launch(("python", "train.py", "--fast"))
MASTER = TensorFlowMaster()
RUN = ("python", "-u", "-m", "nimbus_hub.replica", "tensorflow", "train.py", "--fast")
SERVE = RUN[:5]
WORKER, CHIEF, PS, EVALUATOR = map(SlotGroup, ("worker", "chief", "ps", "evaluator"))
LARGE = SlotGroup("worker", 2, 500, gpus=1)


def job(**options: str) -> Job:
    return Job("j-1", "digits", "ada", "l-1", replace(LAUNCH, options=options), NOW)


def slots(*roles: str) -> tuple[Slot, ...]:
    """Return a slot for each role, at ports 20000, 20004 and so on."""
    return tuple(
        Slot(
            role,
            roles[:rank].count(role),
            *("a", "10.0.0.1", 1000, 2**30, ()),
            tuple(range(20000 + 4 * rank, 20004 + 4 * rank)),
        )
        for rank, role in enumerate(roles)
    )


def commands(*roles: str, **options: str) -> list[ReplicaCommand]:
    given = slots(*roles)
    return [MASTER.command(job(**options), given, rank) for rank in range(len(roles))]


def config(cluster: dict[str, list[int]], role: str, index: int) -> dict[str, object]:
    where = {name: [f"10.0.0.1:{port}" for port in ports] for name, ports in cluster.items()}
    return {"cluster": where, "task": {"type": role, "index": index}}


def replica(
    role: str, rank: int, exit_code: int | None = None, seconds: int = 0, restarts: int = 0
) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    made = Replica(f"r{rank}", "j-1", 1, role, rank, rank, "a", state, exit_code, ended_at=ended)
    return replace(made, restarts=restarts)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ((WORKER,), (WORKER,)),
        ((CHIEF, WORKER), (CHIEF, WORKER)),
        ((EVALUATOR, WORKER), (WORKER, EVALUATOR)),
        (
            (PS, EVALUATOR, LARGE),
            (SlotGroup("chief", 1, 500), LARGE, PS, EVALUATOR),
        ),
        ((PS, WORKER, CHIEF), (CHIEF, WORKER, PS)),
    ],
)
def test_a_chief_is_added_to_parameter_servers_and_those_that_serve_come_last(
    asked: tuple[SlotGroup, ...], taken: tuple[SlotGroup, ...]
) -> None:
    assert MASTER.accept(LAUNCH, asked) == taken
    assert MASTER.accept(LAUNCH, taken) == taken


def test_the_world_is_those_that_run_the_script() -> None:
    assert MASTER.services({"chief", "worker", "evaluator"}) == {"evaluator"}
    assert MASTER.services({"chief", "worker", "ps"}) == {"worker", "ps", "evaluator"}


def test_keras_is_the_legacy_one_unless_the_user_says_otherwise() -> None:
    def keras(launch: Launch) -> str:
        mine, where = replace(job(), launch=launch), slots("worker")
        env = contract_environment(mine, where, 0, (), "", "", defaults=MASTER.defaults)
        assert env["TF_CPP_MIN_LOG_LEVEL"] == "1"
        return env["TF_USE_LEGACY_KERAS"]

    assert keras(LAUNCH) == "1"
    assert keras(replace(LAUNCH, env={"TF_USE_LEGACY_KERAS": "0"})) == "0"


def test_one_worker_runs_the_command_as_it_is_and_an_evaluator_knows_what_it_is() -> None:
    assert commands("worker") == [ReplicaCommand(LAUNCH.argv)]
    alone, evaluator = commands("worker", "evaluator")
    assert alone == ReplicaCommand(LAUNCH.argv)
    assert (evaluator.argv, dict(evaluator.needs)) == (LAUNCH.argv, {})
    assert json.loads(evaluator.env["TF_CONFIG"]) == config({"worker": [20000]}, "evaluator", 0)


def test_workers_know_where_all_are_and_the_first_waits_for_the_others() -> None:
    found = commands("chief", "worker", "worker", timeout="7")
    cluster = {"chief": [20000], "worker": [20004, 20008]}
    assert [each.argv for each in found] == [RUN] * 3
    assert [each.env.pop("TENSORFLOW_TIMEOUT") for each in found] == ["7"] * 3
    assert [json.loads(each.env.pop("TF_CONFIG")) for each in found] == [
        config(cluster, role, index) for role, index in (("chief", 0), ("worker", 0), ("worker", 1))
    ]
    assert [each.env for each in found] == [{}] * 3
    assert [dict(each.needs) for each in found] == [
        {"worker-0": "10.0.0.1:20004", "worker-1": "10.0.0.1:20008"},
        {"chief-0": "10.0.0.1:20000"},
        {"chief-0": "10.0.0.1:20000"},
    ]


def test_with_parameter_servers_only_the_chief_runs_the_script() -> None:
    chief, *servers = commands("chief", "worker", "ps", "evaluator")
    needs = {"worker-0": "10.0.0.1:20004", "ps-0": "10.0.0.1:20008"}
    assert (chief.argv, dict(chief.needs)) == (RUN, needs)
    assert [(each.argv, dict(each.needs)) for each in servers] == [
        (SERVE, {}),
        (SERVE, {}),
        (LAUNCH.argv, {}),
    ]
    cluster = {"chief": [20000], "worker": [20004], "ps": [20008]}
    assert json.loads(servers[1].env["TF_CONFIG"]) == config(cluster, "ps", 0)
    assert json.loads(servers[2].env["TF_CONFIG"]) == config(cluster, "evaluator", 0)


def test_every_attempt_has_other_ports() -> None:
    second = replace(job(), attempt=2)
    found = MASTER.command(second, slots("worker", "worker"), 0)
    assert json.loads(found.env["TF_CONFIG"]) == config({"worker": [20001, 20005]}, "worker", 0)


def test_all_reducing_workers_must_all_succeed_and_an_evaluator_need_not_end() -> None:
    workers = replica("worker", 0, 0), replica("worker", 1, 0)
    assert MASTER.judge(job(), (*workers, replica("evaluator", 2))) == Verdict(Outcome.SUCCEEDED)
    lost = replica("worker", 1, -9, seconds=1)
    failed = replica("worker", 0, 1, seconds=2), lost
    assert MASTER.judge(job(), failed) == Verdict(Outcome.FAILED, lost)


def test_the_chief_decides_and_no_parameter_server_may_die_before_it() -> None:
    chief, worker = replica("chief", 0), replica("worker", 1)
    ps, lost = replica("ps", 2), replica("ps", 2, -9, seconds=1)
    assert MASTER.judge(job(), (chief, worker, ps)) == Verdict(Outcome.RUNNING)
    done = replica("chief", 0, 0), replica("worker", 1, -9), ps
    assert MASTER.judge(job(), done) == Verdict(Outcome.SUCCEEDED)
    failed = replica("chief", 0, 1, seconds=2), worker, lost
    assert MASTER.judge(job(), failed) == Verdict(Outcome.FAILED, lost)
    evaluator = replica("evaluator", 3, 1)
    assert MASTER.judge(job(), (chief, worker, ps, evaluator)) == Verdict(Outcome.FAILED, evaluator)


def test_a_lost_worker_of_servers_is_replaced_alone_but_not_for_ever() -> None:
    chief, ps, other = replica("chief", 0), replica("ps", 3), replica("worker", 2)

    def judged(lost: Replica, **options: str) -> Verdict:
        return MASTER.judge(job(**options), (chief, lost, other, ps))

    lost = replica("worker", 1, -9)
    assert judged(lost) == Verdict(Outcome.RUNNING, replace=(lost,))
    assert judged(lost, restarts="0") == Verdict(Outcome.FAILED, lost)
    third, fourth = (replace(lost, restarts=times) for times in (2, 3))
    assert judged(third) == Verdict(Outcome.RUNNING, replace=(third,))
    assert judged(fourth) == Verdict(Outcome.FAILED, fourth)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            (CHIEF, PS),
            "TensorFlow needs workers to compute, got only chief and ps; add --workers N",
        ),
        ((EVALUATOR,), "TensorFlow needs workers to compute, got only evaluator; add --workers N"),
        ((SlotGroup("chief", 2), WORKER), "TensorFlow has one chief, got 2; use --workers N"),
        (
            (WORKER, SlotGroup("tracker")),
            "TensorFlow runs N workers that all-reduce (--workers N), or a chief over workers and "
            "parameter servers (--workers N --ps M), and evaluators beside either; leave out role "
            "'tracker'",
        ),
    ],
)
def test_what_is_no_cluster_is_refused(groups: tuple[SlotGroup, ...], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(LAUNCH, groups)
    assert caught.value.message == said


@pytest.mark.parametrize("groups", [(SlotGroup("worker", 2),), (WORKER, PS), (CHIEF, WORKER)])
def test_several_processes_need_python(groups: tuple[SlotGroup, ...]) -> None:
    with pytest.raises(InvalidRequest, match="needs a Python script or module, got 'bash'"):
        MASTER.accept(Launch(("bash", "run.sh")), groups)


def test_senseless_options_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="timeout must be a number of at least 1, got '0'"):
        MASTER.accept(job(timeout="0").launch, (WORKER,))
    with pytest.raises(InvalidRequest, match="restarts must be a number of at least 0, got '-1'"):
        MASTER.accept(job(restarts="-1").launch, (WORKER, PS))
    with pytest.raises(InvalidRequest, match="restarts=2 is for workers of parameter servers"):
        MASTER.accept(job(restarts="2").launch, (WORKER,))
