"""The replay of the trace is exact and trusts no policy; the command judges it by the goals."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.benchmarks.openb import Job, load, main, measure
from tests.benchmarks.openb_baselines import BestFit, FirstFit
from tests.benchmarks.openb_figures import Figures, as_table, goals
from tests.benchmarks.openb_replay import (
    WORKLOADS,
    Books,
    Choice,
    Cluster,
    Decide,
    Run,
    Shape,
    Task,
    Workload,
    factory,
    read_books,
    read_workload,
    replay,
    stream,
)

HOSTS = """sn,cpu_milli,memory_mib,gpu,model
a,64000,262144,2,P100
b,96000,393216,8,G2
c,16000,65536,2,T4
d,96000,393216,8,G2
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos
p0,12000,16384,1,1000,,LS
p1,6000,12288,1,460,,LS
p2,4000,8192,1,300,T4|P100,LS
p3,8000,8192,0,0,,LS
p4,48000,98304,8,1000,,LS
p5,9000,8192,2,1000,,LS
p6,3000,4096,1,550,T4,LS
p7,2000,4096,1,150,,LS
"""
SHAPES = (
    Shape(1000, 1024, 1, 300, None),
    Shape(4000, 1024, 1, 460, None),
    Shape(2000, 4096, 1, 550, frozenset({"T4"})),
    Shape(8000, 4096, 1, 1000, frozenset({"T4", "G2"})),
    Shape(16000, 8192, 2, 1000, None),
    Shape(48000, 8192, 8, 1000, None),
    Shape(12_000, 40_960, 0, 0, None),
)


def books() -> Books:
    return Books(
        [32_000, 96_000, 96_000, 16_000, 64_000],
        [131_072, 393_216, 393_216, 65_536, 65_536],
        [2, 8, 8, 1, 4],
        ["T4", "G2", "G2", "T4", "P100"],
    )


def task(shape: Shape, idx: int = 0) -> Task:
    return Task.of(idx, f"task-{idx}", shape)


def some_workload(seed: int, size: int = 60) -> Workload:
    rng = random.Random(seed)
    weights = [rng.randint(1, 8) for _ in SHAPES]
    shapes = [*SHAPES, *rng.choices(SHAPES, weights, k=size)]
    return Workload.of("some", [task(shape, idx) for idx, shape in enumerate(shapes)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "openb_node_list_gpu_node.csv").write_text(HOSTS)
    for name in ("default", "cpu100"):
        (tmp_path / f"openb_pod_list_{name}.csv").write_text(PODS)
    return tmp_path


# The trace.


def test_hosts_are_free_and_have_no_more_devices_than_said(data: Path) -> None:
    cluster = read_books(data).cluster
    assert cluster.gpu_free[0].tolist() == [1000, 1000, -1, -1, -1, -1, -1, -1]
    assert cluster.ngpu.tolist() == [2, 8, 2, 8]
    assert [cluster.models[one] for one in cluster.model_id] == ["P100", "G2", "T4", "G2"]
    assert cluster.cpu_free.tolist() == [64000, 96000, 16000, 96000]
    assert cluster.version.tolist() == [0, 0, 0, 0]


def test_a_spec_names_the_models_that_will_do(data: Path) -> None:
    tasks = read_workload(data, "default").tasks
    assert tasks[0].models is None
    assert tasks[2].shape == Shape(4000, 8192, 1, 300, frozenset({"T4", "P100"}))
    assert (tasks[3].num_gpu, tasks[3].milli, tasks[4].milli) == (0, 0, 8000)


def test_a_list_may_lack_the_column_of_models(data: Path) -> None:
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli"
    (data / "openb_pod_list_multigpu20.csv").write_text(f"{header}\np0,9000,8192,2,1000\n")
    (only,) = read_workload(data, "multigpu20").tasks
    assert only.shape == Shape(9000, 8192, 2, 1000, None)


def test_several_shares_are_no_task_of_this_trace(data: Path) -> None:
    (data / "openb_pod_list_default.csv").write_text(PODS + "p8,1,1,2,500,,LS\n")
    with pytest.raises(ValueError, match="p8: 2 GPUs of 500 milli"):
        read_workload(data, "default")


def test_the_mix_counts_the_shapes_of_the_list_and_can_be_hidden() -> None:
    workload = Workload.of("x", [task(SHAPES[0]), task(SHAPES[1]), task(SHAPES[0])])
    assert workload.mix == {SHAPES[0]: 2, SHAPES[1]: 1}
    assert (workload.unknown().tasks, workload.unknown().mix) == ((), {})


def test_each_task_arrives_once_before_any_is_drawn_again() -> None:
    workload = some_workload(1)
    arrived = list(stream(workload, 1_000_000, seed=5))
    size = len(workload.tasks)
    assert sorted(one.idx for one in arrived[:size]) == list(range(size))
    assert len(arrived) > size
    assert {one.idx for one in arrived[size:]} <= set(range(size))


def test_the_stream_ends_when_the_last_mark_is_reached() -> None:
    arrived = list(stream(some_workload(1), 50_000, seed=5))
    total = sum(one.milli for one in arrived)
    assert total - arrived[-1].milli < 65_000 <= total


def test_the_seed_decides_the_stream() -> None:
    first, same, other = (
        [one.idx for one in stream(some_workload(1), 50_000, seed)] for seed in (5, 5, 6)
    )
    assert first == same != other


def test_a_list_without_gpus_has_no_stream() -> None:
    with pytest.raises(ValueError, match="no task asks for a GPU"):
        list(stream(Workload.of("cpus", [task(SHAPES[-1])]), 1000, 0))


# The replay trusts nobody.


def script(*choices: Choice | None) -> FakePolicy:
    return FakePolicy(iter(choices))


class FakePolicy:
    def __init__(self, choices: Iterator[Choice | None]) -> None:
        self._choices = choices

    def __call__(self, cluster: Cluster, task: Task) -> Choice | None:
        return next(self._choices)


def played(shape: Shape, *choices: Choice | None) -> Run:
    tasks = iter([task(shape, idx) for idx in range(len(choices))])
    return replay(books(), tasks, script(*choices), Run("x", "fake", 0))


@pytest.mark.parametrize(
    ("shape", "choice"),
    [
        pytest.param(SHAPES[4], (3, [0, 1]), id="no such device"),
        pytest.param(SHAPES[4], (1, [0, 8]), id="no such column"),
        pytest.param(SHAPES[4], (1, [-1, 0]), id="negative device"),
        pytest.param(SHAPES[4], (1, [2, 2]), id="one device twice"),
        pytest.param(SHAPES[4], (1, [2]), id="too few devices"),
        pytest.param(SHAPES[0], (1, [2, 3]), id="too many devices"),
        pytest.param(SHAPES[6], (1, [0]), id="a device for a task without"),
        pytest.param(SHAPES[2], (1, [0]), id="another model"),
        pytest.param(SHAPES[0], (5, [0]), id="no such host"),
        pytest.param(SHAPES[0], (-1, [0]), id="negative host"),
        pytest.param(Shape(40_000, 1, 0, 0, None), (0, []), id="too few cpus"),
        pytest.param(Shape(1, 140_000, 0, 0, None), (0, []), id="too little memory"),
    ],
)
def test_an_impossible_placement_is_counted_and_not_made(shape: Shape, choice: Choice) -> None:
    run = played(shape, choice)
    assert (run.impossible, run.dropped, run.refused) == (1, 1, 0)


def test_a_device_is_never_shared_beyond_its_whole() -> None:
    run = played(SHAPES[1], (0, [0]), (0, [0]), (0, [0]), (0, [1]))
    assert (run.impossible, run.decisions) == (1, 4)


def test_a_refusal_of_what_fits_is_counted_and_those_of_eight_gpus_apart() -> None:
    run = played(SHAPES[5], (1, range(8)), None, (2, range(8)), None)
    assert (run.refused, run.eights_refused, run.dropped) == (1, 1, 2)
    assert (run.eights, run.eights_dropped) == (4, 2)
    assert (played(SHAPES[0], None).refused, played(SHAPES[0], None).eights_refused) == (1, 0)


def test_a_task_that_insists_on_a_model_is_refused_where_only_others_are_free() -> None:
    insists = Shape(1000, 1024, 1, 1000, frozenset({"T4"}))
    run = played(insists, None, (0, [0]), (0, [1]), (3, [0]), None)
    assert (run.refused, run.dropped, run.impossible) == (1, 2, 0)


def test_what_is_dropped_counts_as_arrived() -> None:
    small = Books([8000], [8192], [2], ["T4"])
    whole = [task(Shape(4000, 1024, 1, 1000, None), idx) for idx in range(3)]
    choose = script((0, [0]), None, (0, [1]))
    run = replay(small, iter(whole), choose, Run("x", "fake", 0))
    assert run.allocated == {100: 50.0, 130: 100.0}


def test_a_policy_cannot_write_into_the_books() -> None:
    cluster = books().cluster
    for array in (cluster.cpu_free, cluster.mem_free, cluster.gpu_free, cluster.version):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 10_000


def test_a_placement_shows_and_moves_the_version_of_its_host() -> None:
    ledger = books()
    ledger.book(task(SHAPES[4]), (1, [3, 5]))
    assert ledger.cluster.gpu_free[1].tolist() == [1000, 1000, 1000, 0, 1000, 0, 1000, 1000]
    assert ledger.cluster.cpu_free[1] == 80_000
    assert ledger.cluster.mem_free[1] == 385_024
    assert ledger.cluster.version.tolist() == [0, 1, 0, 0, 0]


# The command.


KNOWN: list[tuple[int, int]] = []
"""Tasks and shapes a policy was told of, when it was last made."""


@factory
def watching(cluster: Cluster, workload: Workload, rng: random.Random) -> Decide:
    KNOWN[:] = [(len(workload.tasks), len(workload.mix))]
    return FirstFit(cluster, workload, rng)


@pytest.mark.parametrize(("policy", "known"), [("policy", (8, 8)), ("estimated", (0, 0))])
def test_the_mix_is_kept_from_the_policy_that_must_estimate_it(
    data: Path, policy: str, known: tuple[int, int]
) -> None:
    jobs = [Job(data, "default", policy, f"{__name__}:watching", 0)]
    (run,) = measure(jobs, 1)
    assert (run.refused, KNOWN) == (0, [known])


def test_the_policy_named_must_be_a_factory() -> None:
    assert load("tests.benchmarks.openb_baselines:BestFit") is BestFit
    with pytest.raises(ValueError, match="is no factory"):
        load("tests.benchmarks.openb_baselines:fits")


def test_processes_change_nothing(data: Path) -> None:
    """Starts two processes: that they yield the same is the rule."""
    jobs = [Job(data, "default", name, "", seed) for name in ("fgd", "random") for seed in (0, 1)]
    alone, together = ([one.allocated for one in measure(jobs, count)] for count in (1, 2))
    assert alone == together


def told(data: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["--data", str(data), "--seeds", "2", *arguments])
    return result.exit_code, result.output


def test_the_command_holds_the_policy_to_the_goals(data: Path) -> None:
    target = "tests.benchmarks.openb_baselines:Fragmentation"
    file = data / "figures.json"
    code, text = told(
        data,
        *("--workloads", "default,cpu100", "--policies", "fgd,policy"),
        *("--policy", target, "--json", str(file)),
    )
    assert code == 1
    assert "over FGD, cpu100: 0.00, goal at least 0.40: MISSED" in text
    assert "over FGD at 100 %, cpu100: 0.00, goal at least 0.00: met" in text
    figures = json.loads(file.read_text())
    assert len(figures["runs"]) == 8
    assert figures["means"]["default"]["fgd"] == figures["means"]["default"]["policy"]


def test_baselines_alone_have_no_goal_to_miss_but_being_exact(data: Path) -> None:
    policies = "random,first-fit,best-fit,fgd"
    code, text = told(data, "--workloads", "default", "--policies", policies)
    assert code == 0, text
    assert "refusals of what fits, all policies: 0, goal at most 0: met" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--policies", "worst-fit"), "unknown: worst-fit; known: random, first-fit"),
        (("--workloads", "cpu"), "unknown: cpu; known: default"),
        (("--policies", "policy", "--policy", "no_such_module:place"), "no_such_module"),
        (("--policies", "fgd", "--workloads", "multigpu50"), "openb_pod_list_multigpu50.csv"),
    ],
)
def test_what_cannot_be_run_is_said(data: Path, arguments: tuple[str, ...], text: str) -> None:
    code, output = told(data, *arguments)
    assert code != 0
    assert text in " ".join(output.split())


def a_run(policy: str, seed: int, last: float, **more: int) -> Run:
    return Run("default", policy, seed, {100: last - 1, 130: last}, 10, seconds=0.001, **more)


def test_goals_are_judged_by_means_and_seeds_under_are_told() -> None:
    figures = Figures(
        [
            a_run("fgd", 0, 95.0),
            a_run("fgd", 1, 95.2),
            a_run("policy", 0, 97.8),
            a_run("policy", 1, 95.0),
            a_run("estimated", 0, 96.0),
        ]
    )
    assert Counter(goal.is_met for goal in goals(figures)) == {True: 7}
    assert figures.gain("default", 130) == pytest.approx(1.3)
    assert figures.seeds_under("default", 130) == 1
    assert figures.rate("fgd") == 10_000
    assert "over FGD, default: 1.30, goal at least 0.40: met" in as_table(figures)


@pytest.mark.parametrize(("count", "values"), [(9, [0.9]), (8, [])])
def test_the_mean_is_judged_when_all_workloads_were_run(count: int, values: list[float]) -> None:
    names = WORKLOADS[:count]
    runs = [Run(name, "fgd", 0, {100: 90.0, 130: 94.0}) for name in names]
    runs += [Run(name, "policy", 0, {100: 90.0, 130: 94.9}) for name in names]
    found = [goal for goal in goals(Figures(runs)) if "mean of" in goal.text]
    assert [goal.value for goal in found] == values
    assert not any(goal.is_met for goal in found)


def test_one_refusal_of_what_fits_misses_the_goal() -> None:
    figures = Figures([a_run("fgd", 0, 95.0, refused=1, eights_refused=1)])
    missed = [str(goal) for goal in goals(figures) if not goal.is_met]
    assert missed == [
        "refusals of what fits, all policies: 1, goal at most 0: MISSED",
        "of these, of 8 GPUs, all policies: 1, goal at most 0: MISSED",
    ]
