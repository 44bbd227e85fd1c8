"""Fit the digits with a small network, each worker on its part of every batch."""

import os
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel

from nimbus_hub.distributed import checkpoint_path, is_first, output_path, rank, world_size

EPOCHS, BATCH = 6, 180

if world_size() > 1:
    if os.environ.get("NEVER_JOINS") == str(rank()):
        time.sleep(600)
    dist.init_process_group("gloo")
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
images, labels = (torch.tensor(each) for each in load_digits(return_X_y=True))
images, labels = images[:1620] / 16, labels[:1620]
network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
checkpoint, done = checkpoint_path("model.pt"), 0
if checkpoint.exists():
    saved = torch.load(checkpoint)
    network.load_state_dict(saved["network"])
    done = saved["epochs"]
    print(f"resumed={done}", flush=True)
print(f"world={world_size()}", flush=True)
model = DistributedDataParallel(network) if world_size() > 1 else network
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

for epoch in range(done, EPOCHS):
    for first in range(0, len(labels), BATCH):
        mine = slice(first + rank(), first + BATCH, world_size())
        loss = torch.nn.functional.cross_entropy(model(images[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (epoch, first) == (done, 0):
            print(f"first step {time.time()}", flush=True)
    if is_first():
        part = checkpoint.with_suffix(".part")
        torch.save({"network": network.state_dict(), "epochs": epoch + 1}, part)
        part.replace(checkpoint)
    if "SLOW" in os.environ:
        print(f"round {epoch}", flush=True)
        time.sleep(float(os.environ["SLOW"]))

predicted = network(images).argmax(1)
weights = sum(each.abs().sum().item() for each in network.parameters())
print(f"accuracy={(predicted == labels).double().mean():.6f} weights={weights:.9f}")
if is_first():
    torch.save(network.state_dict(), output_path("model.pt"))
if world_size() > 1:
    dist.destroy_process_group()
