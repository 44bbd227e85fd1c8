"""Train a classifier on scikit-learn's handwritten digits, with one process or with many."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torch.utils.tensorboard import SummaryWriter

rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
torch.manual_seed(0)

images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, random_state=0, stratify=labels)
x_train, x_test = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
y_train, y_test = (torch.tensor(part) for part in split[2:])

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
if world > 1:  # the only lines that know of the other processes
    dist.init_process_group("gloo")
    model = DistributedDataParallel(model)
train = TensorDataset(x_train, y_train)
sampler = DistributedSampler(train, world, rank, seed=0)
loader = DataLoader(train, batch_size=64 // world, sampler=sampler, drop_last=True)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
log_dir = os.environ.get("NIMBUS_LOG_DIR", "logs")
writer = SummaryWriter(log_dir, flush_secs=1) if rank == 0 else None

for epoch in range(30):
    sampler.set_epoch(epoch)
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if writer:
        with torch.no_grad():
            accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
        writer.add_scalar("loss", loss.item(), epoch)
        writer.add_scalar("accuracy", accuracy, epoch)
        print(f"epoch {epoch + 1:2} of 30: loss {loss.item():.3f}, accuracy {accuracy:.3f}")

if writer:
    writer.close()
    print(f"accuracy={accuracy:.4f}")
if world > 1:
    dist.destroy_process_group()
