"""MPI programs run for real, as one rank and as many, without ssh."""

from __future__ import annotations

import pytest

from tests.frameworks.cluster import Cluster

ENVIRONMENTS = ("mpi",)
LINE = "--framework mpi --environment mpi --cpus 0.5"


def test_many_ranks_find_what_one_finds(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} mpi_line.py")
    many = cluster.train(f"{LINE} --workers 3 mpi_line.py")
    for rank in range(3):
        assert many.value("weight", f"worker-{rank}") == pytest.approx(2, abs=1e-4)
    for name in ("weight", "bias"):
        assert many.value(name) == pytest.approx(alone.value(name), abs=1e-8)


def test_any_program_may_be_a_rank(cluster: Cluster) -> None:
    line = f"{LINE} --workers 2 -- sh -c"
    trained = cluster.train([*line.split(), 'echo "I am $PMI_RANK of $NIMBUS_WORLD_SIZE"'])
    assert trained.output["worker-1"] == "I am 1 of 2\n"
