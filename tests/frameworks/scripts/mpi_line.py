"""Fit a line by gradient descent, the data split over the ranks."""

import os
import time

import numpy
from mpi4py import MPI

from nimbus_hub.distributed import checkpoint_path, rank, world_size

world = MPI.COMM_WORLD
assert (world.rank, world.size) == (rank(), world_size())
x = numpy.linspace(-1, 1, 240)[world.rank :: world.size]
y = 2 * x + 0.5
checkpoint = checkpoint_path("model.npz")
first, model = 0, numpy.zeros(2)
if checkpoint.exists():
    with numpy.load(checkpoint) as saved:
        first, model = int(saved["step"]), saved["model"]
    print(f"resumed={first}", flush=True)

for step in range(first, 60):
    error = model[0] * x + model[1] - y
    slope = numpy.array([(2 * error * x).sum(), (2 * error).sum()])
    model = model - 0.3 * world.allreduce(slope) / 240
    if step == first:
        print(f"first step {time.time()}", flush=True)
    if world.rank == 0:
        part = checkpoint.with_suffix(".part.npz")
        numpy.savez(part, step=step + 1, model=model)
        part.replace(checkpoint)
    if "SLOW" in os.environ:
        print(f"round {step}", flush=True)
        time.sleep(float(os.environ["SLOW"]))
print(f"weight={model[0]:.9f} bias={model[1]:.9f}")
