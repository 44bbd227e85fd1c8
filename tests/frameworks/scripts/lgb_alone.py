"""Ask for another network than the job's."""

import lightgbm
from sklearn.datasets import load_wine

features, labels = load_wine(return_X_y=True)
lightgbm.train({"num_machines": 7}, lightgbm.Dataset(features, labels), 3)
