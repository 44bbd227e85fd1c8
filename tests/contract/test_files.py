"""The files of jobs and their signs of life, by each executor; links lead nowhere.

Real processes, since whose rights a file is read with is the point.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nimbus_hub.errors import InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors import files as executor_files
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.files import Directory
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.file import FileList
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus
from nimbus_hub.replica import files as replica_files
from tests.contract.snapshots import MemorySnapshots

if TYPE_CHECKING:
    from tests.contract.conftest import Driver, LocalDriver

    Until = Callable[..., Awaitable[ReplicaStatus]]


@pytest.fixture
async def job(driver: Driver, until: Until) -> Driver:
    """Give an executor with replica r1 running."""
    await driver.executor.start(driver.spec("r1"))
    await until(driver.executor, "r1", ReplicaState.RUNNING)
    return driver


def paths(found: FileList) -> list[str]:
    return [file.path for file in found.files]


async def test_files_are_found_below_a_path_in_order(job: Driver) -> None:
    assert await job.executor.find_files("r1", "", 10) == FileList(())
    for path in ("output/b/c.bin", "output/a.txt", "logs/events", "checkpoints/1/w"):
        job.put("r1", path, path.encode())
    find = job.executor.find_files
    assert sorted(paths(await find("r1", "", 10))) == [
        "checkpoints/1/w",
        "logs/events",
        "output/a.txt",
        "output/b/c.bin",
    ]
    assert paths(await find("r1", "output", 10)) == ["output/a.txt", "output/b/c.bin"]
    assert paths(await find("r1", "output/b", 10)) == ["output/b/c.bin"]
    (file,) = (await find("r1", "output/a.txt", 10)).files
    assert (file.path, file.size_bytes, file.changed_at.tzinfo) == ("output/a.txt", 12, UTC)
    assert (await find("r1", "output", 2)).is_whole
    part = await find("r1", "output", 1)
    assert (paths(part), part.is_whole) == (["output/a.txt"], False)
    with pytest.raises(NotFound, match="there is no file output/none"):
        await find("r1", "output/none", 10)


async def test_a_file_is_read_in_parts_and_its_version_tells_changes(job: Driver) -> None:
    job.put("r1", "output/model", b"0123456789")
    read = job.executor.read_file
    part = await read("r1", "output/model", 3, 4)
    assert (part.data, part.file.size_bytes) == (b"3456", 10)
    assert (await read("r1", "output/model", 8, 4)).data == b"89"
    assert (await read("r1", "output/model", 10, 4)).data == b""
    assert part.file in (await job.executor.find_files("r1", "output", 9)).files
    job.put("r1", "output/model", b"01234567890")
    assert (await read("r1", "output/model", 0, 1)).file.version != part.file.version
    with pytest.raises(NotFound):
        await read("r1", "output/none", 0, 1)


async def test_files_stay_after_the_end(job: Driver, ended: Until) -> None:
    job.put("r1", "output/model", b"model")
    await job.exit("r1", 0)
    await ended(job.executor, "r1")
    assert (await job.executor.read_file("r1", "output/model", 0, 9)).data == b"model"


async def test_what_was_never_started_has_no_files_and_was_never_heard_of(driver: Driver) -> None:
    assert await driver.executor.find_files("r9", "", 10) == FileList(())
    with pytest.raises(NotFound):
        await driver.executor.read_file("r9", "output/model", 0, 1)
    assert await driver.executor.heard(["r9"]) == {}


async def test_output_is_a_sign_of_life(job: Driver) -> None:
    await job.write("r1", b"step 1\n")
    heard = (await job.executor.heard(["r1", "r9"]))["r1"]
    assert datetime.now(UTC) - heard < timedelta(minutes=1)


async def test_an_event_file_that_grows_is_a_sign_of_life(local: LocalDriver, until: Until) -> None:
    await local.executor.start(local.spec("r1"))
    await until(local.executor, "r1", ReplicaState.RUNNING)
    logs = local.directory / "nimbus/job-1/logs"
    local.put("r1", "logs/train/events.1", b"")
    local.put("r1", "output/large", b"")
    events = logs / "train/events.1"
    for seconds, changed in ((1000, logs), (3000, events), (2000, logs / "train")):
        os.utime(changed, (seconds, seconds))
    output = local.record("r1") / "output.log"
    os.utime(output, (500, 500))
    assert (await local.executor.heard(["r1"]))["r1"] == datetime.fromtimestamp(3000, UTC)
    os.utime(output, (4000, 4000))
    assert (await local.executor.heard(["r1"]))["r1"] == datetime.fromtimestamp(4000, UTC)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("output/link", "output/link is a link, which is not followed"),
        ("output/folder/secret", "output/folder/secret is a link, which is not followed"),
        ("output/pipe", "output/pipe is no file; list what is in it"),
        ("output", "output is no file; list what is in it"),
        ("output/../../../secret", "a job's files are in output, logs, checkpoints, got"),
        ("work/train.py", "a job's files are in output, logs, checkpoints, got"),
        ("/etc/passwd", "a job's files are in output, logs, checkpoints, got"),
        ("output//model", "a job's files are in output, logs, checkpoints, got"),
        ("output/a\0b", "a job's files are in output, logs, checkpoints, got"),
        ("", "a job's files are in output, logs, checkpoints, got"),
    ],
)
async def test_nothing_leads_out_of_a_jobs_directories(
    local: LocalDriver, until: Until, path: str, sentence: str
) -> None:
    await local.executor.start(local.spec("r1"))
    await until(local.executor, "r1", ReplicaState.RUNNING)
    make_traps(local.directory, local.directory / "nimbus/job-1")
    with pytest.raises(InvalidRequest) as caught:
        await local.executor.read_file("r1", path, 0, 10)
    assert caught.value.message.startswith(sentence)
    assert paths(await local.executor.find_files("r1", "", 10)) == []


def make_traps(outside: Path, job: Path) -> None:
    (outside / "secret").write_text("secret")
    (job / "output/link").symlink_to(outside / "secret")
    (job / "output/folder").symlink_to(outside)
    os.mkfifo(job / "output/pipe")
    os.close(os.open(bytes(job / "output") + b"/no-\xff-text", os.O_CREAT | os.O_WRONLY))


async def test_root_reads_another_users_files_with_that_users_rights(
    local: LocalDriver, ended: Until, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As root; otherwise there is nobody else to serve."""
    if os.getuid() != 0:
        pytest.skip("only root serves others")
    home = tmp_path_factory.mktemp("home")
    daemon = Account.named("daemon")
    os.chown(home, daemon.uid, daemon.gid)
    for parent in home.parents[:-2]:
        parent.chmod(0o755)
    accounts = Accounts(Account.current(), lambda name: replace(daemon, home=home))
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path("/usr/bin")},
        MemorySnapshots(),
        accounts=accounts,
    )
    script = (
        "echo hi; echo model > ../output/model; echo e > ../logs/e; ln -s /etc/shadow ../output/s"
    )
    await executor.start(replace(local.command("r1", "sh", "-c", script), owner="daemon"))
    assert (await ended(executor, "r1")).exit_code == 0
    (home / "nimbus/job-1/output/roots").write_text("root's own")
    (home / "nimbus/job-1/output/roots").chmod(0o600)
    assert paths(await executor.find_files("r1", "", 10)) == [
        "output/model",
        "output/roots",
        "logs/e",
    ]
    assert (await executor.read_file("r1", "output/model", 2, 9)).data == b"del\n"
    for path, sentence in (
        ("output/s", "output/s is a link, which is not followed"),
        ("output/roots", "output/roots cannot be read: Permission denied"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await executor.read_file("r1", path, 0, 9)
        assert caught.value.message == sentence
    with pytest.raises(NotFound):
        await executor.read_file("r1", "output/none", 0, 9)
    os.utime(home / "nimbus/job-1/logs/e", (9e9, 9e9))
    assert (await executor.heard(["r1"]))["r1"] == datetime.fromtimestamp(9e9, UTC)
    await executor.close()


def test_a_home_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise a few requests for one user's files would hold up everybody's."""
    monkeypatch.setattr(executor_files, "_HELPER_SECONDS", 0.1)
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    files = Directory("/home/x", {"uid": 1, "gid": 1, "groups": [1]}, str(hanging))
    with pytest.raises(Unavailable, match=r"the files in /home/x cannot be read: .* timed out"):
        files.find("output", 9)


def test_a_very_large_directory_is_looked_at_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_files, "MOST_LOOKED_AT", 5)
    (tmp_path / "logs").mkdir()
    for number in range(9):
        (tmp_path / f"logs/{number}").write_text("")
    found, is_whole = replica_files.find(str(tmp_path), "logs", 100)
    assert (len(found), is_whole) == (5, False)
    assert replica_files.newest(str(tmp_path), "logs") > 0
    assert replica_files.newest(str(tmp_path), "output") == 0
