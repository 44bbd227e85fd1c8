"""One Docker engine's client, and those of all engines.

Calls block: they are made in threads of the engine's own, so that one that hangs holds up
nobody else's. Whatever the transport does is Unavailable, which says nothing of replicas.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any, ParamSpec, TypeVar

import docker
import urllib3
from docker import errors as docker_errors
from docker.types import CancellableStream

from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.docker.connections import BROKEN, connect, cut, framed, why
from nimbus_hub.executors.docker.containers import JOB_LABEL, REPLICA_LABEL
from nimbus_hub.executors.docker.ends import moment
from nimbus_hub.model.engine import Engine

__all__ = ["LONG_SECONDS", "QUICK_SECONDS", "EngineClient", "Engines", "Input", "Pieces"]

R = TypeVar("R")
P = ParamSpec("P")

QUICK_SECONDS = 10
"""How long an engine may take to answer a question."""
LONG_SECONDS = 300
"""How long it may take to do something, or to go on with what it sends."""
REGISTRY_SECONDS = 60
"""How long it may take to ask a registry, and to give up one that does not answer."""
PAUSE_SECONDS = 2.0
"""How long an engine that did not answer is not asked again."""
THREADS = 8

# What an engine says that was killed and is back, until its Swarm gives up its last session; and
# any engine while its Swarm has no manager.
_NOT_YET = (
    "attaching to network failed",
    "Could not attach to network",
    "context deadline exceeded",
    "does not have a leader",
)


class EngineClient:
    """Talks to one engine; all methods block but :meth:`call` and :meth:`carry`."""

    def __init__(self, engine: Engine) -> None:
        """Connect when first asked for something."""
        self.engine = engine
        self._quick = ThreadPoolExecutor(THREADS, f"docker-{engine.host}")
        self._long = ThreadPoolExecutor(THREADS, f"docker-{engine.host}-long")
        self._clients: dict[int, docker.APIClient] = {}
        self._lock = threading.Lock()
        self._silence = ""
        self._silent: tuple[float, str] = (0.0, "")

    async def call(self, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        """Do what is quick in a thread; who was silent just now is not waited for again."""
        return await self._do(self._quick, partial(work, *args, **more))

    async def carry(self, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        """Do what may take long, so that nothing quick has to wait for it."""
        return await self._do(self._long, partial(work, *args, **more))

    async def _do(self, pool: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        loop = asyncio.get_running_loop()
        until, words = self._silent
        if loop.time() < until:
            raise Unavailable(words)
        try:
            done = loop.run_in_executor(pool, work)
        except RuntimeError as error:
            raise Unavailable(f"host {self.engine.host} has another engine now") from error
        try:
            return await done
        except Unavailable as error:
            if error.message == self._silence:
                self._silent = loop.time() + PAUSE_SECONDS, error.message
            raise

    def close(self) -> None:
        """Let go of the connections."""
        self._quick.shutdown(wait=False)
        self._long.shutdown(wait=False)
        for client in self._clients.values():
            client.close()

    def use(self, work: Callable[[docker.APIClient], R], seconds: int = QUICK_SECONDS) -> R:
        """Do something else with the SDK's client, with the errors of this side."""
        with self._asked(seconds) as client:
            return work(client)

    def info(self) -> dict[str, Any]:
        """Return what the engine says of itself and its host."""
        with self._asked() as client:
            found: dict[str, Any] = client.info()
        return found

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Return what is known of a container, None if there is none."""
        try:
            with self._asked() as client:
                found: dict[str, Any] = client.inspect_container(name)
        except NotFound:
            return None
        return found

    def containers(self, job_id: str | None = None) -> list[dict[str, Any]]:
        """Return the containers of replicas, of one job or all, also those that have ended."""
        label = JOB_LABEL if job_id is None else f"{JOB_LABEL}={job_id}"
        with self._asked() as client:
            found: list[dict[str, Any]] = client.containers(all=True, filters={"label": label})
        return [each for each in found if REPLICA_LABEL in each["Labels"]]

    def create(self, name: str, values: dict[str, Any]) -> None:
        """Create a container, unless there is one of that name."""
        with self._asked(LONG_SECONDS) as client:
            try:
                client.create_container_from_config(values, name)
            except docker_errors.APIError as error:
                if error.status_code != 409:
                    raise

    def start(self, name: str) -> None:
        """Start a container; one that runs already is left alone."""
        with self._asked(LONG_SECONDS) as client:
            client.start(name)

    def kill(self, name: str, signal: int) -> bool:
        """Signal a container; False for one that is gone or does not run."""
        try:
            with self._asked() as client:
                client.kill(name, signal)
        except (NotFound, Conflict):
            return False
        return True

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what the engine remembers of a container: it keeps its last 256 events."""
        with self._asked() as client:
            now = moment(client.info()["SystemTime"])
            until = 0.0 if now is None else now.timestamp()
            filters = {"container": name}
            return list(client.events(since=1, until=f"{until:.6f}", filters=filters, decode=True))

    def remove(self, name: str) -> None:
        """Remove a container, running or not; one that is gone is left alone."""
        try:
            with self._asked(LONG_SECONDS) as client:
                client.remove_container(name, v=True, force=True)
        except (NotFound, Conflict):
            return

    def remove_volume(self, name: str) -> None:
        """Remove a named volume, unless it is in use or gone."""
        try:
            with self._asked(LONG_SECONDS) as client:
                client.remove_volume(name)
        except (NotFound, Conflict):
            return

    def has_volume(self, name: str) -> bool:
        """Tell whether there is a named volume."""
        try:
            with self._asked() as client:
                client.inspect_volume(name)
        except NotFound:
            return False
        return True

    def put(self, name: str, path: str, archive: IO[bytes]) -> None:
        """Unpack an archive into a directory of a container that need not run."""
        with self._asked(LONG_SECONDS) as client:
            client.put_archive(name, path, archive)

    def get(self, name: str, path: str) -> Iterator[bytes]:
        """Yield the archive of a directory of a container that need not run."""
        with self._asked(LONG_SECONDS) as client:
            yield from client.get_archive(name, path)[0]

    def image(self, reference: str) -> dict[str, Any] | None:
        """Return what is known of an image, None if the engine does not have it."""
        try:
            with self._asked() as client:
                found: dict[str, Any] = client.inspect_image(reference)
        except NotFound:
            return None
        return found

    def pull(self, reference: str, credentials: dict[str, str] | None) -> Iterator[dict[str, Any]]:
        """Pull an image; yield what the engine tells meanwhile."""
        with self._asked(LONG_SECONDS) as client:
            name, tag = docker.utils.parse_repository_tag(reference)
            auth = credentials or {}
            yield from client.pull(
                name, tag or "latest", stream=True, decode=True, auth_config=auth
            )

    def make_image(self, reference: str, archive: bytes) -> None:
        """Make an image of the archive of its root directory."""
        with self._asked(LONG_SECONDS) as client:
            client.import_image_from_data(archive, reference)

    def registry_has(self, reference: str, credentials: dict[str, str] | None) -> str:
        """Return the digest of an image in its registry, asked for by the engine.

        Raises NotFound or InvalidRequest with what the registry says.
        """
        with self._asked(REGISTRY_SECONDS) as client:
            found = client.inspect_distribution(reference, credentials or {})
        return str(found["Descriptor"]["digest"])

    def stats(self, name: str) -> dict[str, Any] | None:
        """Return what a container uses, None if it is gone."""
        try:
            with self._asked() as client:
                found: dict[str, Any] = client.stats(name, stream=False, one_shot=True)
        except (NotFound, Conflict):
            return None
        return found

    def output(self, name: str, *, follow: bool) -> Pieces:
        """Return the output of a container from its beginning, in pieces."""
        with self._asked(LONG_SECONDS) as client:
            return Pieces(client.logs(name, stderr=False, stream=True, follow=follow))

    def attach(self, name: str) -> Pieces:
        """Return the output of a container from now on, in pieces."""
        with self._asked(LONG_SECONDS) as client:
            return Pieces(framed(client, client.attach(name, stderr=False, stream=True)))

    def attach_input(self, name: str) -> Input:
        """Return a connection to the standard input of a container."""
        with self._asked() as client:
            wanted = {"stdin": 1, "stdout": 0, "stderr": 0, "stream": 1}
            return Input(client.attach_socket(name, wanted))

    def execute(self, name: str, argv: Sequence[str]) -> tuple[str, Pieces]:
        """Run a program in a running container; return its id and its standard output."""
        with self._asked(LONG_SECONDS) as client:
            made = client.exec_create(name, list(argv), stdout=True, stderr=False)["Id"]
            return made, Pieces(client.exec_start(made, stream=True))

    def exit_code(self, execution: str) -> int | None:
        """Return what such a program came to."""
        with self._asked() as client:
            code: int | None = client.exec_inspect(execution)["ExitCode"]
        return code

    @contextmanager
    def _asked(self, seconds: int = QUICK_SECONDS) -> Iterator[docker.APIClient]:
        """Give a client, with the errors of this side."""
        engine = self.engine
        try:
            yield self._client(seconds)
        except docker_errors.APIError as error:
            raise _refused(engine, error) from error
        except (docker_errors.DockerException, urllib3.exceptions.HTTPError, OSError) as error:
            self._silence = (
                f"the Docker engine of host {engine.host} at {engine.endpoint} "
                f"does not answer: {why(error)}"
            )
            raise Unavailable(self._silence) from error

    def _client(self, seconds: int) -> docker.APIClient:
        with self._lock:
            if seconds not in self._clients:
                self._clients[seconds] = connect(self.engine, seconds)
            return self._clients[seconds]


