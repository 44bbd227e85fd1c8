"""Runs what a distributed job of Gensim is made of, and the script in its midst.

Pyro names its processes and carries pickles between them: all sign what they send with a key
of the job, and refuse what is not signed so. Gensim's own dispatchers hold the one connection
of a worker for a second at a time; those here ask again and again instead.

A call over Pyro has no time-out of its own, since it may take as long as the work does: the
script's process watches the others, and ends with the job once one of them stands still.

Python 3.6 and later, standard library, gensim and Pyro4 only.
"""

import hashlib
import os
import queue
import sys
import threading
import time
import traceback

from nimbus_hub.replica.runners import script

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USUAL_TIMEOUT_SECONDS = 120.0
GET_SECONDS, LOOK_SECONDS, WATCH_SECONDS = 0.02, 0.01, 1.0
LDA_WORKER, LSI_WORKER = "gensim.lda_worker", "gensim.lsi_worker"
LDA_DISPATCHER, LSI_DISPATCHER = "gensim.lda_dispatcher", "gensim.lsi_dispatcher"


def main(arguments: "list[str]") -> None:
    """Be what this replica's role says."""
    sign_all(job_key())
    role = os.environ["NIMBUS_ROLE"]
    if role == "nameserver":
        serve_names()
        return
    script.wait_for_services()
    if role == "worker":
        serve_work(os.environ["NIMBUS_ROLE_RANK"])
    elif role == "dispatcher":
        find(workers())
        serve_dispatch()
    else:
        watch("nameserver-0", "%s:%d" % names_address())
        train(arguments)


def train(arguments: "list[str]") -> None:
    """Run the script once all others are there, its models distributed."""
    import gensim

    for names in (workers(), {"dispatcher-0": LDA_DISPATCHER}):
        for replica, where in find(names).items():
            watch(replica, where)
    distribute(gensim.models.LdaModel, {"alpha": "auto", "eta": "auto"})
    distribute(gensim.models.LsiModel, {"onepass": False})
    script.run(arguments)


# Names and signatures


def job_key() -> bytes:
    """Return a key that the processes of this attempt have and nobody else."""
    secret = "%s %s" % (os.environ["NIMBUS_TOKEN"], os.environ["NIMBUS_RUN_ID"])
    return hashlib.sha256(secret.encode("utf-8")).digest()


def sign_all(key: bytes) -> None:
    """Have every proxy and daemon of this process sign, and believe only what is signed."""
    import Pyro4
    import Pyro4.core
    import Pyro4.naming

    for cls in (Pyro4.core.Proxy, Pyro4.core.Daemon):
        sign(cls, key)

    def locate(*_args: "Any", **_kwargs: "Any") -> "Any":
        return Pyro4.Proxy("PYRO:Pyro.NameServer@%s:%d" % names_address())

    Pyro4.core._locateNS = Pyro4.locateNS = Pyro4.naming.locateNS = locate


def sign(cls: "Any", key: bytes) -> None:
    """Give each new object of a class the key."""
    make = cls.__init__

    def init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        make(self, *args, **kwargs)
        self._pyroHmacKey = key

    cls.__init__ = init


def names_address() -> "tuple[str, int]":
    """Return where the name server listens."""
    return os.environ["PYRO_NS_HOST"], int(os.environ["PYRO_NS_PORT"])


def workers() -> "dict[str, str]":
    """Return the names of the workers, by replica."""
    number = int(os.environ["GENSIM_WORKERS"])
    return {"worker-%d" % each: "%s.%d" % (LDA_WORKER, each) for each in range(number)}


