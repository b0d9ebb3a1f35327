"""Runs of one program that several features are compared with, each made once."""

import functools

import keras
import numpy as np

from keras_lrsched import optimizers
from keras_lrsched.schedules import LinearDecay
from tests.programs.program import How, Program, Run
from tests.programs.truth import Truth

RATE = 0.05
BACKEND = keras.backend.backend()
COMPILED = {"jit_compile": BACKEND == "jax"}
EAGER = {"run_eagerly": True}


def schedule(factor=1.0):
    return LinearDecay(factor * RATE, decay_steps=14, alpha=0.1)


@keras.saving.register_keras_serializable("tests")
class OfSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of optimizer steps, for Keras' optimizers, which count the batches that they accumulate."""

    def __init__(self, schedule, batches):
        self.schedule, self.batches = schedule, batches

    def __call__(self, step):
        return self.schedule(step // self.batches)


KERAS = {
    "sgd": (keras.optimizers.SGD, {}),
    "adamw": (keras.optimizers.AdamW, {"weight_decay": 0.01, "epsilon": 1e-3}),
}
OURS = {"sgd": (optimizers.SGD, {"momentum": 0.0}), "adamw": (optimizers.AdamW, KERAS["adamw"][1])}


class Bench:
    """A program, and its runs."""

    def __init__(self, program: Program):
        self.program = program

    def run(self, cls, rate, mode=COMPILED, make=None, **options) -> Run:
        """A new run, with optimizers of class `cls`; `make` may be what calls it, or wraps what it gives."""

        def optimizer(**more):
            made = (make or (lambda cls, *args, **options: cls(*args, **options)))(cls, rate(), **options, **more)
            return made

        return self.program(How(optimizer, dict(mode)))

    def keras_run(self, rate=schedule, **options):
        """A new run with an optimizer of Keras."""
        cls, settings = KERAS[self.program.optimizer]
        return self.run(cls, rate, **settings, **options)

    def our_run(self, rate=schedule, **options):
        """A new run with the same optimizer of this package."""
        cls, settings = OURS[self.program.optimizer]
        return self.run(cls, rate, **settings, **options)

    def sgd_run(self, rate, **options):
        """A new run with plain gradient descent."""
        return self.run(keras.optimizers.SGD, rate, **options)

    @property
    def accumulated(self):
        """The number of batches of an optimizer step."""
        return 2 if self.program.has("accumulates") else 1

    def schedule_of_steps(self):
        """The schedule of a run by hand that is to be as one of this package, which counts optimizer steps."""
        return schedule() if self.accumulated == 1 else OfSteps(schedule(), self.accumulated)

    @functools.cached_property
    def baseline(self):
        """The run without this package, but for its schedule."""
        return self.keras_run().train()

    @functools.cached_property
    def constant(self):
        """The same with a constant learning rate."""
        return self.keras_run(constant).train()

    @functools.cached_property
    def truth(self):
        """The record of the baseline."""
        truth = Truth()
        with truth.watching():
            self.keras_run(mode=EAGER, make=truth.recorded).train([truth])
        return truth

    @property
    def rtol(self):
        return self.program.rtol


def constant():
    return RATE


def weights(run):
    """All weights of a run's models, of the last one first."""
    return [np.array(variable.numpy()) for model in reversed(run.models) for variable in model.variables]


def assert_equal(run, other):
    """Their weights are the same, bit for bit."""
    for i, (one, two) in enumerate(zip(weights(run), weights(other), strict=True)):
        np.testing.assert_array_equal(one, two, err_msg=f"variable {i} of {run.model.name}")


def assert_close(run, other, rtol):
    """Their weights are the same, but for roundings."""
    for i, (one, two) in enumerate(zip(weights(run), weights(other), strict=True)):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=0.1 * rtol, err_msg=f"variable {i} of {run.model.name}")


def state(run):
    """All variables that hang anywhere on the models of a run, but for metrics, by their path."""
    found: dict[str, np.ndarray] = {}
    seen: set[int] = set()
    for model in run.models:
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        _walk(model, model.name, found, seen)
    return found


def _walk(it, path, found, seen):
    if id(it) in seen or isinstance(it, keras.metrics.Metric):
        return
    seen.add(id(it))
    if isinstance(it, keras.Variable):
        found[path] = np.array(it.numpy())
    elif isinstance(it, dict):
        for key, value in list(it.items()):
            _walk(value, f"{path}.{key}", found, seen)
    elif isinstance(it, (list, tuple, set)):
        for i, value in enumerate(it):
            _walk(value, f"{path}.{i}", found, seen)
    elif isinstance(it, _HOLDERS):
        _walk(vars(it), path, found, seen)


_HOLDERS = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.losses.Loss,
    keras.random.SeedGenerator,
    keras.regularizers.Regularizer,
)
