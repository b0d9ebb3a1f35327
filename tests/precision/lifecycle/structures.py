"""Five structures of public programs at tiny size: each makes a model, what trains it first, and its data, from a seed."""

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable("tests")
class TransformerBlock(layers.Layer):
    """As in Keras' examples: makes its sublayers itself, two of them in a Sequential."""

    def __init__(self, size, heads, **options):
        super().__init__(**options)
        self.size, self.heads = size, heads
        self.attention = layers.MultiHeadAttention(heads, size // heads)
        self.network = keras.Sequential([layers.Dense(2 * size, "relu"), layers.Dense(size)])
        self.norms = [layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]

    def call(self, inputs):
        x = self.norms[0](inputs + self.attention(inputs, inputs))
        return self.norms[1](x + self.network(x))

    def get_config(self):
        return {**super().get_config(), "size": self.size, "heads": self.heads}


def transformer(random):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 32)(inputs)
    x = TransformerBlock(32, 2)(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, outputs), random.integers(0, 20, (16, 6)), random.normal(size=(16, 3))


def unet(random):
    inputs = keras.Input((8, 8, 3))
    first = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(first)
    x = layers.UpSampling2D()(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.concatenate([x, first]))
    outputs = layers.Conv2D(1, 1)(x)
    return keras.Model(inputs, outputs), random.normal(size=(16, 8, 8, 3)), random.normal(size=(16, 8, 8, 1))


def mobile_net(random):
    inputs = keras.Input((8, 8, 8))
    x = inputs
    for _ in range(2):
        x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(32, 1, use_bias=False)(x)))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs), random.normal(size=(16, 8, 8, 8)), random.normal(size=(16, 3))


def recommender(random):
    users, items = keras.Input((), dtype="int32", name="users"), keras.Input((), dtype="int32", name="items")
    parts = [layers.Dense(32, "relu")(layers.Embedding(10, 32)(each)) for each in (users, items)]
    outputs = layers.Dense(1)(layers.Dense(32, "relu")(layers.concatenate(parts)))
    x = {"users": random.integers(0, 10, 16), "items": random.integers(0, 10, 16)}
    return keras.Model({"users": users, "items": items}, outputs), x, random.normal(size=(16, 1))


class Adversaries(keras.Model):
    """Trains a generator and a discriminator by a step of its own, which passes no `training` on."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def compile(self, **options):
        super().compile(loss=keras.losses.BinaryCrossentropy(from_logits=True), **options)
        self.g_optimizer = keras.optimizers.SGD(0.01)

    def train_step(self, data):
        import tensorflow as tf

        noise, real = data
        ones, zeros = ops.ones((ops.shape(real)[0], 1)), ops.zeros((ops.shape(real)[0], 1))
        with tf.GradientTape() as tape:
            loss = self.loss(ones, self.discriminator(real)) + self.loss(zeros, self.discriminator(self.generator(noise)))
        weights = self.discriminator.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            loss = self.loss(ones, self.discriminator(self.generator(noise)))
        weights = self.generator.trainable_variables
        self.g_optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def gan(random):
    """The generator is what is saved; it was trained against a discriminator that is converted, too."""
    generator = keras.Sequential([keras.Input((8,)), layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(4)])
    return generator, random.normal(size=(16, 8)), random.normal(size=(16, 4))


STRUCTURES = {function.__name__: function for function in (transformer, unet, mobile_net, recommender, gan)}


def made(name):
    """The model and its data, with the names and random numbers that a new process has."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    model, x, y = STRUCTURES[name](np.random.default_rng(0))
    x = keras.tree.map_structure(lambda each: each.astype("int32" if each.dtype.kind == "i" else "float32"), x)
    return model, x, y.astype("float32")


def train_first(name, model, x, y, convert):
    """Trains a converted model for a while; `convert` converts what belongs to it."""
    if name == "gan":
        discriminator = keras.Sequential([keras.Input((4,)), layers.Dense(32, "relu"), layers.Dense(32), layers.Dense(1)])
        convert(discriminator)
        both = Adversaries(model, discriminator)
        both.compile(optimizer=keras.optimizers.SGD(0.01))
        both.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    train(model, x, y)


def train(model, x, y):
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
