"""CLR, cyclical learning rates (Smith 2017), under the names and arguments of TensorFlow Addons."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least, to_float
from keras_lrsched.schedules.schedule import Schedule


def _power(base: float, count: Any, xp: Any) -> Any:
    return xp.exp(math.log(base) * to_float(count, xp))


SCALES = {
    "triangular": lambda count, gamma, xp: 1.0,
    "triangular2": lambda count, gamma, xp: _power(0.5, count - 1, xp),
    "exp_range": lambda count, gamma, xp: _power(gamma, count, xp),
}
"""Factor of the height of a cycle; `count` is the number of the cycle, from 1, or of the iteration, from 0."""


@register(
    title="cyclical, any scale (CLR)",
    paper="arXiv:1506.01186",
    code=("bckenstler/CLR", "tensorflow/addons"),
    checked="vectors",
    against="the community's Keras callback, which was run; the arguments of TensorFlow Addons, which were read",
    deviations="`step_size` must be whole, and the maximum no less than the minimum; the paper was not read",
    kind="learning rate",
)
class CyclicalLearningRate(Schedule):
    """Up and down between two values along straight lines, forever, in cycles of two times s = `step_size`:

        value(t) = initial + (maximal - initial) * min(t mod 2 s, 2 s - t mod 2 s) / s * scale

    The `scale` shrinks the cycles. With c = 1 + floor(t / 2 s), the number of the cycle, if `scale_mode` is `"cycle"`, and
    c = t if it is `"iterations"`: 1 for `"triangular"`, 2^(1 - c) for `"triangular2"`, gamma^c for `"exp_range"`, f(c) for a
    function. Cycles are counted in whole numbers. In TensorFlow Addons they are floats, which merge above 2^24 iterations,
    and a step of type int64 fails in versions up to 0.19 at least (its issues 2593 and 2799).

    The arguments are those of TensorFlow Addons, and `gamma`; but `step_size` must be whole, and the maximum no less than
    the minimum. Smith advises a `step_size` of 2 to 8 epochs, and to stop at the end of a cycle.

    Args:
        initial_learning_rate: The lowest value, at the start of each cycle; non-negative.
        maximal_learning_rate: The highest value, after s updates; positive and at least `initial_learning_rate`.
        step_size: s, half a cycle in updates, a positive integer.
        scale_fn: `"triangular"`, `"triangular2"`, `"exp_range"`, or a function of c, which gets a float array or tensor. To
            save the schedule, the function must be registered by `keras.saving.register_keras_serializable`; its
            registered name is accepted too.
        scale_mode: `"cycle"` or `"iterations"`: what `scale_fn` is a function of. Defaults to `"cycle"`.
        name: A label. Defaults to `"CyclicalLearningRate"`.
        gamma: The base of `"exp_range"`, above 0 and at most 1. Defaults to `1.0`. The paper has 0.99994, with
            `scale_mode="iterations"`.

    Raises:
        ValueError: If an argument is out of its range; by `get_config`, if `scale_fn` is a function that is not registered.

    Reference: arXiv:1506.01186; the community's Keras callback, bckenstler/CLR.

    Example:

    >>> CyclicalLearningRate(1.0, 3.0, step_size=2, scale_fn="triangular2").values(9)
    array([1. , 2. , 3. , 2. , 1. , 1.5, 2. , 1.5, 1. ])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        scale_fn: str | Callable,
        scale_mode: str = "cycle",
        name: str = "CyclicalLearningRate",
        gamma: float = 1.0,
    ) -> None:
        self.initial_learning_rate = validation.non_negative_float("initial_learning_rate", initial_learning_rate)
        self.maximal_learning_rate = validation.positive_float("maximal_learning_rate", maximal_learning_rate)
        if self.maximal_learning_rate < self.initial_learning_rate:
            raise ValueError(
                "`maximal_learning_rate` must be at least `initial_learning_rate`. Received: "
                f"maximal_learning_rate={maximal_learning_rate}, initial_learning_rate={initial_learning_rate}"
            )
        self.step_size = validation.positive_int("step_size", step_size)
        self.scale_fn = _checked_scale(scale_fn)
        self.scale_mode = validation.one_of("scale_mode", scale_mode, ("cycle", "iterations"))
        self.name = name
        self.gamma = validation.positive_fraction("gamma", gamma)
        if self.gamma != 1 and self.scale_fn != "exp_range":
            raise ValueError(
                f"`gamma` belongs to scale_fn='exp_range' alone. Received: gamma={gamma}, scale_fn={scale_fn!r}"
            )

    def compute(self, step: Any, xp: Any) -> Any:
        step = at_least(step, 0, xp)  # before, scales without a bound
        cycle = 2 * self.step_size
        place = step % cycle
        height = to_float(xp.minimum(place, cycle - place), xp) / self.step_size
        scale = self._scale(1 + step // cycle if self.scale_mode == "cycle" else step, xp)
        return self.initial_learning_rate + (self.maximal_learning_rate - self.initial_learning_rate) * height * scale

    def _scale(self, count: Any, xp: Any) -> Any:
        if not callable(self.scale_fn):
            return SCALES[self.scale_fn](count, self.gamma, xp)
        scale = self.scale_fn(to_float(count, xp))
        return to_float(ops.convert_to_numpy(scale) if xp is np and ops.is_tensor(scale) else scale, xp)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if callable(config.get("scale_fn")):
            name = keras.saving.get_registered_name(self.scale_fn)
            if keras.saving.get_registered_object(name) is not self.scale_fn:
                raise ValueError(
                    "A function as `scale_fn` can be saved only after `keras.saving.register_keras_serializable`, or "
                    f"inside a `custom_object_scope`. Received: scale_fn={self.scale_fn!r}"
                )
            config["scale_fn"] = name
        return config

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, cycles: int = 4, **options: Any
    ) -> Schedule:
        """`cycles` whole cycles, 4 by default, from a quarter of the peak (Smith's rule of thumb, from memory).

        The first rise is the warmup, so `warmup_steps` is only checked.
        """
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        step_size = max(1, total_steps // (2 * validation.positive_int("cycles", cycles)))
        return cls(**{"initial_learning_rate": peak / 4, "maximal_learning_rate": peak, "step_size": step_size, **options})


def _checked_scale(scale_fn: str | Callable) -> str | Callable:
    if callable(scale_fn) or (isinstance(scale_fn, str) and scale_fn in SCALES):
        return scale_fn
    registered = keras.saving.get_registered_object(scale_fn) if isinstance(scale_fn, str) else None
    if not callable(registered):
        raise ValueError(
            f"`scale_fn` must be a function, the name of a registered one, or one of {', '.join(map(repr, SCALES))}. "
            f"Received: scale_fn={scale_fn!r}"
        )
    return registered
