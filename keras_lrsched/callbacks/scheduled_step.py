"""A training step in which settings follow schedules: how it is put into a model, and what stands in for a setting."""

import contextlib
import functools

import keras
from keras import ops

from keras_lrsched.schedules.base import float_dtype


def callbacks_in(model):
    """The `ScheduleHyperparameter` callbacks that are at work in a model."""
    return getattr(vars(model).get("train_step"), "callbacks", [])


def add(model, callback):
    """Lets `callback.in_step(step)` surround every training step of the model, traced or run."""
    if not callbacks_in(model):
        vars(model)["train_step"] = _wrapped(model, vars(model).get("train_step"))
        model.make_train_function(force=True)
    callbacks_in(model).append(callback)


def remove(model, callback):
    """Undoes `add`; the compiled step of a model without callbacks is dropped."""
    if callback not in callbacks_in(model):
        return
    callbacks_in(model).remove(callback)
    if not callbacks_in(model):
        previous = vars(model).pop("train_step").previous
        if previous is not None:
            vars(model)["train_step"] = previous
        model.train_function = None


def _wrapped(model, previous):
    original = model.train_step

    @functools.wraps(original)
    def train_step(*args, **kwargs):
        with contextlib.ExitStack() as stack:
            step = _updates(model, args)
            for callback in callbacks:
                stack.enter_context(callback.in_step(step))
            return original(*args, **kwargs)

    callbacks: list = []
    vars(train_step).update(callbacks=callbacks, previous=previous)
    return train_step


def _updates(model, args):
    """The number of updates so far, as a tensor. JAX passes all state as the first argument of a step."""
    if keras.backend.backend() != "jax":
        return ops.convert_to_tensor(model.optimizer.iterations)
    _, _, optimizer_variables, _ = args[0]
    with keras.StatelessScope(state_mapping=list(zip(model.optimizer.variables, optimizer_variables, strict=True))):
        return ops.convert_to_tensor(model.optimizer.iterations)


class StandIn(keras.Variable):
    """A scalar variable for all that Keras and its backends do with one, whose value is any tensor it is given.

    A comparison with a Python number is decided when the step is traced, once for all steps: it says what 0.5 would.
    """

    _tensor = None
    is_idle = False
    """Whether it was given a tensor that nothing has read."""

    def __init__(self):
        super().__init__(0.5, dtype=float_dtype(), trainable=False, name="scheduled")

    def hold(self, tensor):
        self._tensor, self.is_idle = tensor, True

    @property
    def value(self):
        if self._tensor is None:
            return super().value
        self.is_idle = False
        return self._maybe_autocast(self._tensor)

    def get_shape(self):  # what TensorFlow asks of a tensor
        return self.value.shape

    def __bool__(self):
        return True

    def __eq__(self, other):
        return self._compared("__eq__", other)

    def __ne__(self, other):
        return self._compared("__ne__", other)

    def __lt__(self, other):
        return self._compared("__lt__", other)

    def __le__(self, other):
        return self._compared("__le__", other)

    def __gt__(self, other):
        return self._compared("__gt__", other)

    def __ge__(self, other):
        return self._compared("__ge__", other)

    __hash__ = object.__hash__

    def _compared(self, comparison, other):
        if isinstance(other, (int, float)):
            return getattr(0.5, comparison)(float(other))
        return getattr(super(), comparison)(other)
