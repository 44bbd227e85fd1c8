"""Fit the digits with boosted trees, each worker on its part of the images."""

import os
import time

import lightgbm
import numpy
from sklearn.datasets import load_digits
from tensorboardX import SummaryWriter

from nimbus_hub.distributed import checkpoint_path, log_dir, output_path, rank, world_size

ROUNDS = 20
images, labels = load_digits(return_X_y=True)
mine = slice(rank(), None, world_size())
params = {
    "objective": "regression",
    "boost_from_average": False,
    "min_data_in_bin": 1,
    "num_leaves": 8,
    "learning_rate": 0.5,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}
checkpoint = checkpoint_path("model.txt")
writer = SummaryWriter(str(log_dir()), flush_secs=1) if rank() == 0 else None


def after_round(env):
    if env.iteration == env.begin_iteration:
        print(f"first step {time.time()}", flush=True)
    if rank() == 0:
        error = float(numpy.sqrt(numpy.mean((env.model.predict(images) - labels) ** 2)))
        writer.add_scalar("rmse", error, env.iteration)
        part = checkpoint.with_suffix(".part")
        env.model.save_model(part)
        part.replace(checkpoint)
    if "SLOW" in os.environ:
        print(f"round {env.iteration}", flush=True)
        time.sleep(float(os.environ["SLOW"]))


done = lightgbm.Booster(model_file=checkpoint).current_iteration() if checkpoint.exists() else 0
if done:
    print(f"resumed={done}", flush=True)
model = lightgbm.train(
    params,
    lightgbm.Dataset(images[mine], labels[mine]),
    ROUNDS - done,
    init_model=str(checkpoint) if done else None,
    callbacks=[after_round],
)
found = model.predict(images)
print(f"rmse={numpy.sqrt(numpy.mean((found - labels) ** 2)):.6f} sum={found.sum():.6f}")
if rank() == 0:
    model.save_model(output_path("model.txt"))
