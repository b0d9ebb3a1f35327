"""A small run that may be killed at any step. A controller joins by a line in `CONTROLLERS`."""

import keras
import numpy as np

from keras_lrsched.callbacks import (
    AdaptiveBatchSize,
    AutoLRS,
    BatchSizeSchedule,
    Controller,
    CriticalBatchSize,
    GradientNoiseScale,
    GradientNormRecorder,
    HypergradientLearningRate,
    LearningRateFinder,
    LossRecorder,
    MagnitudePruning,
    ScheduleHyperparameter,
    StabilityMonitor,
    TrainingState,
    VolSched,
    WeightAveraging,
)
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import BatchSizeWarmup, LinearDecay, SparsityRamp

EPOCHS, SAMPLES, BATCH = 4, 60, 8
STEPS = EPOCHS * -(-SAMPLES // BATCH)
"""Of a run of so many epochs whose batch size does not change."""


class HalvesOnRise(Controller):
    """Halves the learning rate whenever the loss of a batch rises."""

    saved = ("last",)

    def __init__(self):
        super().__init__()
        self.last = float("inf")

    def after_update(self):
        if self.loss > self.last:
            self.learning_rate = max(1e-4, 0.5 * self.learning_rate)
        self.last = self.loss


class GrowsBatch(Controller):
    """Asks for a larger batch in the middle of an epoch."""

    sets_learning_rate = False

    def __init__(self, batches):
        super().__init__(monitor=())
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.batches.limit_prefetch()

    def on_train_batch_end(self, batch, logs=None):
        self.batches.trained(batch + 1)
        super().on_train_batch_end(batch, logs)
        if self.step % 3 == 0:
            self.batches.set_batch_size(4 + self.step % 9)


PROBE = (np.random.default_rng(3).normal(size=(16, 5)), np.arange(16) % 3)

# name -> what makes the callbacks; it gets the data, for those that change their batch size
CONTROLLERS = {
    "plain": lambda batches: [],
    "halves on rise": lambda batches: [HalvesOnRise()],
    "grows batch": lambda batches: [GrowsBatch(batches)],
    "recorder": lambda batches: [LossRecorder()],
    "scheduled weight decay": lambda batches: [ScheduleHyperparameter("optimizer.weight_decay", LinearDecay(0.1, 30))],
    "autolrs": lambda batches: [AutoLRS(1e-3, 0.1, search_steps=8, exploitation_steps=6, candidates=3)],
    "volsched": lambda batches: [VolSched(STEPS, every=4, warmup_steps=5)],
    "learning rate finder": lambda batches: [LearningRateFinder(1e-5, 1e-2, total_steps=2 * STEPS)],
    "hypergradient": lambda batches: [HypergradientLearningRate(hypergradient_learning_rate=0.1)],
    "gradient norms": lambda batches: [GradientNormRecorder()],
    "noise scale": lambda batches: [GradientNoiseScale()],
    "adaptive batch size": lambda batches: [AdaptiveBatchSize(0.5, learning_rate_rule="sqrt")],
    "batch size schedule": lambda batches: [BatchSizeSchedule(BatchSizeWarmup([5, 9, 12], [9, 17]), "linear")],
    "critical batch size": lambda batches: [CriticalBatchSize(16, (1, 2))],
    "pruning": lambda batches: [MagnitudePruning(SparsityRamp(0.0, 0.7, 3, 25, frequency=4))],
    "moving average": lambda batches: [WeightAveraging("ema", every=2)],
    "merge": lambda batches: [WeightAveraging("wsm", every=3, batch_norm_data=[PROBE[0]])],
    "stability": lambda batches: [
        StabilityMonitor(PROBE, every=3, max_logit=0.5, action="lower", factor=0.9, rollback=True)
    ],
    "keras": lambda batches: [
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.2),
        keras.callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True),
    ],
}

ACCUMULATE = {"noise scale": 2, "adaptive batch size": 2}
"""Gradients to accumulate, for those that need some."""


def train(name, folder, epochs, every, steps):
    """Train, send `steps` of each step to the connection, and leave all variables and the history in the folder.

    With `every` = 0 nothing is saved on the way.
    """
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(SAMPLES, 5)), random.integers(0, 3, SAMPLES)
    model = keras.Sequential(
        [
            keras.layers.Input((5,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"use_ema": True, "gradient_accumulation_steps": ACCUMULATE.get(name)}
    model.compile(keras.optimizers.AdamW(0.02, weight_decay=0.01, **options), loss, metrics=["accuracy"])
    batches = ScheduledBatches(x, y, batch_size=BATCH, seed=2)
    callbacks = CONTROLLERS[name](batches)
    if every:
        callbacks.append(TrainingState(folder / "run.state", every))
    progress = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.send(batch))
    history = model.fit(batches, epochs=epochs, verbose=0, callbacks=[progress, *callbacks])
    columns = {name: np.array(values) for name, values in history.history.items()}
    np.savez(folder / "result.npz", *[np.array(variable.numpy()) for variable in model.variables], **columns)
