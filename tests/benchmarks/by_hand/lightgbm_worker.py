"""LightGBM by hand: the script's training gets the network's parameters from the environment.

``MACHINES=ip:port,... PORT=port python lightgbm_worker.py SCRIPT``
"""

import os
import runpy
import sys

import lightgbm

machines = os.environ["MACHINES"]
network = {
    "machines": machines,
    "num_machines": len(machines.split(",")),
    "local_listen_port": int(os.environ["PORT"]),
    "tree_learner": "data",
    "pre_partition": True,
}
train = lightgbm.train


def over_the_network(params, *args, **kwargs):
    """Train as the script says, with the others."""
    return train({**params, **network}, *args, **kwargs)


lightgbm.train = over_the_network
runpy.run_path(sys.argv[1], run_name="__main__")
