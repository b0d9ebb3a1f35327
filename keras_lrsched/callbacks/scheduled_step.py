"""A training step in which settings follow schedules: the counter that it has, and what stands in for a setting."""

import keras
from keras import ops

from keras_lrsched._core import step_hooks
from keras_lrsched.schedules.base import float_dtype


def callbacks_in(model):
    """The `ScheduleHyperparameter` callbacks that are at work in a model."""
    return [hook for hook in step_hooks.hooks(model) if hasattr(hook, "target")]


def is_in_state(model, optimizer):
    """Whether the training step gets the counter of an optimizer: on JAX, it gets all state as arguments."""
    state = [*model.optimizer.variables, *model.non_trainable_variables]
    return keras.backend.backend() != "jax" or any(each is optimizer._iterations for each in state)


def updates(model, optimizer, args):
    """The number of updates of an optimizer so far, as a tensor. JAX passes all state as the first argument of a step."""
    if keras.backend.backend() != "jax":
        return ops.convert_to_tensor(optimizer.iterations)
    _, others, optimizer_variables, _ = args[0]
    values = [
        *zip(model.optimizer.variables, optimizer_variables, strict=True),
        *zip(model.non_trainable_variables, others, strict=True),
    ]
    with keras.StatelessScope(state_mapping=values):
        return ops.convert_to_tensor(optimizer.iterations)


class StandIn(keras.Variable):
    """A scalar variable for all that Keras and its backends do with one, whose value is any tensor it is given.

    A comparison with a Python number is decided when the step is traced, once for all steps: it says what 0.5 would.
    """

    _tensor = None
    _was_read = False

    @property
    def is_idle(self):
        """Whether nothing has read what it was given in any step."""
        return self._tensor is not None and not self._was_read

    def __init__(self):
        super().__init__(0.5, dtype=float_dtype(), trainable=False, name="scheduled")

    def hold(self, tensor):
        self._tensor = tensor

    @property
    def value(self):
        if self._tensor is None:
            return super().value
        self._was_read = True
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
