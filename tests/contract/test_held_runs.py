"""Replicas that run in a warm holder's place. Real processes: what a fork keeps is the point."""

from __future__ import annotations

import os
import signal
import socket
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nimbus_hub.errors import Conflict
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaState
from tests.contract.held import Held

Eventually = Callable[[Callable[[], object]], Awaitable[None]]

SPOT = """
import os, sys
print(os.getpid(), flush=True)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_run_is_forked_from_what_has_imported_its_modules(held: Held) -> None:
    await held.hold("fractions")
    held.files["run.py"] = SPOT + "print(os.getppid(), 'fractions' in sys.modules)"
    status, output = await held.run("python", "run.py")
    assert (status.state, status.exit_code, status.reason) == (ReplicaState.EXITED, 0, "")
    _, parent, is_imported = output.split()
    reading = Record(held.local.record("h1")).read()
    assert reading.supervisor is not None
    assert (int(parent), is_imported) == (reading.supervisor.pid, "True")
    assert status.directory.endswith("nimbus/job-1")
    nimbus = held.local.directory / "nimbus"
    assert (nimbus / "job-1" / "work").samefile(nimbus / "gang" / "work")
    assert not (nimbus / "holder").exists()
    # What a run left goes alone; what all runs share goes with the holder.
    await held.local.executor.delete("job-1", ["r1"])
    assert [path.name for path in nimbus.iterdir()] == ["gang"]
    assert (await held.run("python", "run.py"))[0].exit_code == 0
    await held.local.executor.stop("h1", 10)
    await held.ended(held.local.executor, "h1")
    await held.local.executor.delete("holder", ["h1"], "gang")
    assert [path.name for path in nimbus.iterdir()] == ["job-2"]


INSPECT = """
import os, sys, signal, threading, __main__
for name in sorted(globals()):
    print(name, type(globals()[name]).__name__)
print(__name__, __file__, __doc__, __package__, __spec__, __cached__, __loader__.path)
print(sys.argv, sys.path, sys.orig_argv, sys.flags, sys.executable, sys.excepthook)
print(sorted(os.environ.items()))
print(os.getcwd(), oct(os.umask(0)), os.listdir("/proc/self/fd"), os.getpgid(0) == os.getpid())
print([(number, str(signal.getsignal(number))) for number in range(1, 20)])
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream, stream.line_buffering, stream.write_through, stream.isatty(), stream.fileno())
print(threading.current_thread().name, threading.active_count(), __main__.__dict__ is globals())
print(sys.stdin.read())
"""
PICKLE = """
import multiprocessing
class Job:
    def __init__(self, n): self.n = n
def square(job): return Job(job.n ** 2)
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, [job.n for job in pool.map(square, map(Job, range(4)))])
"""
EXITS = """
import atexit, sys, threading, time
atexit.register(print, "at exit")
def late():
    time.sleep(0.05)
    print("late")
threading.Thread(target=late).start()
sys.stdout.write("no line end")
sys.stderr.write("error\\n")
"""
HOOK = """
import sys
def hook(kind, error, trace):
    print("hook", kind.__name__, error, trace.tb_lineno, sys.last_value is error)
sys.excepthook = hook
print(1 / 0)
"""
BAD_HOOK = """
import sys
def hook(*arguments): raise KeyError("in the hook")
sys.excepthook = hook
print(1 / 0)
"""
CHAIN = """
from __future__ import annotations
import side
def outer():
    try:
        side.fail()
    except KeyError as error:
        raise RuntimeError("outer") from error
