"""Accounts and limits of the local executor: whose id, whose home, how much memory."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors import directories as executor_directories
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.directories import JobDirectories
from nimbus_hub.executors.limits import NoLimits, find_limits
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus
from tests.contract.snapshots import MemorySnapshots

if TYPE_CHECKING:
    from tests.contract.conftest import LocalDriver

    Until = Callable[..., Awaitable[ReplicaStatus]]


async def test_an_owner_who_is_not_served_is_told_why(local: LocalDriver, ended: Until) -> None:
    """As a service that does not run as root does, whoever runs this test."""
    accounts = Accounts(replace(local.account, name="ada", uid=os.getuid() or 1000))
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path("/usr/bin")},
        MemorySnapshots(),
        accounts=accounts,
        limits=NoLimits(),
    )
    await executor.start(replace(local.command("r1", "true"), owner="eve"))
    assert (await ended(executor, "r1")).reason == (
        "the local executor runs everything under the account ada, so it cannot serve eve; "
        "run the service as root for system users"
    )
    await executor.close()


def accounts_with_home(home: Path) -> Accounts:
    """Give system accounts a home that a test may write to."""
    return Accounts(Account.current(), lambda name: replace(Account.named(name), home=home))


async def test_what_another_users_job_left_is_deleted_as_that_user_and_no_link_is_followed(
    local: LocalDriver, ended: Until, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As root: a link to what is root's, and a directory in place of which there is a link."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    home, other = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("other")
    daemon = Account.named("daemon")
    os.chown(home, daemon.uid, daemon.gid)
    for parent in (*home.parents[:-2], other):
        parent.chmod(0o777)
    (other / "kept").write_text("")
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path("/usr/bin")},
        MemorySnapshots(),
        accounts=accounts_with_home(home),
    )
    script = "mkdir ../output/shut; touch ../output/shut/x; chmod 0 ../output/shut;"
    script += f"ln -s {other} ../output/link; ln -s {other} ../../l-1"
    run = replace(local.command("r1", "sh", "-c", script), owner="daemon")
    await executor.start(run)
    assert (await ended(executor, "r1")).exit_code == 0
    await executor.delete("job-1", ["r1"], "l-1")
    assert [path.name for path in (home / "nimbus").iterdir()] == ["l-1"]
    assert not local.record("r1").exists()
    assert (other / "kept").exists()
    await executor.close()


async def test_another_users_replica_runs_under_that_users_account(
    local: LocalDriver, ended: Until, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As root. Otherwise the very same request must be refused."""
    home = tmp_path_factory.mktemp("home")
    accounts = accounts_with_home(home)
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path("/usr/bin")},
        MemorySnapshots({"abc": {"train.py": ""}}),
        accounts=accounts,
    )
    if os.getuid() == 0:
        os.chown(home, Account.named("daemon").uid, Account.named("daemon").gid)
        for parent in home.parents[:-2]:
            parent.chmod(0o755)
    script = "id -un; id -G; ls -l | grep -c daemon; echo shown > /dev/stderr; touch ../output/mine"
    request = replace(local.command("r1", "sh", "-c", script), owner="daemon", snapshot="abc")
    await executor.start(request)
    status = await ended(executor, "r1")
    if os.getuid() == 0:
        assert (status.exit_code, status.reason) == (0, "")
        assert "shown" in (await executor.read_output("r1", 0, 1000)).data.decode()
        owners = {path.owner() for path in (home / "nimbus/job-1").rglob("*")}
        assert owners == {"daemon"}
        assert (home / "nimbus/job-1").stat().st_mode & 0o777 == 0o700
        assert local.record("r1").stat().st_mode & 0o777 == 0o700
        assert local.record("r1").owner() == "root"
    else:
        assert "cannot serve daemon" in status.reason
    await executor.close()


async def test_a_home_that_cannot_be_used_is_named(
    local: LocalDriver, ended: Until, tmp_path: Path
) -> None:
    for home, reason in (
        (tmp_path / "none", f"the account {local.account.name} has no home at {tmp_path}/none"),
        (tmp_path / "full", "the job's directories cannot be made: "),
    ):
        if home.name == "full":
            home.mkdir()
            (home / "nimbus").touch()
        executor = LocalExecutor(
            tmp_path / "state",
            {"default": Path("/usr/bin")},
            MemorySnapshots(),
            accounts=Accounts(replace(local.account, home=home)),
        )
        await executor.start(local.command(home.name, "true"))
        assert (await ended(executor, home.name)).reason.startswith(reason)
        await executor.close()


def test_a_home_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a few jobs of one user would hold up everybody's."""
    monkeypatch.setattr(executor_directories, "_COPY_SECONDS", 0.1)
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    account = replace(Account.current(), home=tmp_path)
    service = replace(account, uid=account.uid + 1)
    directories = JobDirectories(tmp_path / "staging", MemorySnapshots(), service, str(hanging))
    with pytest.raises(InvalidRequest, match=r"were not made in .* within"):
        directories.prepare(account, "daemon", "job-1", None)
    assert list((tmp_path / "staging").iterdir()) == []


