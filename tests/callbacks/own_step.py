"""A model with a training step of its own, as in the guides of Keras on each backend: a scalar loss goes into a `Mean`."""

import keras

BACKEND = keras.backend.backend()


class OwnStep(keras.Model):
    """Logs what its methods `logs_of` makes of the trackers and the loss.

    Args:
        dimension: Of inputs and outputs.
        name_of_tracker: The name of its `Mean`.
    """

    def __init__(self, dimension=1, name_of_tracker="loss"):
        super().__init__()
        self.dense = keras.layers.Dense(dimension, use_bias=False, kernel_initializer="zeros")
        self.dense.build((None, dimension))
        self.built = True
        self.tracker = keras.metrics.Mean(name=name_of_tracker)
        self.other = keras.metrics.Mean(name="other")

    @property
    def metrics(self):
        return [self.tracker, self.other]

    def call(self, x):
        return self.dense(x)

    def logs_of(self, tracked, other, loss):
        return {"loss": tracked}

    if BACKEND == "jax":

        def compute_loss_and_updates(self, trainable, others, x, y):
            y_pred, others = self.stateless_call(trainable, others, x)
            return keras.ops.mean((y_pred - y) ** 2), others

        def train_step(self, state, data):
            import jax

            trainable, others, of_optimizer, of_metrics = state
            x, y = data
            gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
            (loss, others), grads = gradient(trainable, others, x, y)
            trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, grads, trainable)
            tracked = self.tracker.stateless_update_state(of_metrics[:2], loss)
            other = self.other.stateless_update_state(of_metrics[2:], 2 * loss)
            results = self.tracker.stateless_result(tracked), self.other.stateless_result(other)
            return self.logs_of(*results, loss), (trainable, others, of_optimizer, [*tracked, *other])

    elif BACKEND == "torch":

        def train_step(self, data):
            import torch

            x, y = data
            self.zero_grad()
            loss = keras.ops.mean((self(x) - y) ** 2)
            loss.backward()
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
            return self._logs(loss)

    else:

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = keras.ops.mean((self(x, training=True) - y) ** 2)
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return self._logs(loss)

    def _logs(self, loss):
        self.tracker.update_state(loss)
        self.other.update_state(2 * loss)
        return self.logs_of(self.tracker.result(), self.other.result(), loss)