def find(wanted: "dict[str, str]") -> "dict[str, str]":
    """Return where replicas listen, by replica, once the name server knows all their names.

    Exit, saying who has not come, if that takes too long.
    """
    import Pyro4

    seconds = float(os.environ.get("GENSIM_TIMEOUT") or os.environ["NIMBUS_WAIT_SECONDS"])
    end = time.monotonic() + seconds
    with Pyro4.locateNS() as names:
        while True:
            known = names.list(prefix="gensim.")
            missing = [replica for replica, name in wanted.items() if name not in known]
            if not missing:
                return {
                    replica: Pyro4.URI(known[name]).location for replica, name in wanted.items()
                }
            if time.monotonic() >= end:
                sys.exit("nimbus: %s did not come within %g s" % (", ".join(missing), seconds))
            time.sleep(LOOK_SECONDS)


def watch(replica: str, where: str) -> None:
    """Have a thread end this process once a replica takes too long to say that it is alive."""
    import Pyro4
    from Pyro4.errors import CommunicationError, TimeoutError

    seconds = float(os.environ.get("GENSIM_TIMEOUT", USUAL_TIMEOUT_SECONDS))

    def ask() -> None:
        daemon = Pyro4.Proxy("PYRO:Pyro.Daemon@%s" % where)
        daemon._pyroTimeout = seconds
        try:
            while True:
                daemon.ping()
                time.sleep(WATCH_SECONDS)
        except TimeoutError:
            end_with("nimbus: %s did not answer for %g s\n" % (replica, seconds))
        except CommunicationError:
            # It is gone, which ends the job, or the job ends: the script may finish in peace.
            return

    threading.Thread(target=ask, daemon=True).start()


def end_with(said: str) -> None:
    """End this process at once, whatever its other threads wait for."""
    sys.stdout.flush()
    sys.stderr.write(said)
    sys.stderr.flush()
    os._exit(1)


# Roles that serve the script


def serve_names() -> None:
    """Be the name server until this process is ended."""
    import Pyro4.naming

    Pyro4.naming.startNSloop(*names_address(), enableBroadcast=False, hmac=job_key())


def serve_work(number: str) -> None:
    """Offer the workers of both models."""
    from gensim.models import lda_worker, lsi_worker

    serve(
        {
            LSI_WORKER + "." + number: strict(lsi_worker.Worker)(),
            LDA_WORKER + "." + number: strict(lda_worker.Worker)(),
        }
    )


def serve_dispatch() -> None:
    """Offer the dispatchers of both models."""
    from gensim.models import lda_dispatcher, lsi_dispatcher

    serve(
        {
            # Without a bound it would have all documents in memory.
            LSI_DISPATCHER: quick(lsi_dispatcher.Dispatcher)(lsi_dispatcher.MAX_JOBS_QUEUE),
            LDA_DISPATCHER: quick(lda_dispatcher.Dispatcher)(),
        }
    )


def serve(objects: "dict[str, Any]") -> None:
    """Offer objects under their names, the last of which is waited for, until the end."""
    import Pyro4

    with Pyro4.Daemon(os.environ["PYRO_HOST"]) as daemon:
        with Pyro4.locateNS() as names:
            for name, each in objects.items():
                names.register(name, daemon.register(each, name))
        print("offers %s" % ", ".join(objects), flush=True)
        daemon.requestLoop()


def strict(base: "Any") -> "Any":
    """Return a worker that ends with what fails in it: nobody would be told, and all would wait."""

    class Worker(base):  # type: ignore[misc]
        """Does pieces of work."""

        def processjob(self, job: "Any") -> None:
            """Do a piece of work."""
            try:
                base.processjob(self, job)
            except BaseException:  # noqa: BLE001 - nobody hears of any other end
                end_with(traceback.format_exc())

    return Worker


def quick(base: "Any") -> "Any":
    """Return a dispatcher that does as Gensim's own does, but holds nobody up."""
    import Pyro4

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
            while self._jobsdone < self._jobsreceived:
                time.sleep(LOOK_SECONDS)
            first, *others = self.workers.values()
            result = first.getstate()
            for worker in others:
                result.merge(worker.getstate())
            return result

    return Dispatcher


# The script


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
