"""From submission to the first step, in each framework and mode, beside the same by hand.

``python -m tests.benchmarks.frameworks`` runs each script of the frameworks' tests in turn as a
job and as processes that are started with the framework's own means: torchrun, mpiexec, a tracker,
variables set by a shell script. Scripts print ``first step`` with the time after it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from nimbus_hub.executors.commands import ON_PATH
from tests.benchmarks.figures import Comparison, Series, as_json, as_table
from tests.frameworks.cluster import SCRIPTS, Cluster, environment

_RATIO, _MORE_SECONDS = 1.3, 0.3
"""A job may take so many times as long, or so much longer, whichever is more."""

_RUN_SECONDS = 120.0
_BY_HAND = Path(__file__).with_name("by_hand")
_HERE = "127.0.0.1"
_FIRST_STEP = re.compile(r"^first step ([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Program:
    """What a person would start; one that serves others never ends by itself.

    ``port`` is where it listens: the next ones are started once it does.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    serves: bool = False
    port: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A script in a mode: how it is submitted, and what is started by hand."""

    name: str
    environment: str
    line: str
    by_hand: Callable[[], Sequence[Program]]


def cases() -> tuple[Case, ...]:
    """Return all there are."""
    return (
        *_pair("script", "default", "script_serving.py", _by_rank),
        *_pair("tensorflow", "tensorflow", "tf_digits.py", _mirrored),
        Case(
            "tensorflow, chief, 2 workers, 1 ps",
            "tensorflow",
            "--workers 2 --ps 1 tf_servers.py",
            _parameter_servers,
        ),
        *_pair("pytorch", "default", "torch_digits.py", _torchrun),
        *_pair("pytorch", "default", "torch_fsdp.py", _torchrun, of=" FSDP"),
        Case(
            "pytorch elastic, 2 workers",
            "default",
            "--workers 2 --option elastic=1 torch_digits.py",
            _elastic,
        ),
        *_pair("xgboost", "xgboost", "xgb_digits.py", _with_tracker),
        *_pair("lightgbm", "lightgbm", "lgb_digits.py", _over_sockets),
        *_pair("gensim", "gensim", "gensim_topics.py", _with_dispatchers),
        *_pair("mpi", "mpi", "mpi_line.py", _mpiexec),
    )


def _pair(
    framework: str,
    place: str,
    script: str,
    many: Callable[[str], Sequence[Program]],
    of: str = "",
) -> tuple[Case, Case]:
    """Return a script in one process, and in two workers."""
    alone = Program(("python", "-u", script))
    return (
        Case(f"{framework}{of}, alone", place, script, lambda: [alone]),
        Case(f"{framework}{of}, 2 workers", place, f"--workers 2 {script}", lambda: many(script)),
    )


def _by_rank(script: str) -> Sequence[Program]:
    return [
        Program(("python", "-u", script), {"RANK": str(rank), "WORLD_SIZE": "2"})
        for rank in range(2)
    ]


def _torchrun(script: str) -> Sequence[Program]:
    return [Program(("torchrun", "--standalone", "--nproc-per-node", "2", script))]


def _elastic() -> Sequence[Program]:
    words = ["--nnodes=1:2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=by-hand"]
    words += [f"--rdzv-endpoint={_HERE}:{_free_port()}", "--rdzv-conf=last_call_timeout=5"]
    env = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return [Program(("torchrun", *words, "torch_digits.py"), env) for _ in range(2)]


def _mirrored(script: str) -> Sequence[Program]:
    cluster = {"worker": [f"{_HERE}:{_free_port()}" for _ in range(2)]}
    return [
        Program(
            ("python", "-u", script),
            {**_tf_config(cluster, "worker", rank), "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]


def _parameter_servers() -> Sequence[Program]:
    ports = [_free_port() for _ in range(4)]
    chief, one, two, ps = (f"{_HERE}:{port}" for port in ports)
    cluster = {"chief": [chief], "worker": [one, two], "ps": [ps]}
    server = ("python", "-u", str(_BY_HAND / "tensorflow_server.py"))
    return [
        Program(server, _tf_config(cluster, "ps", 0), serves=True),
        Program(server, _tf_config(cluster, "worker", 0), serves=True),
        Program(server, _tf_config(cluster, "worker", 1), serves=True),
        Program(("python", "-u", "tf_servers.py"), _tf_config(cluster, "chief", 0)),
    ]


def _tf_config(cluster: Mapping[str, Sequence[str]], kind: str, index: int) -> dict[str, str]:
    task = {"type": kind, "index": index}
    return {
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }


def _with_tracker(script: str) -> Sequence[Program]:
    return [Program(("python", "-u", str(_BY_HAND / "xgboost_workers.py"), "2", script))]


def _over_sockets(script: str) -> Sequence[Program]:
    ports = [_free_port() for _ in range(2)]
    machines = ",".join(f"{_HERE}:{port}" for port in ports)
    return [
        Program(
            ("python", "-u", str(_BY_HAND / "lightgbm_worker.py"), script),
            {"MACHINES": machines, "PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank, port in enumerate(ports)
    ]


def _with_dispatchers(script: str) -> Sequence[Program]:
    port = _free_port()
    env = {
        "PYRO_NS_HOST": _HERE,
        "PYRO_NS_PORT": str(port),
        "PYRO_HOST": _HERE,
        "PYRO_SERIALIZER": "pickle",
        "PYRO_SERIALIZERS_ACCEPTED": "pickle",
        # Of each kind two workers and their dispatcher.
        "NAMES": "6",
    }
    names = ("python", "-m", "Pyro4.naming", "-n", _HERE, "-p", str(port), "-x")
    where = ("--host", _HERE, "--port", str(port), "--no-broadcast")
    serving = [
        *2 * [("gensim.models.lda_worker", *where), ("gensim.models.lsi_worker",)],
        ("gensim.models.lda_dispatcher", *where),
        ("gensim.models.lsi_dispatcher",),
    ]
    return [
        Program(names, env, serves=True, port=port),
        *(Program(("python", "-m", *words), env, serves=True) for words in serving),
        Program(("python", "-u", str(_BY_HAND / "gensim_job.py"), script), env),
    ]


def _mpiexec(script: str) -> Sequence[Program]:
    return [Program(("mpiexec", "-localhost", _HERE, "-n", "2", "python", "-u", script))]


def run_by_hand(case: Case, work: Path) -> float:
    """Start what a case needs by hand; return the seconds until the first step."""
    shutil.copytree(SCRIPTS, work)
    programs = case.by_hand()
    bin_directory = environment(case.environment)
    inherited = {
        **os.environ,
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "PYTHONPATH": str(ON_PATH),
        "OMP_NUM_THREADS": "1",
    }
    output = work / "output.log"
    began_at, started = time.time(), list[subprocess.Popen[bytes]]()
    try:
        with output.open("ab") as log:
            for program in programs:
                argv = [f"{bin_directory}/{program.argv[0]}", *program.argv[1:]]
                env = {**inherited, **program.env}
                started.append(subprocess.Popen(argv, cwd=work, env=env, stdout=log, stderr=log))
                _wait_for_port(program.port)
        for program, process in zip(programs, started, strict=True):
            if not program.serves and process.wait(_RUN_SECONDS):
                raise click.ClickException(f"{case.name} by hand:\n{output.read_text()}")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)
    return min(map(float, _FIRST_STEP.findall(output.read_text()))) - began_at


def run_as_job(case: Case, cluster: Cluster) -> float:
    """Submit a case; return the seconds until the first step."""
    framework = case.name.split(",")[0].split()[0]
    line = f"--framework {framework} --environment {case.environment} --cpus 1 {case.line}"
    trained = cluster.run(line, seconds=_RUN_SECONDS)
    if trained.job.state != "succeeded" or trained.first_step_seconds is None:
        raise click.ClickException(f"{case.name}: {trained.job.reason}\n{trained.text}")
    return trained.first_step_seconds


def compare(case: Case, cluster: Cluster, directory: Path, rounds: int) -> Comparison:
    """Run a case both ways in turn, after a round that only warms up."""
    ours, theirs = list[float](), list[float]()
    for number in range(rounds + 1):
        ours.append(run_as_job(case, cluster))
        theirs.append(run_by_hand(case, directory / f"{case.name}-{number}"))
        click.echo(f"{case.name}: {ours[-1]:.2f} s, by hand {theirs[-1]:.2f} s", err=True)
    by_hand = Series("by hand", tuple(theirs[1:]))
    goal = max(_RATIO, 1 + _MORE_SECONDS / by_hand.median)
    return Comparison(case.name, Series("a job", tuple(ours[1:])), by_hand, goal)


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + 30
    while port:
        try:
            socket.create_connection((_HERE, port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((_HERE, 0))
        number: int = free.getsockname()[1]
    return number


def _chosen(wanted: Iterable[str]) -> list[Case]:
    words = tuple(wanted)
    return [case for case in cases() if not words or case.name.startswith(words)]


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20))
@click.option("--only", multiple=True, help="Those whose names begin so, like pytorch.")
@click.option(
    "--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write JSON here too."
)
def main(rounds: int, only: tuple[str, ...], file: Path | None) -> None:
    """Measure the time to the first step of every framework and mode."""
    chosen = _chosen(only)
    with tempfile.TemporaryDirectory(prefix="nimbus-bench-") as name:
        directory = Path(name)
        places = {case.environment for case in chosen}
        cluster = Cluster(directory, {place: environment(place) for place in places})
        cluster.start()
        try:
            found = [compare(case, cluster, directory, rounds) for case in chosen]
        finally:
            cluster.kill()
    if file:
        file.write_text(json.dumps(as_json(found, []), indent=2) + "\n")
    click.echo(as_table(found, []))
    if not all(one.is_met for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
