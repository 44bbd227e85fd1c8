"""What only the local executor promises. Real processes, accounts, kills."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import nimbus_hub
from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.executors import local as local_module
from nimbus_hub.executors.accounts import Accounts
from nimbus_hub.executors.commands import ON_PATH
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus
from tests.contract.snapshots import MemorySnapshots

if TYPE_CHECKING:
    from tests.contract.conftest import LocalDriver

    Until = Callable[..., Awaitable[ReplicaStatus]]
    Eventually = Callable[[Callable[[], object]], Awaitable[None]]

REPOSITORY = Path(nimbus_hub.__file__).parent.parent


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


@pytest.mark.parametrize(
    ("argv", "code", "reason"),
    [
        (("no-such-program",), 127, "the program 'no-such-program' was not found"),
        (("/etc/passwd",), 126, "the program '/etc/passwd' cannot be run: Permission denied"),
    ],
)
async def test_a_program_that_cannot_run_is_named(
    local: LocalDriver, ended: Until, argv: tuple[str, ...], code: int, reason: str
) -> None:
    await local.executor.start(local.command("r1", *argv))
    status = await ended(local.executor, "r1")
    assert (status.state, status.exit_code, status.reason) == (ReplicaState.EXITED, code, reason)


async def test_an_unknown_environment_is_named(local: LocalDriver, ended: Until) -> None:
    await local.executor.start(local.command("r1", "true", environment="tf9"))
    status = await ended(local.executor, "r1")
    assert (status.exit_code, status.reason) == (
        None,
        "there is no environment 'tf9'; known: default",
    )


async def test_a_snapshot_that_cannot_be_unpacked_is_said_so(
    local: LocalDriver, ended: Until, tmp_path: Path
) -> None:
    accounts = Accounts(local.account)
    executor = LocalExecutor(
        tmp_path / "state", {"default": Path("/usr/bin")}, MemorySnapshots(), accounts=accounts
    )
    await executor.start(local.command("r1", "true", snapshot="abc"))
    assert (await ended(executor, "r1")).reason == "snapshot abc is gone"
    await executor.close()


@pytest.mark.parametrize("name", ["../etc", "", "a/b", ".hidden", "a\n"])
async def test_ids_that_are_no_file_names_are_refused(local: LocalDriver, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await local.executor.poll(name)


async def test_stop_kills_descendants_that_ignore_it_and_left_the_group(
    local: LocalDriver, until: Until, ended: Until, eventually: Eventually, tmp_path: Path
) -> None:
    stubborn = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "while True: signal.pause()\n"
    )
    note = tmp_path / "grandchild"
    await local.executor.start(local.command("r1", "python", "-c", stubborn, str(note)))
    await eventually(lambda: note.exists() and note.read_text())
    grandchild = int(note.read_text())
    await local.executor.stop("r1", 0.2)
    status = await ended(local.executor, "r1")
    assert (status.exit_code, status.reason) == (
        -9,
        "stopped; killed because it had not ended after the grace",
    )
    assert is_gone(grandchild)


async def test_what_the_main_process_leaves_behind_is_killed(
    local: LocalDriver, ended: Until
) -> None:
    await local.executor.start(
        local.command("r1", "sh", "-c", "setsid sleep 1000 & echo $!; exit 5")
    )
    assert (await ended(local.executor, "r1")).exit_code == 5
    assert is_gone(int(await local.output("r1")))


async def test_the_last_line_is_there_when_the_replica_is_over(
    local: LocalDriver, ended: Until
) -> None:
    await local.executor.start(local.command("r1", "sh", "-c", "seq 20000; echo -n last >&2"))
    await ended(local.executor, "r1")
    chunk = await local.executor.read_output("r1", -10, 100)
    assert (chunk.data, chunk.is_complete) == (b"20000\nlast", True)


SERVICE = """
import asyncio, os, sys
from pathlib import Path
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.limits import NoLimits
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.replica import ReplicaSpec
from dataclasses import replace