async def test_a_link_in_a_users_home_leads_root_nowhere(
    local: LocalDriver, ended: Until, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As root; otherwise the owner is refused before anything is made."""
    home, target = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("target")
    (home / "nimbus").symlink_to(target)
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path("/usr/bin")},
        MemorySnapshots(),
        accounts=accounts_with_home(home),
    )
    await executor.start(replace(local.command("r1", "true"), owner="daemon"))
    status = await ended(executor, "r1")
    assert status.exit_code is None
    assert "directories cannot be made" in status.reason or "cannot serve" in status.reason
    assert list(target.iterdir()) == []
    await executor.close()


async def test_a_replica_over_its_memory_limit_is_ended_and_told_so(
    local: LocalDriver, ended: Until
) -> None:
    """Where control groups can be written; elsewhere the same replica runs to its end."""
    limits = find_limits()
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path(sys.executable).parent},
        MemorySnapshots(),
        accounts=Accounts(local.account),
        limits=limits,
    )
    hungry = textwrap.dedent("kept = [b'x' * 2**20 for _ in range(128)]")
    request = local.command("r1", "python", "-I", "-S", "-c", hungry, memory_bytes=64 * 2**20)
    await executor.start(request)
    status = await ended(executor, "r1")
    if isinstance(limits, NoLimits):
        assert status.exit_code == 0
    else:
        assert (status.exit_code, status.reason) == (
            -9,
            "ended by its memory limit of 64 MiB; ask for more memory",
        )
        groups = Record(local.record("r1")).groups()
        assert groups
        assert not any(group.exists() for group in groups)
    await executor.close()


async def test_a_run_in_its_holders_place_has_its_owners_account(
    local: LocalDriver, ended: Until, until: Until, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As root, with the system's Python; otherwise the owner is refused."""
    home, programs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("bin")
    (programs / "python").symlink_to("/usr/bin/python3")
    if os.getuid() == 0:
        os.chown(home, Account.named("daemon").uid, Account.named("daemon").gid)
        for parent in (*home.parents[:-2], programs):
            parent.chmod(0o755)
    snapshots = MemorySnapshots()
    executor = LocalExecutor(
        local.directory / "state",
        {"default": programs},
        snapshots,
        accounts=accounts_with_home(home),
    )
    holder = replace(local.command("h1", "python"), owner="daemon", modules=("fractions",))
    await executor.start(holder)
    status = await until(executor, "h1", ReplicaState.RUNNING, ReplicaState.EXITED)
    if os.getuid() != 0:
        assert "cannot serve daemon" in status.reason
        await executor.close()
        return
    script = "import os, sys\nprint(os.getuid(), 'fractions' in sys.modules)\nimport side\n"
    mine = "open('made', 'w').close(); open('/dev/stderr', 'a').write('told\\n')\n"
    for turn in range(2):
        files = {"run.py": script, "side.py": f"print({turn})\n" + mine}
        snapshots.snapshots[f"version-{turn}"] = files
        run = replace(
            local.command(f"r{turn}", "python", "run.py", holder="h1", workspace="gang"),
            owner="daemon",
            job_id=f"job-{turn}",
            snapshot=f"version-{turn}",
        )
        await executor.start(run)
        status = await ended(executor, run.id)
        output = (await executor.read_output(run.id, 0, 1000)).data.decode()
        assert (status.exit_code, status.reason) == (0, ""), output
        assert output == f"{Account.named('daemon').uid} True\n{turn}\ntold\n"
    assert snapshots.asked == [["run.py", "side.py"], ["side.py"]]
    assert {path.owner() for path in (home / "nimbus").rglob("*")} == {"daemon"}
    assert (home / "nimbus/gang").stat().st_mode & 0o777 == 0o700
    assert list((local.directory / "state" / "staging").iterdir()) == []
    await executor.stop("h1", 5)
    await ended(executor, "h1")
    await executor.close()


async def test_the_memory_of_a_run_is_limited_in_its_holders_group(
    local: LocalDriver, ended: Until, until: Until
) -> None:
    """Where control groups can be written; the holder and its next run go on."""
    limits = find_limits()
    if isinstance(limits, NoLimits):
        pytest.skip("no control groups may be made here")
    snapshots = MemorySnapshots()
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path(sys.executable).parent},
        snapshots,
        accounts=Accounts(local.account),
        limits=limits,
    )
    size = 128 * 2**20
    await executor.start(local.command("h1", "python", modules=(), memory_bytes=size))
    await until(executor, "h1", ReplicaState.RUNNING)
    snapshots.snapshots["abc"] = {
        "hungry.py": "kept = [b'x' * 2**20 for _ in range(256)]\n",
        "modest.py": "raise SystemExit(4)\n",
    }
    for turn, (script, code, reason) in enumerate(
        [
            ("hungry.py", -9, "ended by its memory limit of 128 MiB; ask for more memory"),
            ("modest.py", 4, ""),
        ]
    ):
        run = local.command(f"r{turn}", "python", script, holder="h1", workspace="gang")
        await executor.start(replace(run, job_id=f"job-{turn}", snapshot="abc", memory_bytes=size))
        status = await ended(executor, run.id)
        assert (status.exit_code, status.reason) == (code, reason)
    groups = Record(local.record("h1")).groups()
    assert groups
    assert Record(local.record("r0")).groups() == groups
    await executor.stop("h1", 5)
    await ended(executor, "h1")
    assert not any(group.exists() for group in groups)
    await executor.close()
