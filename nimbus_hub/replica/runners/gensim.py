"""Runs what a distributed job of Gensim is made of, and the script in its midst.

Pyro names its processes and carries pickles between them: all sign what they send with a key
of the job, and refuse what is not signed so. Gensim's own dispatchers hold the one connection
of a worker for a second at a time; those here ask again and again instead.

Python 3.6 and later, standard library, gensim and Pyro4 only.
"""

import hashlib
import os
import queue
import time

import gensim
import Pyro4
import Pyro4.core
import Pyro4.naming
from gensim.models import lda_dispatcher, lda_worker, lsi_dispatcher, lsi_worker

from nimbus_hub.replica.runners import script

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GET_SECONDS, LOOK_SECONDS = 0.02, 0.01
ALIVE_EVERY = 500
"""After so many looks at what is not done yet the workers are asked for a sign of life."""

LDA, LSI = lda_worker.LDA_WORKER_PREFIX, "gensim.lsi_worker"
DISPATCHERS = {
    lda_dispatcher.LDA_DISPATCHER_PREFIX: lda_dispatcher.Dispatcher,
    "gensim.lsi_dispatcher": lsi_dispatcher.Dispatcher,
}


def main(arguments: "list[str]") -> None:
    """Be what this replica's role says."""
    sign_all(job_key())
    role = os.environ["NIMBUS_ROLE"]
    if role == "nameserver":
        where = os.environ["PYRO_NS_HOST"], int(os.environ["PYRO_NS_PORT"])
        Pyro4.naming.startNSloop(*where, enableBroadcast=False, hmac=job_key())
        return
    script.wait_for_services()
    number = os.environ["NIMBUS_ROLE_RANK"]
    if role == "worker":
        serve({LDA + "." + number: lda_worker.Worker(), LSI + "." + number: lsi_worker.Worker()})
    elif role == "dispatcher":
        wait_for_workers()
        serve({name: quick(base)() for name, base in DISPATCHERS.items()})
    else:
        wait_for_names(list(DISPATCHERS))
        distribute(gensim.models.LdaModel, {"alpha": "auto", "eta": "auto"})
        distribute(gensim.models.LsiModel, {"onepass": False})
        script.run(arguments)


def job_key() -> bytes:
    """Return a key that the processes of this attempt have and nobody else."""
    secret = "%s %s" % (os.environ["NIMBUS_TOKEN"], os.environ["NIMBUS_RUN_ID"])
    return hashlib.sha256(secret.encode("utf-8")).digest()


def sign_all(key: bytes) -> None:
    """Have every proxy and daemon of this process sign, and believe only what is signed."""
    for cls in (Pyro4.core.Proxy, Pyro4.core.Daemon):
        sign(cls, key)
    locate = Pyro4.core._locateNS

    def found(
        host: "Any" = None, port: "Any" = None, broadcast: bool = False, hmac_key: "Any" = None
    ) -> "Any":
        host, port = host or os.environ["PYRO_NS_HOST"], port or int(os.environ["PYRO_NS_PORT"])
        return locate(host, port, broadcast=False, hmac_key=hmac_key or key)

    Pyro4.core._locateNS = Pyro4.locateNS = Pyro4.naming.locateNS = found


def sign(cls: "Any", key: bytes) -> None:
    """Give each new object of a class the key."""
    make = cls.__init__

    def init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        make(self, *args, **kwargs)
        self._pyroHmacKey = key

    cls.__init__ = init


def serve(objects: "dict[str, Any]") -> None:
    """Offer objects under their names until this process is ended."""
    with Pyro4.Daemon(os.environ["PYRO_HOST"]) as daemon:
        with Pyro4.locateNS() as names:
            for name, each in objects.items():
                names.register(name, daemon.register(each, name))
        print("offers %s" % ", ".join(objects), flush=True)
        daemon.requestLoop()


def wait_for_workers() -> None:
    """Return when all workers have their names."""
    numbers = range(int(os.environ["GENSIM_WORKERS"]))
    wait_for_names(["%s.%d" % (prefix, number) for prefix in (LDA, LSI) for number in numbers])


def wait_for_names(wanted: "list[str]") -> None:
    """Return when all names are known to the name server; exit, naming one, if that is late."""
    seconds = float(os.environ["NIMBUS_WAIT_SECONDS"])
    end = time.monotonic() + seconds
    with Pyro4.locateNS() as names:
        for name in wanted:
            while not names.list(prefix=name):
                if time.monotonic() > end:
                    raise SystemExit("nimbus: %s was not there within %g s" % (name, seconds))
                time.sleep(LOOK_SECONDS)


def quick(base: "Any") -> "Any":
    """Return a dispatcher that does as Gensim's own does, but holds nobody up."""

    class Dispatcher(base):  # type: ignore[misc]
        """Hands out work, and merges what came of it."""

        @Pyro4.expose  # type: ignore[untyped-decorator]
        def getjob(self, worker_id: int) -> "Any":
            """Return a piece of work; raise queue.Empty, at which a worker asks again."""
            try:
                return self.jobs.get(timeout=GET_SECONDS)
            except queue.Empty:
                # Workers know no other exception.
                raise queue.Empty() from None

        @Pyro4.expose  # type: ignore[untyped-decorator]
        def getstate(self) -> "Any":
            """Return the merged state once all work is done."""
            looks = 0
            while self._jobsdone < self._jobsreceived:
                time.sleep(LOOK_SECONDS)
                looks += 1
                if looks % ALIVE_EVERY == 0:
                    for worker in self.workers.values():
                        worker.ping()
            first, *others = self.workers.values()
            result = first.getstate()
            for worker in others:
                result.merge(worker.getstate())
            return result

    return Dispatcher


def distribute(model: "Any", alone: "dict[str, Any]") -> None:
    """Have a script's models be distributed unless it says otherwise; not those made of them.

    ``alone`` are parameters with which Gensim can not.
    """
    make = model.__init__

    def init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        if type(self) is model and "distributed" not in kwargs:
            said = [
                "%s=%r" % (name, value)
                for name, value in alone.items()
                if name in kwargs and type(kwargs[name]) is type(value) and kwargs[name] == value
            ]
            for each in said:
                print("nimbus: with %s Gensim trains in this process alone" % each, flush=True)
            kwargs["distributed"] = not said
        make(self, *args, **kwargs)

    model.__init__ = init
