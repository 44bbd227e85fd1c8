"""PyTorch trains for real, alone and with DistributedDataParallel over gloo."""

from __future__ import annotations

import pytest

from tests.frameworks.cluster import Cluster


def test_many_workers_find_what_one_finds(cluster: Cluster) -> None:
    alone = cluster.train("--framework pytorch torch_line.py")
    many = cluster.train("--framework pytorch --workers 3 torch_line.py")
    for name in ("weight", "bias"):
        assert many.value(name) == pytest.approx(alone.value(name), abs=1e-5)
