"""Grokfast: gradients whose slow part is amplified, for any optimizer."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide, wide_dtype
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper


@register(
    "grokfast",
    title="AdamW of gradients whose slow part is amplified",
    paper="arXiv:2405.20233",
    code=("ironjr/grokfast",),
    checked="trajectory",
    against="the authors' code, both filters",
    deviations="with `window`, only the mean, from when the window is full",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class Grokfast(Wrapper):
    """The gradient plus its own slow average, before any other optimizer clips and uses it.

        e = g at the first update, then alpha e + (1 - alpha) g
        the inner optimizer's update of w with the gradient g + lamb e

    With `window`, e is the mean of the last `window` gradients, and 0 until there are as many; `lamb=5` and `window=100` are
    the authors' values. The inner optimizer has the learning rate, the counter of updates, clipping and weight decay. An
    update that it leaves out (`nonfinite="skip"`) leaves e as it is. Gradients of embeddings become dense. Each entry is
    filtered by itself, whatever the shape. State: one float32 number for each parameter beside the inner state, `window` of
    them with a window.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        alpha: Decay rate of the average, at least 0 and below 1. Defaults to `0.98`.
        lamb: The weight of the average. Defaults to `2.0`.
        window: The number of gradients in a mean that takes the place of the average. Defaults to `None`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer accumulates gradients, since the filter is for
            the gradient of an update; or has `lazy_embeddings`; or is a `LossScaleOptimizer`, which belongs around this one.
            In the first update, if there is more than one replica of `tf.distribute`.

    Reference:
        Lee et al., Grokfast: Accelerated Grokking by Amplifying Slow Gradients, arXiv:2405.20233. Trajectories agree with
        the authors' code, ironjr/grokfast.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = Grokfast(keras.optimizers.SGD(0.125), lamb=1.0)
    >>> optimizer.apply([keras.ops.array([2.0])], [w])
    >>> w.numpy()  # by twice the gradient
    array([0.5], dtype=float32)
    """

    def __init__(
        self,
        optimizer: OptimizerLike,
        alpha: float = 0.98,
        lamb: float = 2.0,
        window: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        self.alpha = validation.beta("alpha", alpha)
        self.lamb = validation.non_negative_float("lamb", lamb)
        self.window = None if window is None else validation.positive_int("window", window)
        for option in ("gradient_accumulation_steps", "lazy_embeddings"):
            if getattr(self.inner_optimizer, option, None):
                raise ValueError(
                    f"Grokfast filters the whole gradient of each update: leave `{option}` out. "
                    f"Received: {option}={getattr(self.inner_optimizer, option)!r}"
                )

    def _make_state(self, variable: Variable) -> dict[str, Variable]:
        if keras_private.is_overwritten_with_gradient(self, variable):
            return {}
        if self.window is None:
            return {"average": self._make_state_variable(variable, "average")}
        shape = (self.window, *variable.shape)
        return {"last": self.add_variable(shape, dtype=wide_dtype(variable.dtype), name=self._state_name(variable, "last"))}

    def filter_gradients(self, gradients: Sequence[Tensor | None], variables: Sequence[Variable]) -> Sequence[Tensor | None]:
        self.refuse_replicas()
        done = ops.convert_to_tensor(keras_private.iterations(self))
        self._new: dict[int, Tensor] = {}
        filtered = []
        for gradient, variable in zip(gradients, variables, strict=True):
            index = keras_private.variable_index(self, variable)
            if gradient is not None and self._states[index]:
                g = wide(backends.dense(gradient, variable))
                gradient = g + self.lamb * self._slow_part(index, g, done)
            filtered.append(gradient)
        return filtered

    def _slow_part(self, index: int, g: Tensor, done: Tensor) -> Tensor:
        """e of one variable, whose new state is stored after the update."""
        state = self._states[index]
        if self.window is None:
            old = wide(state["average"])
            e = self._new[index] = ops.where(ops.equal(done, 0), g, average(self.alpha, old, g))
            return e
        old = wide(state["last"])
        is_oldest = ops.reshape(ops.equal(ops.arange(self.window), done % self.window), (-1,) + (1,) * len(g.shape))
        last = self._new[index] = ops.where(is_oldest, ops.expand_dims(g, 0), old)
        return ops.where(done + 1 < self.window, 0.0, ops.mean(last, axis=0))

    def before_update(self, pairs: Pairs) -> Any:
        return ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))

    def after_update(self, pairs: Pairs, before: Any) -> None:
        happened = ops.not_equal(ops.convert_to_tensor(keras_private.iterations(self)), before)
        for index, new in self._new.items():
            (variable,) = self._states[index].values()
            self.assign(variable, ops.where(happened, new, wide(variable)))
        self._new = {}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "lamb": self.lamb, "window": self.window}
