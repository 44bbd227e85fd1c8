"""LightGBM trains for real: alone, and with workers that all-reduce."""

from __future__ import annotations

from tests.frameworks.cluster import Cluster, Trained

ENVIRONMENTS = ("lightgbm",)
LINE = "--framework lightgbm --environment lightgbm --cpus 0.5"


def test_any_number_of_workers_finds_the_very_model_of_one(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} lgb_digits.py")
    for workers in (2, 3):
        many = cluster.train(f"{LINE} --workers {workers} lgb_digits.py")
        for name in ("rmse", "sum"):
            assert {many.value(name, f"worker-{rank}") for rank in range(workers)} == {
                alone.value(name)
            }
        assert trees(alone) == trees(many)


def trees(trained: Trained) -> str:
    """Return the trees of a model; what stands before them says what its worker saw of the data."""
    text = (trained.directory / "output" / "model.txt").read_text()
    return text[text.index("Tree=0") : text.index("end of trees")]
