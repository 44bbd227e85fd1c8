"""Fit a line by gradient descent, the data split over the processes if there are many."""

import os
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

if "JAX_COORDINATOR_ADDRESS" in os.environ:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
        process_id=int(os.environ["JAX_PROCESS_ID"]),
    )
rank, world = jax.process_index(), jax.process_count()
x = jnp.linspace(-1, 1, 240)[rank::world]
y = 2 * x + 0.5
split = NamedSharding(jax.make_mesh((world,), ("data",)), PartitionSpec("data"))
x, y = (jax.make_array_from_process_local_data(split, part) for part in (x, y))


@jax.jit
def step(model, x, y):
    slopes = jax.grad(lambda m: jnp.mean((m[0] * x + m[1] - y) ** 2))(model)
    return [part - 0.3 * slope for part, slope in zip(model, slopes, strict=True)]


model = [0.0, 0.0]
for number in range(60):
    model = step(model, x, y)
    if number == 0:
        print(f"first step {time.time()}")
print(f"weight={float(model[0]):.6f} bias={float(model[1]):.6f}")
