"""Train, fail on the worker named, and tell that what is registered for the end is run."""

import atexit
import sys

import xgboost
from sklearn.datasets import load_wine

from nimbus_hub.distributed import rank, world_size

features, labels = load_wine(return_X_y=True)
mine = slice(rank(), None, world_size())
atexit.register(print, f"left={rank()}", flush=True)


class FailAfterThree(xgboost.callback.TrainingCallback):
    def after_iteration(self, model, epoch, evals_log):
        if epoch == 3 and rank() == int(sys.argv[1]):
            raise ValueError("no good")
        return False


train = xgboost.DMatrix(features[mine], labels[mine])
xgboost.train({"base_score": 1.0}, train, 20, callbacks=[FailAfterThree()])
