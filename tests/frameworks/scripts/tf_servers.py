"""Fit the digits by a chief, which has workers compute and parameter servers keep the weights."""

import os
import time

import tensorflow as tf
from sklearn.datasets import load_digits

from nimbus_hub.distributed import checkpoint_path, output_path

EPOCHS, BATCH, ROWS = 6, 45, 1620

if "TF_CONFIG" in os.environ:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
else:
    strategy, coordinator = tf.distribute.get_strategy(), None
images, labels = load_digits(return_X_y=True)
images, labels = images[:ROWS] / 16, labels[:ROWS]


def weights(number: int, *shape: int) -> tf.Variable:
    start = tf.random.stateless_normal(shape, (0, number), stddev=0.2, dtype=tf.float64)
    return tf.Variable(start)


with strategy.scope():
    network = tf.Module()
    network.layers = [weights(1, 64, 32), weights(2, 32), weights(3, 32, 10), weights(4, 10)]
    network.epochs = tf.Variable(0, dtype=tf.int64, trainable=False)


def outputs(x: tf.Tensor) -> tf.Tensor:
    w1, b1, w2, b2 = network.layers
    return tf.nn.relu(x @ w1 + b1) @ w2 + b2


def digits() -> tf.data.Dataset:
    """Return all batches, again and again, in an order of each worker's own."""
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.shuffle(ROWS).repeat().batch(BATCH)


@tf.function
def step(batches: tf.data.Iterator) -> None:
    x, y = next(batches)
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs(x))
        loss = tf.reduce_mean(losses)
    for each, gradient in zip(network.layers, tape.gradient(loss, network.layers), strict=True):
        each.assign_sub(0.2 * gradient)


saved = tf.train.Checkpoint(network=network)
manager = tf.train.CheckpointManager(saved, str(checkpoint_path("model")), max_to_keep=1)
if manager.restore_or_initialize():
    print(f"resumed={int(network.epochs)}", flush=True)

batches = iter(coordinator.create_per_worker_dataset(digits) if coordinator else digits())
begun = int(network.epochs)
for epoch in range(begun, EPOCHS):
    for number in range(ROWS // BATCH):
        if coordinator:
            coordinator.schedule(step, (batches,))
        else:
            step(batches)
        if (epoch, number) == (begun, 0):
            if coordinator:
                coordinator.join()
            print(f"first step {time.time()}", flush=True)
    if coordinator:
        coordinator.join()
    network.epochs.assign(epoch + 1)
    manager.save()
    if "SLOW" in os.environ:
        print(f"round {epoch}", flush=True)
        time.sleep(float(os.environ["SLOW"]))

right = tf.reduce_mean(tf.cast(tf.argmax(outputs(images), 1) == labels, tf.float64))
print(f"accuracy={right:.6f} epochs={int(network.epochs)}")
tf.train.Checkpoint(network=network).write(str(output_path("model")))