class Pieces:
    """Bytes as an engine sends them; a connection that breaks, or is closed, is an end."""

    def __init__(self, stream: CancellableStream) -> None:
        """Take what the SDK gives."""
        self._stream = stream

    def __iter__(self) -> Pieces:
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next bytes."""
        try:
            data: bytes = next(self._stream)
        except BROKEN:
            raise StopIteration from None
        return data

    def close(self) -> None:
        """End it, from any thread."""
        cut(self._stream)
        # Which the SDK leaves open.
        with suppress(*BROKEN):
            self._stream._response.close()


class Input:
    """A connection to what a container reads."""

    def __init__(self, connection: Any) -> None:
        """Take what the SDK gives: a file over a socket, or a socket."""
        self._connection = connection
        self._socket: socket.socket = getattr(connection, "_sock", connection)

    def write(self, data: bytes, seconds: float) -> None:
        """Send all of it; raise OSError if that cannot be done in time."""
        self._socket.settimeout(seconds)
        self._socket.sendall(data)

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        self._socket.close()


class Engines:
    """The clients of all engines of the cluster, by host."""

    def __init__(self, engines: Callable[[], Sequence[Engine]]) -> None:
        """Ask ``engines`` again for each host: the cluster may change."""
        self._engines = engines
        self._clients: dict[str, EngineClient] = {}

    def all(self) -> tuple[EngineClient, ...]:
        """Return the clients of now; those of engines that have left are closed."""
        engines = {engine.host: engine for engine in self._engines()}
        for host, client in list(self._clients.items()):
            if engines.get(host) != client.engine:
                self._clients.pop(host).close()
        for host, engine in engines.items():
            if host not in self._clients:
                self._clients[host] = EngineClient(engine)
        return tuple(self._clients[host] for host in engines)

    def of(self, host: str) -> EngineClient:
        """Return the client of a host; raise Unavailable if it has no engine now."""
        for client in self.all():
            if client.engine.host == host:
                return client
        raise Unavailable(f"host {host} has no Docker engine in the cluster any more")

    def close(self) -> None:
        """Let go of all connections."""
        for client in self._clients.values():
            client.close()


def _refused(engine: Engine, error: docker_errors.APIError) -> Exception:
    words = f"the Docker engine of host {engine.host} says: {error.explanation or error}"
    if any(each in words for each in _NOT_YET):
        return Unavailable(words)
    kinds: dict[int | None, type[Exception]] = {404: NotFound, 409: Conflict}
    return kinds.get(error.status_code, InvalidRequest)(words)
