"""Fail on one rank while the others wait for it."""

from mpi4py import MPI

world = MPI.COMM_WORLD
for step in range(5):
    if step == 3 and world.rank == 1:
        raise ValueError("no good")
    world.allreduce(step)
