"""Train one model after the other, and evaluate each with a model that only predicts."""

import numpy
from caffe2.python import brew, data_parallel_model, optimizer, workspace
from caffe2.python.model_helper import ModelHelper

from nimbus_hub.distributed import rank, world_size

digits = numpy.load("digits.npz")
mine = slice(rank(), None, world_size())


def predict(model, loss_scale):
    fill = ("ConstantFill", {})
    scores = brew.fc(model, "data", "scores", 64, 10, weight_init=fill, bias_init=fill)
    softmax, loss = model.SoftmaxWithLoss([scores, "labels"], ["softmax", "loss"])
    model.Accuracy([softmax, "labels"], "accuracy")
    return [model.Scale(loss, "scaled_loss", scale=loss_scale)]


def build(name, **how):
    model = ModelHelper(name, init_params="optimizer_builder_fun" in how)
    data_parallel_model.Parallelize_CPU(model, lambda model: None, predict, devices=[0], **how)
    return model


def feed(part):
    workspace.FeedBlob("cpu_0/data", digits["images"][part])
    workspace.FeedBlob("cpu_0/labels", digits["labels"][part])


for rate in (0.1, 0.5):
    workspace.ResetWorkspace()
    feed(mine)
    trained = build(
        "train",
        optimizer_builder_fun=lambda model, rate=rate: optimizer.build_sgd(
            model, base_learning_rate=rate, policy="fixed"
        ),
    )
    data_parallel_model.RunInitNet(trained)
    data_parallel_model.RunNet(trained, 20)
    feed(slice(None))
    if rank() == 0:
        # Alone: what only predicts waits for nobody.
        evaluated = build("test")
        workspace.RunNetOnce(evaluated.param_init_net)
        workspace.CreateNet(evaluated.net)
        workspace.RunNet(evaluated.net)
        print(f"rate={rate} loss={workspace.FetchBlob('cpu_0/loss'):.5f}", flush=True)
