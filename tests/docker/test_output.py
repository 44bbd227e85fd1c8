"""The output of containers: every byte, in order, whatever happens to the service meanwhile."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from nimbus_hub.model.replica import LogChunk, ReplicaState, ReplicaStatus
from tests.docker.driver import DockerDriver

Until = Callable[..., Awaitable[ReplicaStatus]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

WRITE = "import random; data = random.Random({seed}).randbytes({size})"
TURNS = "[os.write(1 + i % 2, data[i * 100 : i * 100 + 100]) for i in range(len(data) // 100)]"


def noise(seed: int, size: int) -> bytes:
    """Return bytes that are no text, with lines of all lengths."""
    return random.Random(seed).randbytes(size)


async def say(docker: DockerDriver, seed: int, size: int) -> bytes:
    """Let r1 write noise to its output and its errors in turn; return it."""
    await docker.do("r1", WRITE.format(seed=seed, size=size) + "; " + TURNS)
    return noise(seed, size)


async def test_output_is_byte_for_byte_what_was_written_to_both_streams(
    docker: DockerDriver, until: Until, ended: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    said = await say(docker, 1, 300_000)
    await docker.written_to("r1", len(said))
    await docker.do("r1", "os.write(1, b'a line that does not end')")
    await docker.written_to("r1", len(said) + 24)
    await docker.exit("r1", 0)
    await ended(docker.executor, "r1")
    said += b"a line that does not end"
    assert docker.output("r1") == said
    assert await docker.executor.read_output("r1", 0, 10**6) == LogChunk(0, said, True)


async def test_output_is_whole_across_a_restart_of_the_service(
    docker: DockerDriver, until: Until, eventually: Eventually, ended: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    said = await say(docker, 1, 50_000)
    await docker.written_to("r1", len(said))
    await docker.executor.close()
    said += await say(docker, 2, 200_000)
    await docker.do("r1", "os.write(2, b'\\n'); open(sys.argv[1] + '.said', 'w')")
    await eventually(lambda: (docker.directory / "r1.said").exists())
    adopted = await docker.restarted()
    assert (await adopted.poll("r1")).state is ReplicaState.RUNNING
    await docker.written_to("r1", len(said) + 1)
    said += b"\n" + await say(docker, 3, 100_000)
    await docker.exit("r1", 0)
    await ended(adopted, "r1")
    assert docker.output("r1") == said
    await docker.gone("r1")
    assert (await adopted.read_output("r1", -10, 10)).data == said[-10:]


async def test_the_end_of_a_replica_is_found_by_the_next_service(
    docker: DockerDriver, until: Until, eventually: Eventually, ended: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    docker.put("r1", "output/model", b"model")
    await docker.executor.close()
    said = await say(docker, 1, 100_000)
    await docker.exit("r1", 3)
    await eventually(lambda: docker.inspect("r1")["State"]["Status"] == "exited")
    adopted = await docker.restarted()
    assert (await ended(adopted, "r1")).exit_code == 3
    assert docker.output("r1") == said
    assert (await adopted.read_file("r1", "output/model", 0, 9)).data == b"model"


async def test_of_very_long_output_the_end_is_kept_and_the_gap_is_said(
    docker: DockerDriver, until: Until, ended: Until
) -> None:
    docker.use(output_bytes=2**20)
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    said = await say(docker, 1, 3_000_000)
    await docker.exit("r1", 0)
    await ended(docker.executor, "r1")
    left_out = len(said) - 2**20 - 2**16
    note = f"\n[nimbus] {left_out} bytes of output are left out here, beyond 1 MiB\n".encode()
    assert docker.output("r1") == said[: 2**20] + note + said[-(2**16) :]


async def test_what_the_engine_has_thrown_away_while_nobody_read_is_said_to_be_missing(
    docker: DockerDriver, until: Until, eventually: Eventually, ended: Until
) -> None:
    docker.use(output_bytes=2**20)
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    first = await say(docker, 1, 50_000)
    await docker.written_to("r1", len(first))
    await docker.executor.close()
    said = await say(docker, 2, 3_000_000)
    await docker.exit("r1", 0)
    await eventually(lambda: docker.inspect("r1")["State"]["Status"] == "exited")
    adopted = await docker.restarted()
    await ended(adopted, "r1")
    found = docker.output("r1")
    note = b"\n[nimbus] output is missing here: more came while nobody read than the engine keeps\n"
    assert found.startswith(first + note)
    assert found.endswith(said[-(2**16) :])
