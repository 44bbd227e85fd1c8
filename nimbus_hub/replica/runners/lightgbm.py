"""Runs a script whose trainings with LightGBM are those of a network of workers.

The network is made once, before the script begins, and every dataset and booster is told of
it. A booster that were not would train alone on its part of the data and say nothing.

Python 3.6 and later, standard library and lightgbm only.
"""

import ctypes
import functools
import os
import select
import sys
import threading
import time

from nimbus_hub.replica.runners import script

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OURS = {
    "machines": ("machines", "workers", "nodes"),
    "num_machines": ("num_machines", "num_machine"),
    "local_listen_port": ("local_listen_port", "local_port", "port"),
}
"""Parameters of the network with their other names; a script may not have its own."""
LEARNER = ("tree_learner", "tree", "tree_type", "tree_learner_type")
GRACE_SECONDS = 10.0
"""A step has this long to end by itself after a worker has left."""
PRE_PARTITION = ("pre_partition", "is_pre_partition")


def main(arguments: "list[str]") -> None:
    """Connect the workers, then run the script."""
    machines = os.environ["LIGHTGBM_MACHINES"].split(",")
    peers = connect(machines)
    steps = Steps()
    threading.Thread(target=steps.watch, args=(peers,), daemon=True).start()
    terms = {"num_machines": len(machines), "tree_learner": os.environ["LIGHTGBM_TREE_LEARNER"]}
    tell_datasets(terms)
    tell_boosters(terms)
    script.run(arguments)


def connect(machines: "list[str]") -> "set[int]":
    """Return the sockets of the others once every worker is connected to every other one.

    LightGBM waits its own time for one that does not come, and may go on without it.
    """
    from lightgbm import basic

    lines = Lines()
    logger = basic._LOGGER
    basic.register_logger(lines)
    rank, number = int(os.environ["NIMBUS_RANK"]), len(machines)
    port, seconds = int(os.environ["LIGHTGBM_PORT"]), int(os.environ["LIGHTGBM_TIMEOUT"])
    before = sockets()
    timer = threading.Timer(seconds, give_up, (machines, rank))
    timer.daemon = True
    timer.start()
    basic._safe_call(
        basic._LIB.LGBM_NetworkInit(
            basic._c_str(",".join(machines)),
            ctypes.c_int(port),
            ctypes.c_int(-(-seconds // 60)),
            ctypes.c_int(number),
        )
    )
    peers = sockets() - before
    if len(peers) != number - 1:
        give_up(machines, rank)
    timer.cancel()
    basic.register_logger(logger)
    if "Local rank: %d, total number of machines: %d" % (rank, number) not in lines.text:
        sys.exit("nimbus: LightGBM has no network of %d machines: %s" % (number, lines.text))
    print("lightgbm: worker %d of %d is connected" % (rank, number), flush=True)
    return peers


def give_up(machines: "list[str]", rank: int) -> None:
    """End this process, saying who is not there."""
    places = [machine.rpartition(":") for machine in machines]
    missing = [
        "worker-%d" % each
        for each, (host, _, port) in enumerate(places)
        if each != rank and not script.takes_connections(host, int(port))
    ]
    who = ", ".join(missing) or "one of the others"
    sys.stderr.write(
        "nimbus: %s did not come within %s s\n" % (who, os.environ["LIGHTGBM_TIMEOUT"])
    )
    sys.stderr.flush()
    os._exit(1)


class Lines:
    """Keeps what LightGBM says."""

    text = ""

    def info(self, line: str) -> None:
        """Keep a line."""
        self.text += line + "\n"

    warning = info


class Steps:
    """The steps of trainings, in which each worker needs all others.

    LightGBM waits for ever for a worker that has left in order, one that stopped early say.
    """

    def __init__(self) -> None:
        from lightgbm import basic

        self.number = 0
        self.is_busy = False
        for owner, name in ((basic.Dataset, "construct"), (basic.Booster, "update")):
            setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, step: "Any") -> "Any":
        """Return a step that is known of while it lasts."""

        @functools.wraps(step)
        def run(*args: "Any", **kwargs: "Any") -> "Any":
            was_busy, self.is_busy = self.is_busy, True
            self.number += 1
            try:
                return step(*args, **kwargs)
            finally:
                self.is_busy = was_busy

        return run

    def watch(self, peers: "set[int]") -> None:
        """End this process if a step does not end after one of its peers has left."""
        poller = select.poll()
        for peer in peers:
            poller.register(peer, select.POLLRDHUP)
        poller.poll()
        while True:
            number = self.number
            time.sleep(GRACE_SECONDS)
            if self.is_busy and self.number == number:
                sys.stderr.write(
                    "nimbus: another worker has left, and LightGBM waits for it for ever; all must "
                    "train the same number of rounds (stop early by the same validation data)\n"
                )
                sys.stderr.flush()
                os._exit(1)


def sockets() -> "set[int]":
    """Return the descriptors of this process that are sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                found.add(int(name))
        except OSError:
            continue
    return found


def tell_datasets(terms: "dict[str, Any]") -> None:
    """Have every dataset know that it is a part of one."""
    from lightgbm import basic

    make = basic.Dataset.__init__

    def init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        make(self, *args, **kwargs)
        self.params = with_terms(self.params, terms)

    basic.Dataset.__init__ = init


def tell_boosters(terms: "dict[str, Any]") -> None:
    """Have every booster that trains do so with the others."""
    from lightgbm import basic

    make = basic.Booster.__init__

    def init(
        self: "Any", params: "Any" = None, train_set: "Any" = None, *args: "Any", **kwargs: "Any"
    ) -> None:
        if train_set is not None:
            params = with_terms(params, terms)
        make(self, params, train_set, *args, **kwargs)

    basic.Booster.__init__ = init


def with_terms(params: "dict[str, Any] | None", terms: "dict[str, Any]") -> "dict[str, Any]":
    """Return a script's parameters with the network's."""
    from lightgbm import basic

    found = dict(params or {})
    for name, aliases in OURS.items():
        for alias in aliases:
            if alias in found and found[alias] != terms.get(name):
                raise basic.LightGBMError(
                    "%s is set by Nimbus Hub for the workers of this job, got %r; leave it out"
                    % (alias, found[alias])
                )
            found.pop(alias, None)
    learner = next((found.pop(alias) for alias in LEARNER if alias in found), None)
    if learner == "serial":
        raise basic.LightGBMError(
            "tree_learner='serial' would have each worker train alone; leave it out, or use one "
            "worker"
        )
    found.update(terms)
    if learner is not None:
        found["tree_learner"] = learner
    if not any(alias in found for alias in PRE_PARTITION):
        found["pre_partition"] = True
    return found
