"""XGBoost trains for real: alone, and with a tracker and workers that all-reduce."""

from __future__ import annotations

from tests.frameworks.cluster import Cluster

ENVIRONMENTS = ("xgboost",)
LINE = "--framework xgboost --environment xgboost --cpus 0.5"


def test_any_number_of_workers_finds_the_very_model_of_one(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} xgb_digits.py")
    for workers in (2, 3):
        many = cluster.train(f"{LINE} --workers {workers} xgb_digits.py")
        for name in ("rmse", "sum"):
            assert {many.value(name, f"worker-{rank}") for rank in range(workers)} == {
                alone.value(name)
            }
        models = [each.directory / "output" / "model.ubj" for each in (alone, many)]
        assert models[0].read_bytes() == models[1].read_bytes()
