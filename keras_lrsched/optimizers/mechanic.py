"""Mechanic: the scale of the learning rate, found during the training, for any optimizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._numerics import dot
from keras_lrsched.optimizers._schedule_free import SCHEDULE_FREE
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper


@register(
    "mechanic",
    title="AdamW whose learning rate is scaled during the training",
    paper="arXiv:2306.00144",
    code=("google-deepmind/optax",),
    checked="trajectory",
    against="optax, around SGD and Adam",
    deviations="a variable without a gradient stays; weights that are set from outside move the start as well",
    kind="wrapper",
    options={"learning_rate": 1.0, "weight_decay": None},
)
class Mechanic(Wrapper):
    """A factor of all that an optimizer has done so far, which grows while that leads downhill.

        u = what the inner optimizer takes off w;  D = (w_0 - w) / (S + epsilon)
        h = <g + s_decay S (||g|| / (||w|| + epsilon)) w, D>
        r = beta r + clip(h, -m, m) s;  m = max(beta m, |h| + epsilon);  v = beta^2 v + h^2
        s = (s_init m / num_betas + max(r, 0)) / (sqrt(v) + epsilon)
        w = w_0 - S (D + u)

    S is the sum of the s for num_betas decay rates: 0.9, 0.99, 0.999 and so on. w_0 are the weights at the start, g the
    gradients before any clipping; products and norms are over all variables together. The inner learning rate is 1, or the
    schedule's shape with a peak of 1. An inner rule in proportion to the size of the weights (LARS, LAMB) does not fit.

    In place of w_0 the state has w - w_0, as the sum of the changes. A variable without a gradient stays what it is.
    Gradients of embeddings become dense. An update that the inner optimizer leaves out (`nonfinite="skip"`) changes nothing.
    State: one float32 number for each parameter beside the inner state.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        s_decay: Strength of the regularization of S. Defaults to `0.01`.
        s_init: The first S, above 0. Defaults to `1e-6`.
        num_betas: The number of decay rates. Defaults to `6`.
        epsilon: Above 0. Defaults to `1e-8`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer accumulates gradients, averages weights itself
            (`use_ema`, Schedule-Free), or has `lazy_embeddings`; or is a `LossScaleOptimizer`, which belongs around this
            one.

    Reference:
        Cutkosky et al., Mechanic: A Learning Rate Tuner, arXiv:2306.00144. Trajectories agree with optax.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = Mechanic(keras.optimizers.SGD(1.0), s_init=0.01)
    >>> for _ in range(12):
    ...     optimizer.apply([w - 10.0], [w])
    >>> round(optimizer.scale, 3), round(float(w[0]), 2)
    (0.119, 9.99)
    """

    state_names = ("travelled",)

    moves_weights = True

    def __init__(
        self,
        optimizer: OptimizerLike,
        s_decay: float = 0.01,
        s_init: float = 1e-6,
        num_betas: int = 6,
        epsilon: float = 1e-8,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        self.s_decay = validation.non_negative_float("s_decay", s_decay)
        self.s_init = validation.positive_float("s_init", s_init)
        self.num_betas = validation.positive_int("num_betas", num_betas)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        inner = self.inner_optimizer
        for option in ("gradient_accumulation_steps", "lazy_embeddings", "use_ema"):
            if getattr(inner, option, None):
                raise ValueError(
                    f"Mechanic needs the whole gradient and update of one step: leave `{option}` out. "
                    f"Received: {option}={getattr(inner, option)!r}"
                )
        if isinstance(inner, SCHEDULE_FREE):
            raise ValueError(
                f"Mechanic needs an inner optimizer that averages no weights. Received: optimizer={optimizer!r}"
            )

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        super().build(variables)
        self.__dict__["_numbers"] = {
            name: self.add_variable((self.num_betas,), "zeros", "float32", aggregation="only_first_replica", name=name)
            for name in ("r", "m", "v", "s")
        }

    @property
    def scale(self) -> float:
        """S, the factor of the inner learning rate; 0 before the first update."""
        return float(ops.convert_to_numpy(ops.sum(self._numbers["s"]))) if self.built else 0.0

    def before_update(self, pairs: Pairs) -> Any:
        """The number of updates so far, and the weights."""
        done = ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))
        return done, [self.value_of(variable, index) for variable, index in pairs]

    def filter_gradients(self, gradients: Sequence[Tensor | None], variables: Sequence[Variable]) -> Sequence[Tensor | None]:
        self.refuse_replicas()
        dense = [None if g is None else backends.dense(g, v) for g, v in zip(gradients, variables, strict=True)]
        indices = [keras_private.variable_index(self, variable) for variable in variables]
        self.__dict__["_gradients"] = {i: wide(g) for i, g in zip(indices, dense, strict=True) if g is not None}
        return dense

    def after_update(self, pairs: Pairs, before: Any) -> None:
        done_before, weights = before
        happened = ops.not_equal(ops.convert_to_tensor(keras_private.iterations(self)), done_before)
        gradients = [self.__dict__["_gradients"][index] for _, index in pairs]
        travelled = [wide(self._states[index]["travelled"]) for _, index in pairs]
        old = {name: ops.convert_to_tensor(variable) for name, variable in self._numbers.items()}
        old_scale = ops.sum(old["s"])
        h = self._gain(gradients, weights, travelled, old_scale)
        new = self._tuned(h, **old)
        scale = ops.sum(new["s"])
        for name, variable in self._numbers.items():
            self.assign(variable, ops.where(happened, new[name], old[name]))
        for (variable, index), w, way in zip(pairs, weights, travelled, strict=True):
            u = w - self.value_of(variable, index)
            factor, total = (ops.cast(number, w.dtype) for number in (scale / (old_scale + self.epsilon), scale))
            new_way = ops.where(happened, factor * way - total * u, way)
            self.set_value(variable, index, ops.where(happened, w + (new_way - way), w))
            self.assign(self._states[index]["travelled"], new_way)  # last: PyTorch's `way` shares its memory
        self.__dict__["_gradients"] = {}

    def _gain(
        self, gradients: Sequence[Tensor], weights: Sequence[Tensor], travelled: Sequence[Tensor], scale: Tensor
    ) -> Any:
        """h."""

        def length(tensors: Sequence[Tensor]) -> Tensor:
            return ops.sqrt(sum(dot(x, x) for x in tensors))

        decay = self.s_decay * scale * length(gradients) / (length(weights) + self.epsilon)
        products = zip(gradients, weights, travelled, strict=True)
        return -sum(dot(g, way) + decay * dot(w, way) for g, w, way in products) / (scale + self.epsilon)

    def _tuned(self, h: Tensor, r: Tensor, m: Tensor, v: Tensor, s: Tensor) -> dict[str, Tensor]:
        """The state of all decay rates after h."""
        beta = 1 - 0.1 ** np.arange(1, self.num_betas + 1)
        squared = ops.convert_to_tensor(beta**2, "float32")
        beta = ops.convert_to_tensor(beta, "float32")
        r = beta * r + ops.minimum(ops.maximum(h, -m), m) * s
        m = ops.maximum(beta * m, ops.abs(h) + self.epsilon)
        v = squared * v + ops.square(h)
        s = (self.s_init / self.num_betas * m + ops.maximum(r, 0.0)) / (ops.sqrt(v) + self.epsilon)
        return {"r": r, "m": m, "v": v, "s": s}

    def get_config(self) -> dict[str, Any]:
        names = ("s_decay", "s_init", "num_betas", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