outer()
"""
SCRIPTS = {
    "inspect": INSPECT,
    "pickle": PICKLE,
    "exits": EXITS,
    "hook": HOOK,
    "bad hook": BAD_HOOK,
    "chain": CHAIN,
    "exit 3": "import sys; sys.exit(3)",
    "exit text": "import sys; sys.exit('a sentence')",
    "exit none": "import sys; sys.exit()",
    "exit float": "raise SystemExit(2.5)",
    "exit at once": "import os; os._exit(4)",
    "abort": "import os; os.abort()",
    "kill": "import os; os.kill(os.getpid(), 9)",
    "terminate": "import os; os.kill(os.getpid(), 15)",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "keyboard": "raise KeyboardInterrupt",
    "syntax": "print('before')\nx = = 3\n",
    "encoding": b"# coding: latin-1\nprint(ascii('\xe4'))\n".decode("latin-1"),
    "thread": "import threading\nthreading.Thread(target=lambda: 1 / 0, name='t').start()",
    "warning": "import warnings\nwarnings.warn('careful', DeprecationWarning)",
    "source": "import inspect\ndef f(): return 1\nprint(inspect.getsource(f))",
    "nul": "print(1)\0",
    "exec": "import os; os.execlp('echo', 'echo', 'another')",
    "grandchild": "import subprocess; print(subprocess.run(['sh', '-c', 'exit 3']).returncode)",
    "sleepers": "import subprocess; subprocess.Popen(['sleep', '1000']); raise SystemExit(5)",
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_script_cannot_tell_that_it_was_forked(held: Held, name: str) -> None:
    await held.hold("multiprocessing", "inspect", "random")
    held.files = {"run.py": SCRIPTS[name], "side.py": "def fail(): raise KeyError('side')\n"}
    ways = [
        await held.run("python", "-u", "./run.py", "a", "-b", holder=holder, has_input=False)
        for holder in (None, "h1")
    ]
    (cold, first), (warm, second) = ways
    assert held.is_held("r2")
    assert (warm.state, warm.exit_code, warm.reason) == (cold.state, cold.exit_code, cold.reason)
    for number in (1, 2):
        first, second = (
            text.replace(f"job-{number}", "JOB").replace(f"'r{number}'", "ID")
            for text in (first, second)
        )
    assert second == first


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        (("python", "-m", "package.module", "x"), {}),
        (("python", "-m", "package"), {}),
        (("python", "-m", "missing"), {}),
        (("python", "-m", "package.fails"), {}),
        (("python", "missing.py"), {}),
        (("python", "package"), {}),
        (("python", "-c", "print(__name__)"), {}),
        (("python", "-O", "module.py"), {}),
        (("python3", "module.py"), {}),
        (("sh", "-c", "echo $0 $PWD; exit 2"), {}),
        (("no-such-program",), {}),
        (("python", "module.py"), {"PYTHONPATH": "library:/nowhere"}),
        (("python", "module.py"), {"PYTHONPATH": "custom"}),
        (("python", "module.py"), {"PYTHONHASHSEED": "1"}),
        (("python", "module.py"), {"PYTHONUNBUFFERED": ""}),
        (("python", "module.py"), {"TZ": "Asia/Tokyo"}),
        (("python", "shadow/module.py"), {}),
    ],
)
async def test_a_command_cannot_tell_that_it_was_handed_over(
    held: Held, argv: tuple[str, ...], env: dict[str, str]
) -> None:
    tell = """
        import sys, time, library_module, fractions
        print(__name__, __package__, __spec__ and __spec__.name, sys.argv, sys.path[:4])
        print(time.tzname, sys.flags, sys.executable, fractions.__file__, library_module.__file__)
    """
    tell = textwrap.dedent(tell)
    held.files = {
        "package/__init__.py": "",
        "package/module.py": tell,
        "package/fails.py": "1 / 0\n",
        "package/__main__.py": "print(__name__, __package__)\n",
        "module.py": tell,
        "library/library_module.py": "",
        "library_module.py": "",
        "custom/sitecustomize.py": "print('custom')\n",
        "shadow/module.py": tell,
        "shadow/library_module.py": "",
        "shadow/fractions.py": "",
    }
    await held.hold("fractions")
    (cold, first), (warm, second) = [
        await held.run(*argv, env=env, holder=holder) for holder in (None, "h1")
    ]
    assert (warm.state, warm.exit_code, warm.reason) == (cold.state, cold.exit_code, cold.reason)
    assert second == first


NOTHING_LEFT = r"""
import os, socket, time
server = socket.create_server(("127.0.0.1", 0))
server.set_inheritable(True)
print(server.getsockname()[1])
print(os.getpid())
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(1, b"%d\n" % os.getpid())
            while True:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(1000)
                time.sleep(0.01)
        os._exit(0)
