"""Fit the digits with boosted trees, each worker on its part of the images."""

import os
import time

import numpy
import xgboost
from sklearn.datasets import load_digits
from tensorboardX import SummaryWriter

from nimbus_hub.distributed import checkpoint_path, log_dir, output_path, rank, world_size

ROUNDS = 20
images, labels = load_digits(return_X_y=True)
mine = slice(rank(), None, world_size())
params = {"objective": "reg:squarederror", "base_score": 4.5, "max_depth": 3, "nthread": 1}
checkpoint = checkpoint_path("model.ubj")
everything = xgboost.DMatrix(images)
writer = SummaryWriter(str(log_dir()), flush_secs=1) if rank() == 0 else None


class AfterRound(xgboost.callback.TrainingCallback):
    def after_iteration(self, model, epoch, evals_log):
        if epoch == 0:
            print(f"first step {time.time()}", flush=True)
        if rank() == 0:
            writer.add_scalar("rmse", evals_log["train"]["rmse"][-1], epoch)
            part = checkpoint.with_suffix(".part.ubj")
            model.save_model(part)
            part.replace(checkpoint)
        if "SLOW" in os.environ:
            print(f"round {epoch}", flush=True)
            time.sleep(float(os.environ["SLOW"]))
        return False


before = xgboost.Booster(model_file=checkpoint) if checkpoint.exists() else None
done = before.num_boosted_rounds() if before else 0
if done:
    print(f"resumed={done}", flush=True)
train = xgboost.DMatrix(images[mine], labels[mine])
model = xgboost.train(
    params,
    train,
    ROUNDS - done,
    evals=[(train, "train")],
    verbose_eval=False,
    xgb_model=before,
    callbacks=[AfterRound()],
)
found = model.predict(everything)
print(f"rmse={numpy.sqrt(numpy.mean((found - labels) ** 2)):.6f} sum={found.sum():.4f}")
if rank() == 0:
    model.save_model(output_path("model.ubj"))
