"""Replicas in containers of a real engine: what goes in, what comes out, what they may do."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import Conflict, Ended, InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.docker.containers import container_name
from nimbus_hub.model.replica import LogChunk, ReplicaState, ReplicaStatus
from tests.docker.cluster import busybox_image, require_cluster
from tests.docker.driver import DockerDriver

Until = Callable[..., Awaitable[ReplicaStatus]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

ABOUT = """
import json, os
from nimbus_hub import distributed
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
def may_write(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
    return True
print(json.dumps({
    "cwd": os.getcwd(), "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "env": dict(os.environ), "rank": distributed.rank(), "files": sorted(os.listdir(".")),
    "capabilities": [status[name].strip() for name in ("CapEff", "CapBnd")],
    "no new privileges": status["NoNewPrivs"].strip(),
    "may write": {path: may_write(path) for path in ("/x", "x", "/tmp/x", "../output/x")},
    "socket": os.path.exists("/var/run/docker.sock"),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
}))
"""


async def about(docker: DockerDriver, ended: Until, **changes: object) -> dict[str, object]:
    """Return what a program finds where it runs."""
    await docker.executor.start(docker.command("r1", "python", "-c", ABOUT, **changes))
    status = await ended(docker.executor, "r1")
    assert status.exit_code == 0, docker.output("r1")
    found: dict[str, object] = json.loads(docker.output("r1"))
    return found


async def test_a_program_finds_its_files_its_variables_and_our_helpers(
    docker: DockerDriver, ended: Until
) -> None:
    found = await about(docker, ended, snapshot="abc", env={"NIMBUS_RANK": "3", "SEED": "a b"})
    env = found["env"]
    assert (found["cwd"], found["files"], found["rank"]) == (
        "/nimbus/job-1/work",
        ["code", "run"],
        3,
    )
    assert (env["SEED"], env["HOME"]) == ("a b", "/nimbus/job-1/home")
    assert env["NIMBUS_CHECKPOINT_DIR"] == "/nimbus/job-1/checkpoints"


async def test_a_program_has_no_rights_but_its_users(docker: DockerDriver, ended: Until) -> None:
    docker.use(users=lambda owner: (4711, 4712))
    found = await about(docker, ended, memory_bytes=2**27)
    assert found["ids"] == [4711, 4712, []] or found["ids"] == [4711, 4712, [4712]]
    assert found["capabilities"] == ["0000000000000000"] * 2
    assert found["no new privileges"] == "1"
    denied = "Permission denied"
    assert found["may write"] == {"/x": denied, "x": True, "/tmp/x": True, "../output/x": True}
    assert found["socket"] is False
    assert found["shm"] == 2**26


async def test_a_root_that_is_read_only_leaves_the_jobs_directory_and_tmp(
    docker: DockerDriver, ended: Until
) -> None:
    docker.use(read_only=frozenset({"default"}))
    found = await about(docker, ended)
    refused = "Read-only file system"
    assert found["may write"] == {"/x": refused, "x": True, "/tmp/x": True, "../output/x": True}


async def test_limits_are_the_engines(docker: DockerDriver, until: Until) -> None:
    await docker.executor.start(replace(docker.spec("r1"), cpus_milli=1500))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    limits = docker.inspect("r1")["HostConfig"]
    found = [limits[name] for name in ("NanoCpus", "Memory", "MemorySwap", "PidsLimit")]
    assert found == [1_500_000_000, 2**28, 2**28, 16384]


async def test_the_end_by_the_memory_limit_is_said(docker: DockerDriver, ended: Until) -> None:
    hungry = docker.command("r1", "python", "-c", "b'x' * 2**29", memory_bytes=2**26)
    await docker.executor.start(hungry)
    status = await ended(docker.executor, "r1")
    reason = "ended by its memory limit of 64 MiB; ask for more memory"
    assert (status.exit_code, status.reason) == (-9, reason)


async def test_what_cannot_be_run_is_said(docker: DockerDriver, ended: Until) -> None:
    cases = {
        "r1": ((("no-such-program",)), {}, "the program 'no-such-program' was not found"),
        "r2": (("/etc/passwd",), {}, "the program '/etc/passwd' cannot be run: Permission denied"),
        "r3": (("x",), {"environment": "none"}, "there is no environment 'none' of containers"),
        "r4": (("x",), {"snapshot": "gone"}, "snapshot gone is gone"),
    }
    for replica_id, (argv, changes, reason) in cases.items():
        await docker.executor.start(docker.command(replica_id, *argv, **changes))
        status = await ended(docker.executor, replica_id)
        assert status.state is ReplicaState.EXITED
        assert status.reason.startswith(reason)
    assert docker.client.containers("job-1") == []


async def test_a_container_that_is_killed_is_said_to_be(
    docker: DockerDriver, until: Until, ended: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    docker.client.kill(container_name("r1"), 9)
    status = await ended(docker.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, -9)
    assert status.reason.startswith("its Docker engine sent SIGKILL")


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"%s is asked\\n" % sys.argv[1].encode()))
if sys.argv[1] == "parent" and os.fork() == 0:
    sys.argv[1] = "child"
os.write(1, b"ready\\n")
while True:
    time.sleep(1)
"""


async def test_all_processes_are_asked_to_end_and_killed_after_the_grace(
    docker: DockerDriver, eventually: Eventually, ended: Until
) -> None:
    await docker.executor.start(docker.command("r1", "python", "-c", STUBBORN, "parent"))
    await eventually(lambda: docker.output("r1").count(b"ready\n") == 2)
    await docker.executor.stop("r1", 60)
    await eventually(lambda: docker.output("r1").count(b" is asked\n") == 2)
    assert (await docker.executor.poll("r1")).state is ReplicaState.RUNNING
    await docker.executor.stop("r1", 0.1)
    status = await ended(docker.executor, "r1")
    reason = "stopped; killed because it had not ended after the grace"
    assert (status.exit_code, status.reason) == (-9, reason)
    said = sorted(docker.output("r1").splitlines())
    assert said == [b"child is asked", b"parent is asked", b"ready", b"ready"]


async def test_a_stop_goes_on_after_a_restart_of_the_service(
    docker: DockerDriver, eventually: Eventually, ended: Until
) -> None:
    await docker.executor.start(docker.command("r1", "python", "-c", STUBBORN, "alone"))
    await eventually(lambda: b"ready\n" in docker.output("r1"))
    await docker.executor.stop("r1", 1)
    await eventually(lambda: b"asked" in docker.output("r1"))
    adopted = await docker.restarted()
    assert (await ended(adopted, "r1")).exit_code == -9


async def test_a_program_reads_what_is_written_to_it(
    docker: DockerDriver, until: Until, eventually: Eventually, ended: Until
) -> None:
    await docker.executor.start(docker.command("r1", "sh", "-c", "cat; echo end", has_input=True))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    await docker.executor.write_input("r1", b"one\n")
    await eventually(lambda: docker.output("r1") == b"one\n")
    data = bytes(range(256)) * 500
    await docker.executor.write_input("r1", data)
    await docker.executor.write_input("r1", b"")
    assert (await ended(docker.executor, "r1")).exit_code == 0
    assert docker.output("r1") == b"one\n" + data + b"end\n"
    with pytest.raises(Ended):
        await docker.executor.write_input("r1", b"late")


async def test_results_are_read_while_it_runs_and_when_all_is_removed(
    docker: DockerDriver, until: Until, eventually: Eventually, ended: Until
) -> None:
    script = (
        "mkdir -p ../output/a; printf model > ../output/a/model; echo e > ../logs/events;"
        "ln -s /etc/passwd ../output/link; ln ../output/a/model ../output/same; echo done; read x"
    )
    await docker.executor.start(docker.command("r1", "sh", "-c", script, has_input=True))
    await eventually(lambda: b"done" in docker.output("r1"))
    for _ in range(2):
        found = await docker.executor.find_files("r1", "", 10)
        assert [file.path for file in found.files] == [
            "output/same",
            "output/a/model",
            "logs/events",
        ]
        assert (await docker.executor.read_file("r1", "output/same", 1, 3)).data == b"ode"
        with pytest.raises(NotFound):
            await docker.executor.read_file("r1", "output/none", 0, 1)
        with pytest.raises(InvalidRequest):
            await docker.executor.read_file("r1", "output/../../x", 0, 1)
        if (await docker.executor.poll("r1")).state is ReplicaState.RUNNING:
            await docker.executor.write_input("r1", b"")
            await ended(docker.executor, "r1")
    await docker.gone("r1")
    assert docker.client.has_volume("nimbus-job-1") is False


async def test_the_next_attempt_finds_what_the_last_one_left(
    docker: DockerDriver, ended: Until
) -> None:
    keep = "echo weights > ../checkpoints/1; echo log > ../logs/a"
    await docker.executor.start(docker.command("r1", "sh", "-c", keep))
    await ended(docker.executor, "r1")
    await docker.executor.start(docker.command("r2", "sh", "-c", "cat ../checkpoints/1 ../logs/a"))
    await ended(docker.executor, "r2")
    assert docker.output("r2") == b"weights\nlog\n"


async def test_replicas_of_a_job_share_their_files_and_the_last_one_keeps_them(
    docker: DockerDriver, until: Until, ended: Until
) -> None:
    for replica_id in ("r1", "r2"):
        await docker.executor.start(docker.spec(replica_id))
    for replica_id in ("r1", "r2"):
        await until(docker.executor, replica_id, ReplicaState.RUNNING)
    docker.put("r1", "output/model", b"model")
    await docker.exit("r1", 0)
    await ended(docker.executor, "r1")
    assert (await docker.executor.read_file("r1", "output/model", 0, 9)).data == b"model"
    docker.put("r2", "output/late", b"late")
    await docker.exit("r2", 0)
    await ended(docker.executor, "r2")
    for replica_id in ("r1", "r2"):
        found = await docker.executor.find_files(replica_id, "", 9)
        assert [file.path for file in found.files] == ["output/late", "output/model"]


async def test_a_container_that_is_removed_by_others_leaves_its_results(
    docker: DockerDriver, until: Until, ended: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    docker.put("r1", "checkpoints/1", b"weights")
    await docker.lose("r1")
    assert (await ended(docker.executor, "r1")).state is ReplicaState.LOST
    assert (await docker.executor.read_file("r1", "checkpoints/1", 0, 9)).data == b"weights"


async def test_what_is_used_is_told_while_it_runs_and_afterwards(
    docker: DockerDriver, eventually: Eventually, ended: Until
) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\ninput()"
    await docker.executor.start(docker.command("r1", "python", "-c", burn, has_input=True))
    await eventually(lambda: b"burnt" in docker.output("r1"))
    used = (await docker.executor.measure(["r1", "r2"]))["r1"]
    assert 0.5 < used.cpu_seconds < 3
    assert 2**20 < used.memory_bytes < 2**27
    await docker.executor.write_input("r1", b"\n")
    await ended(docker.executor, "r1")
    assert (await docker.executor.measure(["r1"]))["r1"].cpu_seconds >= used.cpu_seconds
    adopted = await docker.restarted()
    assert (await adopted.measure(["r1"]))["r1"].cpu_seconds >= used.cpu_seconds


async def test_an_event_file_that_grows_is_a_sign_of_life(
    docker: DockerDriver, until: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    touch = "os.utime('/nimbus/job-1/logs', (9e9, 9e9)); os.write(1, b'.')"
    await docker.do("r1", touch)
    await docker.written_to("r1", 1)
    heard = (await docker.executor.heard(["r1"]))["r1"]
    assert datetime.now(UTC) - heard < timedelta(minutes=1)
    os.utime(docker.record("r1") / "output.log", (500, 500))
    assert (await docker.executor.heard(["r1"]))["r1"] == datetime.fromtimestamp(9e9, UTC)


async def test_nobody_elses_container_is_touched(docker: DockerDriver, ended: Until) -> None:
    name = container_name("r1")
    docker.client.create(name, {"Image": docker.images["default"], "Cmd": ["true"], "Labels": {}})
    try:
        await docker.executor.start(docker.command("r1", "true"))
        status = await ended(docker.executor, "r1")
        assert status.reason == f"another container of host local has the name {name}"
        await docker.executor.stop("r1", 0)
        assert docker.inspect("r1")["State"]["Status"] == "created"
    finally:
        docker.client.remove(name)


async def test_gpus_are_requested_by_the_ids_granted(docker: DockerDriver, ended: Until) -> None:
    """There is no such device here: the engine says so, which is what a user would read."""
    await docker.executor.start(docker.command("r1", "true", gpus=(2, 3)))
    status = await ended(docker.executor, "r1")
    assert status.state is ReplicaState.EXITED
    assert 'could not select device driver "nvidia" with capabilities: [[gpu]]' in status.reason
    assert docker.client.inspect(container_name("r1")) is None


async def test_who_takes_no_input_is_not_written_to(docker: DockerDriver, until: Until) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    with pytest.raises(Conflict):
        await docker.executor.write_input("r1", b"x")
    assert await docker.executor.read_output("r1", 0, 9) == LogChunk(0, b"", False)


async def test_an_image_without_python_runs_and_its_results_are_read_at_the_end(
    docker: DockerDriver, until: Until, ended: Until
) -> None:
    require_cluster()
    archive = busybox_image()
    made = docker.client.use(lambda api: api.import_image_from_data(archive, "nimbus-test/bare"))
    docker.images["default"] = json.loads(made.splitlines()[-1])["status"]
    script = "echo said; echo model > ../output/model; read x"
    await docker.executor.start(docker.command("r1", "sh", "-c", script, has_input=True))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    with pytest.raises(Unavailable, match="that needs Python in its image"):
        await docker.executor.find_files("r1", "", 9)
    assert (await docker.executor.poll("r1")).state is ReplicaState.RUNNING
    await docker.executor.write_input("r1", b"")
    await ended(docker.executor, "r1")
    assert docker.output("r1") == b"said\n"
    assert (await docker.executor.read_file("r1", "output/model", 0, 9)).data == b"model\n"
