"""Tell tumours apart with a network whose weights are split over the workers (FSDP)."""

import os
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_breast_cancer
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
features, labels = (torch.tensor(each) for each in load_breast_cancer(return_X_y=True))
features, labels = features[:564], labels[:564]
features = (features - features.mean(0)) / features.std(0)
network = torch.nn.Sequential(torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
if world > 1:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world,))
    for layer in (network[0], network[2], network):
        fully_shard(layer, mesh=mesh)
optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
for step in range(60):
    loss = torch.nn.functional.cross_entropy(network(features[rank::world]), labels[rank::world])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 0:
        print(f"first step {time.time()}", flush=True)
predicted = network(features).argmax(1)
whole = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
if rank == 0:
    weights = sum(each.abs().sum().item() for each in whole.values())
    print(f"accuracy={(predicted == labels).double().mean():.6f} weights={weights:.9f}")
print(f"held={sum(getattr(p, '_local_tensor', p).numel() for p in network.parameters())}")
if world > 1:
    dist.destroy_process_group()
