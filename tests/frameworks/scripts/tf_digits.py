"""Fit the digits in a loop of its own, each worker on its part of every batch."""

import os
import time

import tensorflow as tf
from sklearn.datasets import load_digits

from nimbus_hub.distributed import checkpoint_path, is_first, output_path, rank, world_size

EPOCHS, BATCH = 6, 180

if os.environ.get("NEVER_JOINS") == str(rank()):
    time.sleep(600)
timeout = int(os.environ.get("TIMEOUT", "0"))
options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout or None)
strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
images, labels = load_digits(return_X_y=True)
images, labels = images[:1620] / 16, labels[:1620]


def weights(number: int, *shape: int) -> tf.Variable:
    start = tf.random.stateless_normal(shape, (0, number), stddev=0.2, dtype=tf.float64)
    return tf.Variable(start, aggregation=tf.VariableAggregation.SUM)


with strategy.scope():
    network = tf.Module()
    network.layers = [weights(1, 64, 32), weights(2, 32), weights(3, 32, 10), weights(4, 10)]
    network.epochs = tf.Variable(0, dtype=tf.int64, trainable=False)


def outputs(x: tf.Tensor) -> tf.Tensor:
    w1, b1, w2, b2 = network.layers
    return tf.nn.relu(x @ w1 + b1) @ w2 + b2


@tf.function
def step(x: tf.Tensor, y: tf.Tensor) -> None:
    def update(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs(x))
            loss = tf.reduce_sum(losses) / BATCH
        for each, gradient in zip(network.layers, tape.gradient(loss, network.layers), strict=True):
            # The variables' aggregation sums over all workers.
            each.assign_sub(0.5 * gradient)

    strategy.run(update, (x, y))


saved = tf.train.Checkpoint(network=network)
# All take part in the writing; that of the others goes where nobody reads.
own = checkpoint_path("model" if is_first() else f"not-{rank()}")
manager = tf.train.CheckpointManager(saved, str(own), max_to_keep=1)
latest = tf.train.latest_checkpoint(str(checkpoint_path("model")))
if latest:
    saved.restore(latest)
    print(f"resumed={network.epochs.numpy()}", flush=True)
print(f"world={strategy.num_replicas_in_sync}", flush=True)

begun = network.epochs.numpy()
for epoch in range(begun, EPOCHS):
    for first in range(0, len(labels), BATCH):
        mine = slice(first + rank(), first + BATCH, world_size())
        step(tf.constant(images[mine]), tf.constant(labels[mine]))
        if (epoch, first) == (begun, 0):
            print(f"first step {time.time()}", flush=True)
    network.epochs.assign(epoch + 1)
    manager.save()
    if "SLOW" in os.environ:
        print(f"round {epoch}", flush=True)
        time.sleep(float(os.environ["SLOW"]))

right = tf.reduce_mean(tf.cast(tf.argmax(outputs(images), 1) == labels, tf.float64))
total = sum(float(tf.reduce_sum(tf.abs(each))) for each in network.layers)
print(f"accuracy={right:.6f} weights={total:.9f}")
if is_first():
    tf.train.Checkpoint(network=network).write(str(output_path("model")))