async def main(home, pipe, program):
    account = replace(Account.current(), home=home)
    executor = LocalExecutor(home / "state", {"default": Path(sys.executable).parent},
        None, accounts=Accounts(account), limits=NoLimits())
    argv = ("python", "-I", "-S", "-c", program, pipe)
    await executor.start(ReplicaSpec("r1", "job-1", account.name, "local", argv))
    while (await executor.poll("r1")).state != "running":
        await asyncio.sleep(0.005)
    print("running", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


async def test_a_killed_service_finds_its_replicas_again(
    local: LocalDriver, until: Until, ended: Until, eventually: Eventually, tmp_path: Path
) -> None:
    puppet = local.spec("r1")
    command = [sys.executable, "-c", SERVICE, str(tmp_path), puppet.argv[-1], puppet.argv[-2]]
    service = await asyncio.create_subprocess_exec(
        *command,
        env={"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdout=subprocess.PIPE,
    )
    assert service.stdout is not None
    assert await service.stdout.readline() == b"running\n"
    service.kill()
    await service.wait()

    told: list[str] = []
    local.executor.watch(told.append)
    assert (await local.executor.poll("r1")).state is ReplicaState.RUNNING
    await local.executor.start(puppet)
    await local.write("r1", b"still here")
    await local.exit("r1", 6)
    await eventually(lambda: told)
    status = await ended(local.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, 6)
    assert await local.output("r1") == "still here"
    assert local.starts("r1") == 1


async def test_an_end_in_the_absence_of_the_service_is_found(
    local: LocalDriver, until: Until, ended: Until
) -> None:
    await local.executor.start(local.spec("r1"))
    await until(local.executor, "r1", ReplicaState.RUNNING)
    await local.executor.close()
    await local.exit("r1", 9)
    local.executor = local.another()
    assert (await ended(local.executor, "r1")).exit_code == 9


async def test_records_that_cannot_be_used_are_unavailable(
    local: LocalDriver, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "replicas").touch()
    executor = LocalExecutor(tmp_path / "broken", {}, MemorySnapshots())
    with pytest.raises(Unavailable):
        await executor.start(local.command("r1", "true"))
    with pytest.raises(Unavailable):
        await executor.poll("r1")
    with pytest.raises(Unavailable):
        await executor.read_output("r1", 0, 10)
    await executor.close()


async def test_a_start_that_was_cut_off_can_be_repeated(local: LocalDriver, until: Until) -> None:
    """A service killed between its note and the supervisor leaves a directory only."""
    Record(local.record("r1")).make()
    assert (await local.executor.poll("r1")).state is ReplicaState.CREATED
    await local.executor.start(local.spec("r1"))
    await until(local.executor, "r1", ReplicaState.RUNNING)


async def test_nothing_is_left_of_a_replica_whose_supervisor_is_killed(
    local: LocalDriver, until: Until, ended: Until, tmp_path: Path, eventually: Eventually
) -> None:
    # One in the session, one that left it: both outlive the main process.
    script = "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; echo $$; kill -9 $PPID; wait"
    await local.executor.start(local.command("r1", "bash", "-c", script))
    status = await ended(local.executor, "r1")
    assert (status.state, status.reason) == (
        ReplicaState.LOST,
        "its supervisor was killed, and so it was ended",
    )
    pids = [int(line) for line in (await local.output("r1")).split()]
    assert len(pids) == 3
    await eventually(lambda: all(map(is_gone, pids)))


async def test_a_replica_does_not_outlive_its_host(local: LocalDriver, ended: Until) -> None:
    """After a restart of the machine the pid in the record may be anybody's: this test's."""
    record = local.record("r1")
    record.mkdir(parents=True)
    identity = {"pid": os.getpid(), "start_time": 1, "boot_id": "another boot"}
    (record / "supervisor.json").write_text(json.dumps(identity))
    (record / "status.json").write_text(json.dumps({"state": "running", "pid": os.getpid()}))
    status = await ended(local.executor, "r1")
    assert (status.state, status.reason) == (
        ReplicaState.LOST,
        "the host was restarted while it ran",
    )


async def test_a_supervisor_that_hangs_does_not_save_a_replica(
    local: LocalDriver, until: Until, ended: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "MARGIN_SECONDS", 0.2)
    await local.executor.start(local.spec("r1"))
    await until(local.executor, "r1", ReplicaState.RUNNING)
    reading = Record(local.record("r1")).read()
    assert reading.supervisor is not None
    assert reading.session is not None
    reading.supervisor.send(signal.SIGSTOP)
    await local.executor.stop("r1", 0)
    status = await ended(local.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, -9)
    assert is_gone(reading.session)


async def test_a_record_that_is_gone_is_a_lost_replica(
    local: LocalDriver, until: Until, ended: Until
) -> None:
    await local.executor.start(local.command("r1", "true"))
    await ended(local.executor, "r1")
    for path in local.record("r1").iterdir():
        path.unlink()
    local.record("r1").rmdir()
    assert (await local.executor.poll("r1")).state is ReplicaState.LOST
    assert (await local.executor.read_output("r1", 0, 1)).is_complete


async def test_a_replica_sees_its_own_environment_and_nothing_of_the_services(
    local: LocalDriver, ended: Until, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "of the service")
    env = {"CUDA_VISIBLE_DEVICES": "2,3", "NIMBUS_RANK": "0", "PYTHONUNBUFFERED": "x"}
    await local.executor.start(local.command("r1", "/usr/bin/env", "-0", env=env))
    await ended(local.executor, "r1")
    lines = (await local.output("r1")).rstrip("\0").split("\0")
    job = tmp_path / "nimbus" / "job-1"
    assert dict(line.split("=", 1) for line in lines) == {
        "HOME": str(tmp_path),
        "USER": local.account.name,
        "LOGNAME": local.account.name,
        "SHELL": local.account.shell,
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(ON_PATH),
        "PYTHONUNBUFFERED": "x",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "NIMBUS_RANK": "0",
        "NIMBUS_REPLICA_ID": "r1",
        "NIMBUS_OUTPUT_DIR": str(job / "output"),
        "NIMBUS_LOG_DIR": str(job / "logs"),
        "NIMBUS_CHECKPOINT_DIR": str(job / "checkpoints"),
    }


async def test_replicas_of_a_job_share_its_working_directory(
    local: LocalDriver, ended: Until, tmp_path: Path
) -> None:
    script = "cat code/train.py; touch $NIMBUS_OUTPUT_DIR/$0; pwd"
    specs = [
        local.command(f"r{rank}", "sh", "-c", script, f"r{rank}", snapshot="abc")
        for rank in range(4)
    ]
    await asyncio.gather(*map(local.executor.start, specs))
    for one in specs:
        assert (await ended(local.executor, one.id)).exit_code == 0
        work = tmp_path / "nimbus/job-1/work"
        expected = f"# train\n{work}\n"
        assert await local.output(one.id) == expected
    assert (tmp_path / "nimbus/job-1").stat().st_mode & 0o777 == 0o700
    made = sorted(path.name for path in (tmp_path / "nimbus/job-1").iterdir())
    assert made == ["checkpoints", "logs", "output", "work"]
    assert len(list((tmp_path / "nimbus/job-1/output").iterdir())) == 4


async def test_a_supervisor_is_not_left_as_a_zombie(
    local: LocalDriver, ended: Until, eventually: Eventually
) -> None:
    await local.executor.start(local.command("r1", "true"))
    await ended(local.executor, "r1")
    reading = Record(local.record("r1")).read()
    assert reading.supervisor is not None
    stat = Path(f"/proc/{reading.supervisor.pid}/stat")
    await eventually(lambda: not stat.exists())


async def test_a_kernel_without_pidfds_only_costs_the_hints(
    local: LocalDriver,
    until: Until,
    ended: Until,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    await local.executor.start(local.spec("r1"))
    await until(local.executor, "r1", ReplicaState.RUNNING)
    await local.executor.stop("r1", 10)
    assert (await ended(local.executor, "r1")).exit_code == -15
    reading = Record(local.record("r1")).read()
    assert reading.supervisor is not None
    stat = Path(f"/proc/{reading.supervisor.pid}/stat")
    await eventually(lambda: not stat.exists())
