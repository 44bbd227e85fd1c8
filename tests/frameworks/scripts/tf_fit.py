"""Fit the digits with Keras, alone, in many workers, or by a chief over parameter servers.

An evaluator looks at each epoch's model beside them.
"""

import json
import os
import tempfile
import time

import tensorflow as tf
from sklearn.datasets import load_digits

from nimbus_hub.distributed import checkpoint_path, is_first, log_dir, output_path, role

EPOCHS, BATCH, ROWS = 6, 60, 1620

cluster = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
has_servers, is_evaluator = "ps" in cluster, role() == "evaluator"
if is_evaluator:
    strategy = tf.distribute.get_strategy()
elif has_servers:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    strategy = tf.distribute.ParameterServerStrategy(resolver)
else:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
tf.keras.backend.set_floatx("float64")
tf.keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images, labels = images[:ROWS] / 16, labels[:ROWS]


def digits(context=None):
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if has_servers:
        dataset = dataset.shuffle(ROWS).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.batch(BATCH).with_options(options)


class Rounds(tf.keras.callbacks.Callback):
    """Says how far it is, and goes slowly if asked to."""

    is_first = True

    def on_epoch_begin(self, epoch, logs=None):
        if self.is_first and epoch:
            print(f"resumed={epoch}", flush=True)
        self.is_first = False

    def on_epoch_end(self, epoch, logs=None):
        print(f"round {epoch}", flush=True)
        time.sleep(float(os.environ.get("SLOW", "0")))
        while "UNTIL" in os.environ and not checkpoint_path(os.environ["UNTIL"]).exists():
            time.sleep(0.1)


class Evaluated(tf.keras.callbacks.Callback):
    """Leaves a sign that a checkpoint was looked at."""

    def on_test_end(self, logs=None):
        checkpoint_path("evaluated").touch()


class FirstStep(tf.keras.callbacks.Callback):
    """Says when the first step is done."""

    is_done = False

    def on_train_batch_end(self, batch, logs=None):
        if not self.is_done:
            print(f"first step {time.time()}", flush=True)
        self.is_done = True


with strategy.scope():
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(32, activation="relu", input_shape=(64,)),
            tf.keras.layers.Dense(10),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.2), loss, ["accuracy"])

if is_evaluator:
    epochs = str(checkpoint_path("epochs"))
    tf.keras.utils.SidecarEvaluator(model, digits(), epochs, callbacks=[Evaluated()]).start()
    raise SystemExit("nobody ended the evaluator")

callbacks = [
    tf.keras.callbacks.BackupAndRestore(str(checkpoint_path("backup"))),
    tf.keras.callbacks.ModelCheckpoint(
        str(checkpoint_path("epochs") / "{epoch}"), save_weights_only=True
    ),
    Rounds(),
]
if is_first():
    callbacks.append(tf.keras.callbacks.TensorBoard(str(log_dir())))
if has_servers:
    # Of single steps a chief knows nothing.
    data, steps = tf.keras.utils.experimental.DatasetCreator(digits), ROWS // BATCH
else:
    callbacks.append(FirstStep())
    data, steps = digits(), None
history = model.fit(data, epochs=EPOCHS, steps_per_epoch=steps, callbacks=callbacks, verbose=0)
total = sum(float(abs(each).sum()) for each in model.get_weights())
print(f"epochs={len(history.epoch)} accuracy={history.history['accuracy'][-1]:.6f}")
print(f"loss={history.history['loss'][-1]:.9f} weights={total:.9f}")
# All workers take part in the writing; what the others write is not needed.
name = str(output_path("model.keras"))
model.save(name if is_first() else f"{tempfile.mkdtemp()}/model.keras")
