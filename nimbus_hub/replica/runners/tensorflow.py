"""Runs a script as one task of TensorFlow, or a server that does what a chief has it do.

Two things are done to `MultiWorkerMirroredStrategy`. Making one waits for all tasks, for ever
and with python's lock held, so a process of its own looks whether they come. And TensorFlow
then takes SIGTERM for a notice that ends nothing; it is given back what it did before.

TensorFlow is not imported before the script does it: it reads its variables then.

Python 3.6 and later, standard library and tensorflow only.
"""

import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import traceback

from nimbus_hub.replica.runners import script
from nimbus_hub.replica.runners.imported import when_imported

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from typing import Any

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How a client of gRPC begins; the server answers with its settings."""
SETTINGS = 4
HEADER_BYTES = 9
ANSWER_SECONDS = 2.0


def main(arguments: "list[str]") -> None:
    """Serve without a command, else run it."""
    os.environ["NIMBUS_WAIT_SECONDS"] = os.environ["TENSORFLOW_TIMEOUT"]
    if not arguments:
        serve()
    elif "ps" in json.loads(os.environ["TF_CONFIG"])["cluster"]:
        script.wait_for_services(answers)
        train(arguments)
    else:
        when_imported("tensorflow", prepare)
        train(arguments)


def serve() -> None:
    """Do what the chief says, until this process is ended."""
    import tensorflow

    task = tensorflow.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = task.cluster_spec()
    # Operations that wait for another task hold a thread each: with one for each CPU, as is
    # usual, all tasks wait for each other where CPUs are few.
    threads = 1 + sum(map(cluster.num_tasks, cluster.jobs))
    config = tensorflow.compat.v1.ConfigProto(
        inter_op_parallelism_threads=max(threads, os.cpu_count() or 1)
    )
    server = tensorflow.distribute.Server(
        cluster, job_name=task.task_type, task_index=task.task_id, protocol="grpc", config=config
    )
    print("%s-%d serves" % (task.task_type, task.task_id), flush=True)
    server.join()


def train(arguments: "list[str]") -> None:
    """Run the script; if Keras 3 was what failed, say what works."""
    try:
        script.run(arguments)
    except SystemExit:
        # What it showed before it ended, if it ended so.
        explain(getattr(sys, "last_traceback", None))
        raise


def answers(host: str, port: int) -> bool:
    """Tell whether a server of gRPC is there and does what it should.

    The system takes connections for one that is stopped, too.
    """
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(HELLO)
            header = connection.recv(HEADER_BYTES)
    except OSError:
        return False
    return len(header) == HEADER_BYTES and header[3] == SETTINGS


def prepare(tensorflow: "Any") -> None:
    """Have no process wait for ever for the others, nor live on when it is asked to end."""
    strategy = tensorflow.distribute.MultiWorkerMirroredStrategy
    make = strategy.__init__

    def init(*args: "Any", **kwargs: "Any") -> None:
        watcher = os.fork()
        if watcher == 0:
            watch()
        try:
            make(*args, **kwargs)
        finally:
            os.kill(watcher, signal.SIGKILL)
            os.waitpid(watcher, 0)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))

    strategy.__init__ = init


def watch() -> None:
    """End the process above if the others do not answer in time; never return."""
    above = os.getppid()
    try:
        script.wait_for_services(answers)
    except SystemExit as late:
        sys.stderr.write("%s\n" % (late.code,))
        sys.stderr.flush()
        if os.getppid() == above:
            os.kill(above, signal.SIGKILL)
    finally:
        os._exit(0)


def explain(trace: "types.TracebackType | None") -> None:
    """Say that legacy Keras works, of an exception that came out of Keras 3."""
    keras = sys.modules.get("keras")
    version = getattr(keras, "__version__", "")
    if keras is None or version.split(".")[0] in ("", "2"):
        return
    folder = os.path.join(os.path.dirname(keras.__file__ or ""), "")
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    if any(name.startswith(folder) for name in files):
        sys.stderr.write(
            "nimbus: this came out of Keras %s, which does not train over several processes of "
            "TensorFlow; legacy Keras does. %s.\n" % (version, remedy())
        )


def remedy() -> str:
    """Return what brings legacy Keras to a script that has another one."""
    if importlib.util.find_spec("tf_keras") is None:
        return "Install it: pip install --no-deps tf-keras"
    if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true", "True"):
        return "It is tf.keras with TF_USE_LEGACY_KERAS=1, the default here"
    return "It is tf.keras here (TF_USE_LEGACY_KERAS=1): import that, or tf_keras, and not keras"
