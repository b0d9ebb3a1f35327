"""State and context of one variable in one update."""

from typing import Any

from keras import ops

from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide, wide_dtype


class OptimizerState:
    """State of an optimizer, as tensors by name. What is set is what is read from then on, and is stored after the step."""

    def __init__(self, variables: Any) -> None:
        vars(self).update(_variables=variables, _new={})

    def __getattr__(self, name: str) -> Tensor:
        self._check(name)
        return self._new[name] if name in self._new else wide(self._variables[name])

    def __setattr__(self, name: str, value: Tensor) -> None:
        self._check(name)
        self._new[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._variables

    def take(self) -> list[tuple[Variable, Tensor]]:
        """The variables that were set, each with its new value, which is forgotten here."""
        changes = [(self._variables[name], value) for name, value in self._new.items()]
        self._new.clear()
        return changes

    def _check(self, name: str) -> None:
        if name not in vars(self)["_variables"]:
            raise AttributeError(f"There is no state `{name}` among {', '.join(self._variables) or 'none'}.")


class UpdateContext:
    """One variable's part in one update; all numbers in float32, in float64 for a variable in float64.

    Attributes:
        variable: The variable itself, in its own dtype.
        index: Its place among the variables that the optimizer was built with.
        gradient: Its gradient, clipped and averaged over micro-batches.
        state: Its `OptimizerState`.
        scalars: The `OptimizerState` of the whole optimizer.
        learning_rate: The learning rate, times the multiplier of the variable.
        multiplier: That multiplier, a number.
        common_learning_rate: The learning rate without it.
        weight_decay: The weight decay; the number 0 for a variable that is excluded.
        is_decayed: Whether it has any, a bool.
        t: The number of this update, from 1, as a float.
        iterations: The number of updates before this one, as an integer.
        takes_part: Whether the variable is in this update, as a tensor, if that is decided only when it runs: under gradient
            accumulation, of a variable without a gradient in the last micro-batch. Otherwise `None`, for yes.
        shared: What `before_update` returned.
    """

    takes_part: Tensor | None = None
    shared: Any = None

    def __init__(
        self,
        variable: Any,
        index: Any,
        gradient: Any,
        state: Any,
        scalars: Any,
        learning_rate: Any,
        weight_decay: Any,
        multiplier: Any,
        iterations: Any,
    ) -> None:
        dtype = wide_dtype(gradient.dtype)
        self.variable = variable
        self.index = index
        self.gradient = gradient
        self.state = state
        self.scalars = scalars
        self.multiplier = multiplier
        self.common_learning_rate = ops.cast(learning_rate, dtype)
        self.learning_rate = self.common_learning_rate if multiplier == 1 else multiplier * self.common_learning_rate
        self.is_decayed = weight_decay is not None
        self.weight_decay = ops.cast(weight_decay, dtype) if self.is_decayed else 0.0
        self.iterations = iterations
        self.t = ops.cast(iterations, dtype) + 1

    @property
    def value(self) -> Tensor:
        """The variable's value: its float32 copy, unless the variable was set to something else since."""
        return exact_value(self.variable, self.state)

    def cast(self, number: Tensor) -> Tensor:
        """A number that all variables share, in the dtype in which this one is computed."""
        return ops.cast(number, self.t.dtype)


def exact_value(variable: Variable, state: OptimizerState) -> Tensor:
    """The float32 copy of a variable, unless the variable has none or was set to something else since."""
    value = wide(variable)
    if "master" not in state:
        return value
    return ops.where(ops.equal(wide(ops.cast(state.master, variable.dtype)), value), state.master, value)
