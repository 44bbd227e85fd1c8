"""Runs a script whose trainings with LightGBM are those of a network of workers.

The network is made once, before the script begins, and every dataset and booster is told of
it. A booster that were not would train alone on its part of the data and say nothing.

Python 3.6 and later, standard library and lightgbm only.
"""

import ctypes
import os

import lightgbm
from lightgbm import basic

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
PRE_PARTITION = ("pre_partition", "is_pre_partition")


def main(arguments: "list[str]") -> None:
    """Connect the workers, then run the script."""
    machines = os.environ["LIGHTGBM_MACHINES"]
    number = len(machines.split(","))
    connect(machines, number)
    terms = {"num_machines": number, "tree_learner": os.environ["LIGHTGBM_TREE_LEARNER"]}
    tell_datasets(terms)
    tell_boosters(terms)
    script.run(arguments)


def connect(machines: str, number: int) -> None:
    """Return when every worker is connected to every other one."""
    port, minutes = int(os.environ["LIGHTGBM_PORT"]), int(os.environ["LIGHTGBM_TIME_OUT"])
    basic._safe_call(
        basic._LIB.LGBM_NetworkInit(
            basic._c_str(machines), ctypes.c_int(port), ctypes.c_int(minutes), ctypes.c_int(number)
        )
    )
    print(
        "lightgbm: worker %s of %d is connected" % (os.environ["NIMBUS_RANK"], number), flush=True
    )


def tell_datasets(terms: "dict[str, Any]") -> None:
    """Have every dataset know that it is a part of one."""
    make = basic.Dataset.__init__

    def init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        make(self, *args, **kwargs)
        self.params = with_terms(self.params, terms)

    basic.Dataset.__init__ = init


def tell_boosters(terms: "dict[str, Any]") -> None:
    """Have every booster that trains do so with the others."""
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
    found = dict(params or {})
    for name, aliases in OURS.items():
        for alias in aliases:
            if alias in found and found.pop(alias) != terms.get(name):
                raise lightgbm.basic.LightGBMError(
                    "%s is set by Nimbus Hub for the workers of this job; leave it out" % alias
                )
    learner = next((found.pop(alias) for alias in LEARNER if alias in found), None)
    if learner == "serial":
        raise lightgbm.basic.LightGBMError(
            "tree_learner='serial' would have each worker train alone; leave it out, or use one "
            "worker"
        )
    found.update(terms)
    if learner is not None:
        found["tree_learner"] = learner
    if not any(alias in found for alias in PRE_PARTITION):
        found["pre_partition"] = True
    return found
