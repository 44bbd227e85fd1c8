"""Fit the digits by gradient descent, each shard on its part of the images."""

import os
import time

import numpy
from caffe2.python import brew, data_parallel_model, optimizer, workspace
from caffe2.python.model_helper import ModelHelper

from nimbus_hub.distributed import checkpoint_path, is_first, output_path, rank, world_size

STEPS = 40
digits = numpy.load("digits.npz")
images, labels = digits["images"], digits["labels"]
mine = slice(rank(), None, world_size())


def read(model):
    pass


def predict(model, loss_scale):
    scores = brew.fc(model, "data", "scores", 64, 10, weight_init=("ConstantFill", {}))
    _, loss = model.SoftmaxWithLoss([scores, "labels"], ["softmax", "loss"])
    return [model.Scale(loss, "scaled_loss", scale=loss_scale)]


def descend(model):
    optimizer.build_sgd(model, base_learning_rate=0.5, policy="fixed")


workspace.FeedBlob("cpu_0/data", images[mine])
workspace.FeedBlob("cpu_0/labels", labels[mine])
model = ModelHelper("digits")
data_parallel_model.Parallelize_CPU(
    model,
    input_builder_fun=read,
    forward_pass_builder_fun=predict,
    optimizer_builder_fun=descend,
    devices=[0],
)
data_parallel_model.RunInitNet(model)
first, checkpoint = 0, checkpoint_path("model.npz")
names = ["cpu_0/scores_w", "cpu_0/scores_b"]
if checkpoint.exists():
    with numpy.load(str(checkpoint)) as saved:
        first = int(saved["step"])
        for name in names:
            workspace.FeedBlob(name, saved[name])
    data_parallel_model.FinalizeAfterCheckpoint(model, cpu_mode=True)
    print(f"resumed={first}", flush=True)

for step in range(first, STEPS):
    data_parallel_model.RunNet(model, 1)
    if step == first:
        print(f"first step {time.time()}", flush=True)
    if is_first():
        part = checkpoint.with_name("part.npz")
        found = {name: workspace.FetchBlob(name) for name in names}
        numpy.savez(str(part), step=step + 1, **found)
        part.replace(checkpoint)
    if "SLOW" in os.environ:
        print(f"round {step}", flush=True)
        time.sleep(float(os.environ["SLOW"]))

weights, bias = (workspace.FetchBlob(name) for name in names)
predicted = (images @ weights.T + bias).argmax(1)
print(f"accuracy={(predicted == labels).mean():.6f} sum={(predicted * images[:, 20]).sum():.4f}")
if is_first():
    numpy.savez(str(output_path("model.npz")), weights=weights, bias=bias)
