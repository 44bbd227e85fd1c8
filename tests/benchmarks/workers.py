"""The script of the job benchmarks: says when it runs, and when its process group stands."""

print("the first line", flush=True)  # noqa: T201

import torch  # noqa: E402 - the first line comes before everything
import torch.distributed as dist  # noqa: E402

dist.init_process_group("gloo")
ones = torch.ones(1)
dist.all_reduce(ones)
print(f"a group of {int(ones)} stands", flush=True)  # noqa: T201
dist.destroy_process_group()