time.sleep(0.1)
"""


async def test_nothing_of_a_run_is_left_for_the_next(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = NOTHING_LEFT
    for _ in range(3):
        status, output = await held.run("python", "run.py")
        assert status.exit_code == 0
        port, *pids = map(int, output.split())
        assert len(pids) == 4
        assert all(map(is_gone, pids))
        with socket.create_server(("127.0.0.1", port)):
            pass
        supervisor = Record(held.local.record("h1")).read().supervisor
        assert supervisor is not None
        below = psutil.Process(supervisor.pid).children(recursive=True)
        # The holder, and by now perhaps what it forks for the next run.
        assert len(below) <= 3


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
time.sleep(1000)
"""


async def test_a_run_is_stopped_and_its_holder_stays(held: Held, eventually: Eventually) -> None:
    await held.hold()
    holder = held.main("h1")
    held.files["polite.py"] = SPOT + "import time; time.sleep(1000)"
    held.files["stubborn.py"] = STUBBORN
    for script, grace, code, reason in (
        ("polite.py", 30, -15, "stopped"),
        ("stubborn.py", 0.2, -9, "stopped; killed because it had not ended after the grace"),
    ):
        spec = await held.begin("python", script)
        log = held.local.record(spec.id) / "output.log"
        await eventually(lambda log=log, script=script: len(log.read_text().split()) >= 1)
        await held.local.executor.stop(spec.id, grace)
        status = await held.ended(held.local.executor, spec.id)
        assert (status.exit_code, status.reason) == (code, reason)
        assert all(is_gone(int(pid)) for pid in log.read_text().split())
        # Too late, and nobody's concern.
        await held.local.executor.stop(spec.id, grace)
    held.files["run.py"] = SPOT
    assert (await held.run("python", "run.py"))[0].exit_code == 0
    assert held.main("h1") == holder


