"""Elastic weight consolidation: a spring that holds what earlier tasks need."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._numerics import dot
from keras_lrsched.optimizers.wrapper import OptimizerLike, Wrapper


@register(
    "elastic_weight_consolidation",
    title="AdamW with a penalty for leaving the weights of earlier tasks",
    paper="arXiv:1612.00796",
    code=("pranshu28/TAG",),
    checked="vectors",
    against="an own script of the formula",
    deviations="all penalties of earlier tasks are kept as one, which is exact for the diagonal form; rank one is our own",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class ElasticWeightConsolidation(Wrapper):
    """A quadratic penalty around the weights of earlier tasks, added to the gradients of any optimizer.

        penalty = strength / 2 sum over tasks k of sum F_k (w - w_k)^2,      F_k = mean of squared gradients of samples
        penalty = strength / 2 <f, w - w_1>^2,   f = mean gradient, over all weights together       if fisher is "rank_one"
        g = g + the gradient of the penalty

    Call `consolidate` after each task: it takes the weights as they are for w_k. Before the first call nothing is added. The
    penalties of several tasks are one quadratic function, with the sum of all F_k and one center, so that the state does not
    grow; with `"rank_one"` there is one task. The penalty is not part of the loss that `fit` shows. Each entry of a variable
    of whatever shape counts by itself. State: two float32 numbers for each parameter beside the inner state.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        strength: The factor of the penalty, at least 0. Defaults to `1.0`.
        fisher: `"diagonal"` or `"rank_one"`. Defaults to `"diagonal"`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range; in `consolidate`, if there are no gradients, or a second task with
            `"rank_one"`. If the inner optimizer is a `LossScaleOptimizer`, which belongs around this one.

    Reference:
        Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, arXiv:1612.00796. Trajectories agree with
        a script of the formula; `"rank_one"` is our own form.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> optimizer = ElasticWeightConsolidation(keras.optimizers.SGD(0.5))
    >>> optimizer.build([w])
    >>> optimizer.consolidate([[keras.ops.array([1.0, 0.0])]])
    >>> for _ in range(2):
    ...     optimizer.apply([keras.ops.array([1.0, 1.0])], [w])
    >>> w.numpy()  # the first entry is held at 1
    array([0.25, 0.  ], dtype=float32)
    """

    state_names = ("fisher", "anchor")

    def __init__(
        self,
        optimizer: OptimizerLike,
        strength: float = 1.0,
        fisher: Literal["diagonal", "rank_one"] = "diagonal",
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        self.strength = validation.non_negative_float("strength", strength)
        self.fisher = validation.one_of("fisher", fisher, ("diagonal", "rank_one"))

    def consolidate(self, gradients: Iterable[Sequence[Tensor]]) -> None:
        """Hold the weights as they are, by the gradients of a task: a list for each sample, or batch, as for `apply`."""
        if not self.built:
            raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
        variables, count = keras_private.trained_by(self), 0
        total = [np.zeros(tuple(variable.shape)) for variable in variables]
        for each in gradients:
            for f, g in zip(total, each, strict=True):
                if g is not None:
                    array = np.asarray(ops.convert_to_numpy(ops.cast(g, "float32")), "float64")
                    f += array**2 if self.fisher == "diagonal" else array
            count += 1
        if not count:
            raise ValueError("`gradients` must have those of one sample at least. Received: none")
        for index, (variable, state, f) in enumerate(zip(variables, self._states, total, strict=True)):
            if state:
                self._hold(state, np.array(ops.convert_to_numpy(self.value_of(variable, index))), f / count)

    def consolidate_on(self, model: keras.Model, x: Any, y: Any, samples: int | None = None, batch_size: int = 1) -> None:
        """Hold the weights of a compiled model, by the gradients of its loss on data of a task.

        Args:
            model: The model, whose trainable weights the optimizer was built with.
            x, y: Arrays.
            samples: How many of the first samples count. Defaults to `None`, for all.
            batch_size: The number of samples in a gradient: 1, as in the paper, or more, which is faster and lowers F.
                Defaults to `1`.
        """
        variables = model.trainable_variables

        def loss(values: Sequence[Tensor], one_x: Tensor, one_y: Tensor) -> tuple[Tensor]:
            with keras.StatelessScope([*zip(variables, values, strict=True)], collect_losses=True):
                return (model.compute_loss(one_x, one_y, model(one_x, training=False), None, training=False),)

        def gradient(values: Sequence[Tensor], one_x: Tensor, one_y: Tensor) -> list[Tensor]:
            return backends.value_and_gradient(lambda at: loss(at, one_x, one_y), values)[1]

        compiled, count = backends.compile_function(gradient, False), len(x) if samples is None else samples
        values = [ops.convert_to_tensor(variable) for variable in variables]
        parts = [slice(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
        self.consolidate(compiled(values, *(ops.convert_to_tensor(np.asarray(a)[part]) for a in (x, y))) for part in parts)

    def _hold(self, state: dict[str, Variable], w: np.ndarray, f: np.ndarray) -> None:
        old, center = (np.array(ops.convert_to_numpy(state[name]), "float64") for name in ("fisher", "anchor"))
        if self.fisher == "rank_one":
            if old.any():
                raise ValueError("`fisher='rank_one'` holds the weights of one task. Received: a second one")
            state["fisher"].assign(f)
            state["anchor"].assign(w)
            return
        share = np.divide(f, old + f, out=np.ones_like(old), where=old > 0)
        state["fisher"].assign(old + f)
        state["anchor"].assign(center + share * (w - center))

    # The update

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable] | None = None) -> None:
        if not self.built and trainable_variables:
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        if self.built and len(grads):
            known = keras_private.trained_by(self) if trainable_variables is None else list(trainable_variables)
            grads = self._with_penalty(grads, known)
        super().apply(grads, trainable_variables)

    def _with_penalty(self, grads: Sequence[Tensor], variables: Sequence[Variable]) -> list[Tensor]:
        strength = self.strength * (self.loss_scale_factor or 1.0)
        along = None if self.fisher == "diagonal" else self._distance()
        changed = []
        for g, variable in zip(grads, variables, strict=True):
            index = keras_private.variable_index(self, variable)
            if g is not None and self._states[index]:
                fisher, anchor = (wide(self._states[index][name]) for name in ("fisher", "anchor"))
                pull = fisher * (self.value_of(variable, index) - anchor) if along is None else along * fisher
                g = backends.dense(g, variable)
                g = g + ops.cast(strength * pull, g.dtype)
            changed.append(g)
        return changed

    def _distance(self) -> Tensor:
        """<f, w - w_1> over all weights."""
        pairs = [(i, v) for i, v in enumerate(keras_private.trained_by(self)) if self._states[i]]
        states = [(self.value_of(v, i), wide(self._states[i]["anchor"]), wide(self._states[i]["fisher"])) for i, v in pairs]
        return sum(dot(f, w - anchor) for w, anchor, f in states)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strength": self.strength, "fisher": self.fisher}
