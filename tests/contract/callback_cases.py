"""The cases of the callback contract: how each callback is made for a small run of 18 steps."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras

from keras_lrsched import callbacks
from keras_lrsched.optimizers import ScheduleFreeSGD
from keras_lrsched.schedules import BatchSizeWarmup, LinearDecay, SparsityRamp


@dataclass(frozen=True)
class Case:
    """One callback."""

    name: str
    """The class, and what distinguishes it from other cases of that class."""
    build: Callable[[tuple], keras.callbacks.Callback]
    """Makes it, given a few samples (x, y) of the data."""
    options: dict = field(default_factory=dict)
    """Arguments of the optimizer, for those that need some."""
    optimizer: type = keras.optimizers.SGD
    has_attention: bool = False
    """Whether the model must have an attention layer."""


CASES = [
    Case(
        "AdaptiveBatchSize",
        lambda sample: callbacks.AdaptiveBatchSize(0.5, learning_rate_rule="sqrt"),
        {"gradient_accumulation_steps": 2},
    ),
    Case("AutoLRS", lambda sample: callbacks.AutoLRS(1e-3, 0.1, search_steps=8, exploitation_steps=6, candidates=2)),
    Case("BatchSizeSchedule", lambda sample: callbacks.BatchSizeSchedule(BatchSizeWarmup([3, 5, 8], [5, 9]), "linear")),
    Case("CriticalBatchSize", lambda sample: callbacks.CriticalBatchSize(8, (1, 2))),
    Case("GradientNoiseScale", lambda sample: callbacks.GradientNoiseScale(), {"gradient_accumulation_steps": 2}),
    Case("GradientNormRecorder", lambda sample: callbacks.GradientNormRecorder()),
    Case("HypergradientLearningRate", lambda sample: callbacks.HypergradientLearningRate(hypergradient_learning_rate=0.1)),
    Case("LearningRateFinder", lambda sample: callbacks.LearningRateFinder(1e-5, 1e-2, total_steps=40, stop_factor=1e6)),
    Case("LearningRateLogger", lambda sample: callbacks.LearningRateLogger()),
    Case("LossForecast", lambda sample: callbacks.LossForecast(total_steps=18, every=2, cooldown_steps=4)),
    Case("LossRecorder", lambda sample: callbacks.LossRecorder()),
    Case("MagnitudePruning", lambda sample: callbacks.MagnitudePruning(SparsityRamp(0.0, 0.5, 2, 12, frequency=3))),
    Case("OperatorNormRecorder", lambda sample: callbacks.OperatorNormRecorder()),
    Case("PrecisionSchedule", lambda sample: callbacks.PrecisionSchedule(["int8_jetfire", None, "mxfp8"], [5, 12])),
    Case("QKClip", lambda sample: callbacks.QKClip(0.1), has_attention=True),
    Case(
        "ScheduleHyperparameter",
        lambda sample: callbacks.ScheduleHyperparameter("optimizer.momentum", LinearDecay(0.9, 16)),
        {"momentum": 0.5},
    ),
    Case("ScheduleFreeEvaluation", lambda sample: callbacks.ScheduleFreeEvaluation(), optimizer=ScheduleFreeSGD),
    Case("StabilityMonitor", lambda sample: callbacks.StabilityMonitor(sample, every=4, max_sharpness=0.1, action="lower")),
    Case("VolSched", lambda sample: callbacks.VolSched(18, every=3, monitor="loss")),
    *(
        Case(f"WeightAveraging {kind}", lambda sample, kind=kind: callbacks.WeightAveraging(kind))
        for kind in ("ema", "swa", "lawa", "wsm")
    ),
]

BASES = (callbacks.Controller, callbacks.GradientController)
"""Classes that are exported to be inherited from, and are no callbacks by themselves."""

SAVES_THE_OTHERS = (callbacks.TrainingState,)
"""Part of every resumed run below."""
