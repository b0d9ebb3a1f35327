"""Sequences: masks, states, ragged and padded batches, alignment."""

import keras
import numpy as np
from keras import layers

from tests.programs import data
from tests.programs.program import EVERY, Run, program


@program("arrays", "no_form", backends=EVERY, optimizer="adamw")
def masked_lstm(how):
    """An `Embedding` with `mask_zero` before an LSTM with dropout."""
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(12, 4, mask_zero=True),
            layers.LSTM(3, dropout=0.2),
            layers.Dense(1),
        ]
    )
    model.compile(how.optimizer(), keras.losses.BinaryCrossentropy(from_logits=True), **how.mode)
    x, y = data.tokens(padded=True)
    return Run(model, x, y=y[:, None].astype("float32"))


@program("arrays", "no_form")
def bidirectional(how):
    """A bidirectional GRU that labels each token."""
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(12, 3),
            layers.Bidirectional(layers.GRU(2, return_sequences=True)),
            layers.Dense(2, "softmax"),
        ]
    )
    model.compile(how.optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"], **how.mode)
    x, _ = data.tokens()
    return Run(model, x, y=x % 2)


@program("arrays", "stateful", "not_saved", "no_form")
def stateful_rnn(how):
    """A stateful GRU, whose state goes on from batch to batch."""
    model = keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), layers.GRU(3, stateful=True), layers.Dense(1)])
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers(samples=16)
    return Run(model, x.reshape(16, 3, 2), y=y)


@program("no_form", "lengths_differ")
def padded_batches(how):
    """Sequences of several lengths, which `tf.data` pads to the longest of each batch."""
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), layers.Embedding(12, 3, mask_zero=True), layers.LSTM(2), layers.Dense(1)]
    )
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.tokens(padded=True)
    ragged = tf.ragged.constant([row[row > 0].tolist() for row in x], dtype="int32")
    rows = tf.data.Dataset.from_tensor_slices((ragged, y[:, None].astype("float32"))).ragged_batch(4)
    return Run(model, rows.map(_padded))


def _padded(x, y):
    return x.to_tensor(), y


class Alignment(layers.Layer):
    """Adds the loss of connectionist temporal classification, and hands the predictions on."""

    def call(self, labels, predictions):
        batch = keras.ops.shape(labels)[0]
        lengths = keras.ops.full((batch,), labels.shape[1], "int32"), keras.ops.full((batch,), predictions.shape[1], "int32")
        self.add_loss(keras.ops.mean(keras.ops.ctc_loss(labels, predictions, *lengths)))
        return predictions


@program("arrays", "not_saved", "no_targets", "no_form")
def alignment_by_add_loss(how):
    """Characters of images by CTC: labels are an input, and the only loss is one that a layer adds."""
    inputs, labels = keras.Input((8, 4), name="image"), keras.Input((2,), name="label", dtype="int32")
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(inputs)
    model = keras.Model([inputs, labels], Alignment()(labels, layers.Dense(5)(hidden)))
    model.compile(how.optimizer(), **how.mode)
    x = data.images()[0][:, :, :4, 0]
    return Run(model, {"image": x, "label": np.random.default_rng(0).integers(1, 5, (len(x), 2))})


@program("arrays", "no_form")
def encoder_decoder(how):
    """An LSTM that begins with the state of another one; the targets are fed back, shifted by one."""
    source, target = keras.Input((None, 4), name="source"), keras.Input((None, 4), name="target")
    _, *state = layers.LSTM(3, return_state=True)(source)
    decoded = layers.LSTM(3, return_sequences=True)(target, initial_state=state)
    model = keras.Model([source, target], layers.Dense(4, "softmax")(decoded))
    model.compile(how.optimizer(), "categorical_crossentropy", metrics=["accuracy"], **how.mode)
    x = np.eye(4, dtype="float32")[data.tokens(5, 4)[0]]
    return Run(model, [x[:, :, ::-1].copy(), x], y=np.roll(x, -1, axis=1))
