"""Runs a script whose data-parallel models are those of all shards of a job.

What trains is told where the shards meet; a model that only evaluates is left alone. Each
meeting has a directory of its own below NIMBUS_CHECKPOINT_DIR, since Caffe2 crashes in one
that was used before.

Python 3.6 and later, standard library and caffe2 only.
"""

import functools
import inspect
import itertools
import os
import shutil

from nimbus_hub.replica.runners import script

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUILDERS = ("Parallelize", "Parallelize_BMUF")
UPDATES = ("param_update_builder_fun", "optimizer_builder_fun")
STORES = ".caffe2"

meetings = itertools.count()


def main(arguments: "list[str]") -> None:
    """Have every model that trains do so with the other shards, then run the script."""
    from caffe2.python import data_parallel_model, dyndep, workspace

    if "FileStoreHandlerCreate" not in workspace.RegisteredOperators():
        dyndep.InitOpsLibrary("@/caffe2/caffe2/distributed:file_store_handler_ops")
    data_parallel_model._DEFAULT_TIMEOUT_SEC = timeout_seconds()
    for name in BUILDERS:
        setattr(data_parallel_model, name, with_others(getattr(data_parallel_model, name)))
    if os.environ["NIMBUS_RANK"] == "0":
        forget_other_runs()
    script.run(arguments)


def with_others(build: "Any") -> "Any":
    """Return what builds a model with that part in which the shards meet."""
    parameters = inspect.signature(build)

    @functools.wraps(build)
    def built(*args: "Any", **kwargs: "Any") -> "Any":
        given = parameters.bind_partial(*args, **kwargs).arguments
        if given.get("rendezvous") is None and any(given.get(name) for name in UPDATES):
            kwargs["rendezvous"] = rendezvous()
            kwargs.setdefault("barrier_net_timeout_sec", timeout_seconds())
        return build(*args, **kwargs)

    return built


def rendezvous() -> "dict[str, Any]":
    """Return where all shards meet for one more model."""
    from caffe2.python import core, workspace

    name = "nimbus_store_%d" % next(meetings)
    path = os.path.join(stores(), os.environ["NIMBUS_RUN_ID"], name)
    os.makedirs(path, exist_ok=True)
    workspace.RunOperatorOnce(
        core.CreateOperator("FileStoreHandlerCreate", [], [name], path=path, prefix="")
    )
    found = {
        "kv_handler": name,
        "shard_id": int(os.environ["NIMBUS_RANK"]),
        "num_shards": int(os.environ["NIMBUS_WORLD_SIZE"]),
        "engine": "GLOO",
        "transport": "tcp",
        "exit_nets": None,
    }  # type: dict[str, Any]
    if "CAFFE2_INTERFACE" in os.environ:
        found["interface"] = os.environ["CAFFE2_INTERFACE"]
    return found


def forget_other_runs() -> None:
    """Remove where the shards of earlier attempts have met."""
    for name in os.listdir(stores()) if os.path.isdir(stores()) else ():
        if name != os.environ["NIMBUS_RUN_ID"]:
            shutil.rmtree(os.path.join(stores(), name), ignore_errors=True)


def stores() -> str:
    """Return the directory of all meetings of the job."""
    return os.path.join(os.environ["NIMBUS_CHECKPOINT_DIR"], STORES)


def timeout_seconds() -> int:
    """Return how long a shard waits for the others."""
    return int(os.environ["CAFFE2_TIMEOUT"])
