"""Denoising diffusion (Ho et al. 2020) on the digits of scikit-learn: the noise of an image is predicted."""

import keras
import numpy as np
from keras import layers

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.base import ShuffledEpochs, Workload
from keras_lrsched.study.workloads.digits import digits


@register(
    "diffusion",
    title="handwritten digits, denoising diffusion",
    kind="generative model",
    paper="arXiv:2006.11239",
    deviations="times in [0, 1], the cosine schedule of arXiv:2102.09672 without its offset; a net of dense layers",
)
class DigitDiffusion(Workload):
    """Digits x of 8 x 8 pixels in [-1, 1] under noise: x_t = cos(pi t / 2) x + sin(pi t / 2) noise, t uniform in [0, 1].

    The model takes x_t (`image`) and t (`time`) and returns the noise; the loss is the mean squared error. Times and noise
    are drawn for each batch anew, as a function of the seed and the number of the batch, and are fixed for validation: 360
    digits at four times each. Adam.

    Target: a validation loss of 0.25.
    """

    batch_size = 64
    width, blocks = 128, 3
    peak_learning_rate = 0.006
    budgets = (200, 600)
    metric = "val_loss"
    target = 0.25
    larger_is_better = False

    def __init__(self, data_dir=None):
        (images, labels), (held_out, _) = digits(self.name)
        self._train = ShuffledEpochs(2 * images - 1, labels, self.batch_size)
        self.validation = noised(np.repeat(2 * held_out - 1, 4, axis=0), np.random.default_rng(0))

    def train_batch(self, step, seed):
        return noised(self._train.batch(step, seed)[0], np.random.default_rng([seed, step]))

    def build_model(self):
        image, time = keras.Input((8, 8, 1), name="image"), keras.Input((1,), name="time")
        known = layers.Concatenate()([layers.Flatten()(image), layers.Dense(32, activation="silu")(time)])
        x = layers.Dense(self.width)(known)
        for _ in range(self.blocks):
            h = layers.Dense(self.width, activation="silu")(layers.LayerNormalization()(x))
            x += layers.Dense(self.width)(layers.Concatenate()([h, known]))
        noise = layers.Dense(64, kernel_initializer="zeros")(layers.LayerNormalization()(x))
        return keras.Model({"image": image, "time": time}, layers.Reshape((8, 8, 1))(noise))

    def loss(self):
        return keras.losses.MeanSquaredError()

    def metrics(self):
        return []

    def optimizer(self, learning_rate):
        return keras.optimizers.Adam(learning_rate)


def noised(images, random):
    """Inputs and labels: images under noise with their times, and the noise; drawn from a `numpy.random.Generator`."""
    time = random.random((len(images), 1), dtype="float32")
    noise = random.standard_normal(images.shape, dtype="float32")
    angle = np.float32(np.pi / 2) * time[:, :, None, None]
    return {"image": np.cos(angle) * images + np.sin(angle) * noise, "time": time}, noise