async def test_a_stop_that_comes_first_is_kept(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = SPOT
    spec = held.spec("python", "run.py")
    await held.local.executor.stop(spec.id, 1)
    await held.local.executor.start(spec)
    status = await held.ended(held.local.executor, spec.id)
    assert (status.exit_code, status.reason) == (None, "stopped before it was started")


async def test_a_holder_is_stopped_with_its_run(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = SPOT + "import time; time.sleep(1000)"
    spec = await held.begin("python", "run.py")
    processes = [held.main("h1"), held.main(spec.id)]
    await held.local.executor.stop("h1", 20)
    for replica_id in ("h1", spec.id):
        status = await held.ended(held.local.executor, replica_id)
        assert (status.state, status.exit_code, status.reason) == (
            ReplicaState.EXITED,
            -15,
            "stopped",
        )
    assert all(map(is_gone, processes))


async def test_one_run_at_a_time(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = SPOT + "import time; time.sleep(1000)"
    first = await held.begin("python", "run.py")
    status, output = await held.run("python", "run.py")
    assert (status.exit_code, output) == (None, "")
    assert status.reason == "another run is going on where it was to run"
    assert (await held.local.executor.poll(first.id)).state is ReplicaState.RUNNING


async def test_a_killed_run_says_so(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = SPOT + "import time; time.sleep(1000)"
    spec = await held.begin("python", "run.py")
    os.kill(held.main(spec.id), signal.SIGKILL)
    status = await held.ended(held.local.executor, spec.id)
    assert (status.exit_code, status.reason) == (
        -9,
        "killed by SIGKILL from outside, perhaps because the host had no memory left",
    )
    held.files["run.py"] = SPOT
    assert (await held.run("python", "run.py"))[0].exit_code == 0


async def test_a_holder_that_is_killed_is_replaced_and_its_run_goes_on(
    held: Held, eventually: Eventually
) -> None:
    await held.hold()
    held.files["run.py"] = SPOT + "print(input(), flush=True)"
    spec = await held.begin("python", "run.py", has_input=True)
    killed = held.main("h1")
    os.kill(killed, signal.SIGKILL)
    await held.local.executor.write_input(spec.id, b"still here\n")
    status = await held.ended(held.local.executor, spec.id)
    assert (status.exit_code, status.reason) == (0, "")
    assert "still here" in await held.local.output(spec.id)
    await eventually(lambda: held.main("h1") != killed)
    status, _ = await held.run("python", "run.py", has_input=False)
    assert status.exit_code == 1
    assert (await held.local.executor.poll("h1")).state is ReplicaState.RUNNING


async def test_a_holder_that_keeps_dying_ends(held: Held, tmp_path: Path) -> None:
    (tmp_path / "fatal.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    status = await held.hold("fatal", PYTHONPATH=str(tmp_path))
    assert (status.state, status.exit_code, status.reason) == (
        ReplicaState.EXITED,
        -11,
        "what keeps it warm ended 3 times, at last: ended by SIGSEGV",
    )


async def test_nothing_is_left_when_the_supervisor_of_both_is_killed(
    held: Held, eventually: Eventually
) -> None:
    await held.hold()
    script = (
        "import subprocess, time\n"
        "subprocess.Popen(['setsid', 'sleep', '1000'])\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    print(os.getpid(), flush=True)\n"
        "time.sleep(1000)\n"
    )
    held.files["run.py"] = SPOT + script
    spec = await held.begin("python", "run.py")
    log = held.local.record(spec.id) / "output.log"
    await eventually(lambda: len(log.read_text().split()) == 2)
    supervisor = Record(held.local.record("h1")).read().supervisor
    assert supervisor is not None
    below = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(below) >= 4
    supervisor.send(signal.SIGKILL)
    for replica_id in (spec.id, "h1"):
        status = await held.ended(held.local.executor, replica_id)
        assert (status.state, status.reason) == (
            ReplicaState.LOST,
            "its supervisor was killed, and so it was ended",
        )
    await eventually(lambda: all(is_gone(process.pid) for process in below))


async def test_a_supervisor_of_both_that_hangs_saves_neither(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_hub.executors.local.MARGIN_SECONDS", 0.2)
    await held.hold()
    held.files["run.py"] = SPOT + "import time; time.sleep(1000)"
    spec = await held.begin("python", "run.py")
    main = held.main(spec.id)
    supervisor = Record(held.local.record("h1")).read().supervisor
    assert supervisor is not None
    supervisor.send(signal.SIGSTOP)
    await held.local.executor.stop(spec.id, 0)
    status = await held.ended(held.local.executor, spec.id)
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, -9)
    assert is_gone(main)
    assert (await held.ended(held.local.executor, "h1")).state is ReplicaState.LOST


async def test_a_holder_that_hangs_or_is_not_there_only_costs_time(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_hub.executors.local.HAND_OVER_SECONDS", 0.2)
    held.files["run.py"] = SPOT
    status, _ = await held.run("python", "run.py", holder="never-started")
    assert (status.exit_code, held.is_held("r1")) == (0, False)
    await held.hold()
    supervisor = Record(held.local.record("h1")).read().supervisor
    assert supervisor is not None
    supervisor.send(signal.SIGSTOP)
    status, output = await held.run("python", "run.py")
    assert (status.exit_code, held.is_held("r2")) == (0, False)
    supervisor.send(signal.SIGCONT)
    status, _ = await held.run("python", "run.py")
    assert (status.exit_code, held.is_held("r3")) == (0, True)
    assert await held.local.output("r2") == output
    await held.local.executor.stop("h1", 5)
    await held.ended(held.local.executor, "h1")
    status, _ = await held.run("python", "run.py")
    assert (status.exit_code, held.is_held("r4")) == (0, False)


async def test_what_cannot_be_imported_ahead_is_told_and_left_to_the_run(held: Held) -> None:
    await held.hold("fractions", "no_such_module", "decimal")
    told = await held.local.output("h1")
    assert "nimbus: no_such_module is not imported ahead" in told
    held.files["run.py"] = "import sys; print({'fractions', 'decimal'} <= set(sys.modules))"
    assert (await held.run("python", "run.py"))[1] == "True\n"


async def test_variables_that_are_read_at_the_start_make_a_new_process(held: Held) -> None:
    await held.hold("fractions")
    held.files["run.py"] = "import os, sys; print('fractions' in sys.modules, os.environ['X'])"
    for env, is_forked in (
        ({"OMP_NUM_THREADS": "2"}, False),
        ({"MKL_NUM_THREADS": "2"}, False),
        ({"TF_CONFIG": "{}", "RANK": "1"}, True),
    ):
        _, output = await held.run("python", "run.py", env={**env, "X": "x"})
        assert output == f"{is_forked} x\n"


async def test_edited_files_are_seen_by_the_next_run(held: Held) -> None:
    """Also what has the same size, and was written in the same second."""
    await held.hold()
    held.files["run.py"] = "import side, os; print(side.VALUE, sorted(os.listdir()))"
    for value in range(4):
        held.files["side.py"] = f"VALUE = {value}\n"
        _, output = await held.run("python", "run.py")
        assert output == f"{value} ['__pycache__', 'run.py', 'side.py']\n"


async def test_a_package_that_is_upgraded_meanwhile_is_imported_anew(
    held: Held, tmp_path: Path, eventually: Eventually
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "framework.py").write_text("VERSION = 1\n")
    await held.hold("framework", PYTHONPATH=str(library))
    first = held.main("h1")
    held.files["run.py"] = "import framework; print(framework.VERSION)"
    path = {"PYTHONPATH": str(library)}
    assert (await held.run("python", "run.py", env=path))[1] == "1\n"
    (library / "new.py").write_text("VERSION = 22\n")
    (library / "new.py").replace(library / "framework.py")
    assert (await held.run("python", "run.py", env=path))[1] == "22\n"
    await eventually(lambda: held.main("h1") != first)
    assert (await held.run("python", "run.py", env=path))[1] == "22\n"


PDB = """
def divide(numerator, denominator):
    return numerator / denominator
divide(1, 0)
"""


@pytest.mark.parametrize("runner", [(), ("-m", "nimbus_hub.replica", "script")])
async def test_a_failed_run_waits_in_its_debugger(
    held: Held, eventually: Eventually, runner: tuple[str, ...]
) -> None:
    told: list[str] = []
    await held.hold()
    held.files["run.py"] = PDB
    spec = held.spec("python", *runner, "run.py", has_input=True, env={"NIMBUS_PDB": "1"})
    held.local.executor.watch(told.append)
    await held.local.executor.start(spec)
    log = held.local.record(spec.id) / "output.log"
    await eventually(lambda: log.exists() and "(Pdb)" in log.read_text())
    status = await held.local.executor.poll(spec.id)
    assert (status.state, status.reason) == (
        ReplicaState.RUNNING,
        "waits in its debugger (post-mortem)",
    )
    await eventually(lambda: told.count(spec.id) >= 2)
    await held.local.executor.write_input(spec.id, b"p numerator, denominator\n")
    await eventually(lambda: "(1, 0)" in log.read_text())
    await held.local.executor.write_input(spec.id, b"w\nq\n")
    status = await held.ended(held.local.executor, spec.id)
    assert (status.exit_code, status.reason) == (1, "")
    for ours in ("forkserver", "program.py", "runners", "runpy"):
        assert ours not in log.read_text()


async def test_what_a_debugger_is_for_is_a_failure(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = "raise SystemExit(3)"
    env = {"NIMBUS_PDB": "1"}
    status, output = await held.run("python", "run.py", has_input=True, env=env)
    assert (status.exit_code, output) == (3, "")


async def test_a_run_that_cannot_be_forked_says_that_it_has_no_debugger(held: Held) -> None:
    await held.hold()
    held.files["run.py"] = "raise SystemExit(3)"
    env = {"NIMBUS_PDB": "1", "OMP_NUM_THREADS": "2"}
    status, output = await held.run("python", "run.py", has_input=True, env=env)
    assert status.exit_code == 3
    assert output.startswith("nimbus: there is no debugger in this run, for it cannot be forked")


@pytest.mark.parametrize("holder", [None, "h1"])
async def test_input_is_read_as_it_is_written_and_ends_when_asked(
    held: Held, eventually: Eventually, holder: str | None
) -> None:
    await held.hold()
    held.files["run.py"] = "import sys\nfor line in sys.stdin: print(len(line), flush=True)\n"
    spec = await held.begin("python", "run.py", holder=holder, has_input=True)
    log = held.local.record(spec.id) / "output.log"
    write = held.local.executor.write_input
    await write(spec.id, b"abc\n")
    await eventually(lambda: log.read_text() == "4\n")
    await write(spec.id, b"x" * 200_000 + b"\n")
    await eventually(lambda: log.read_text() == "4\n200001\n")
    assert (await held.local.executor.poll(spec.id)).state is ReplicaState.RUNNING
    await write(spec.id, b"")
    status = await held.ended(held.local.executor, spec.id)
    assert status.exit_code == 0
    with pytest.raises(Conflict, match="is over"):
        await write(spec.id, b"late")


async def test_who_takes_no_input_is_not_written_to(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_hub.executors.inputs._PATIENCE_SECONDS", 0.1)
    await held.hold()
    write = held.local.executor.write_input
    with pytest.raises(Conflict, match="takes no input"):
        await write("never-started", b"x")
    held.files["run.py"] = "import time; time.sleep(1000)"
    deaf = await held.begin("python", "run.py")
    for data in (b"x", b""):
        with pytest.raises(Conflict, match="takes no input"):
            await write(deaf.id, data)
    await held.local.executor.stop(deaf.id, 1)
    await held.ended(held.local.executor, deaf.id)
    busy = await held.begin("python", "run.py", has_input=True)
    await write(busy.id, b"waits until it reads")
    with pytest.raises(Conflict, match="does not read what was written before"):
        await write(busy.id, b"x" * 2**20)


async def test_another_service_finds_a_run_and_sees_its_end(
    held: Held, eventually: Eventually
) -> None:
    await held.hold()
    held.files["run.py"] = SPOT + "print(input(), flush=True)"
    spec = await held.begin("python", "run.py", has_input=True)
    await held.local.executor.close()
    held.local.executor = held.local.another()
    told: list[str] = []
    held.local.executor.watch(told.append)
    assert (await held.local.executor.poll(spec.id)).state is ReplicaState.RUNNING
    await held.local.executor.start(spec)
    await held.local.executor.write_input(spec.id, b"found\n")
    await eventually(lambda: spec.id in told)
    status = await held.ended(held.local.executor, spec.id)
    assert status.exit_code == 0
    assert (await held.local.output(spec.id)).endswith("found\n")
    spec = await held.begin("python", "run.py", has_input=True)
    await held.local.executor.close()
    held.local.executor = held.local.another()
    assert (await held.local.executor.poll(spec.id)).state is ReplicaState.RUNNING
    await held.local.executor.stop(spec.id, 10)
    assert (await held.ended(held.local.executor, spec.id)).exit_code == -15


TORCH = """
import os, sys
import numpy
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self): return 8
    def __getitem__(self, n): return torch.tensor(n * n)

if __name__ == "__main__":
    dist.init_process_group("gloo")
    total = torch.tensor(float(dist.get_rank() + 1))
    dist.all_reduce(total)
    for method in ("fork", "spawn"):
        loader = DataLoader(Squares(), 4, num_workers=2, multiprocessing_context=method)
        print(method, [batch.tolist() for batch in loader])
    print(total.item(), torch.get_num_threads())
    print(torch.initial_seed(), numpy.random.rand())
    dist.destroy_process_group()
"""


async def test_a_gang_trains_with_what_was_imported_ahead(held: Held) -> None:
    """Two replicas in two holders' places, over and over."""
    for rank in range(2):
        await held.hold("torch", replica_id=f"h{rank}")
    held.files["run.py"] = TORCH
    seeds: list[str] = []
    for turn in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        specs = []
        for rank in range(2):
            env = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "GLOO_SOCKET_IFNAME": "lo",
            }
            specs.append(held.spec("python", "run.py", holder=f"h{rank}", env=env))
        for spec in specs:
            await held.local.executor.start(replace(spec, job_id=f"turn-{turn}"))
        for spec in specs:
            status = await held.ended(held.local.executor, spec.id)
            output = await held.local.output(spec.id)
            assert (status.exit_code, status.reason) == (0, ""), output
            batches = [[0, 1, 4, 9], [16, 25, 36, 49]]
            assert output.startswith(f"fork {batches}\nspawn {batches}\n3.0 1\n")
            seeds += output.split()[-2:]
            assert held.is_held(spec.id)
    assert len(set(seeds)) == len(seeds)


async def test_a_holder_without_a_python_says_so(held: Held) -> None:
    await held.local.executor.start(held.local.command("h1", "no-such-python", modules=()))
    status = await held.ended(held.local.executor, "h1")
    assert (status.exit_code, status.reason) == (127, "the program 'no-such-python' was not found")
