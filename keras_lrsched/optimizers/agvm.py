"""AGVM: learning rates of the modules of a model by how much their gradients vary."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._multi_pass_model import MultiPassModel, Pass, State
from keras_lrsched.optimizers._numerics import dot

LEAST, LARGEST = 0.5, 10.0
"""Bounds of the ratios of variances."""


@register(
    title="learning rates of modules by the variance of their gradients",
    paper="arXiv:2210.11078",
    code=("Sense-X/AGVM",),
    checked="read",
    against="the authors' hook for mmcv",
    deviations="halves of a batch in the place of halves of the workers; no form with Adam's second moments",
    kind="model",
)
class AGVM(MultiPassModel):
    """Adaptive gradient variance modulation: a model whose modules have gradients of one relative variance.

        a, b = gradients of the two halves of a batch, of module i;   phi_i = 1 - cos(a, b)
        mu_i = sqrt(between 0.5 and 10: (phi_0 + 1e-6) / (phi_i + 1e-6))
        s_i = beta s_i + (1 - beta) mu_i           every `every` updates from `start` on; at first 1
        w = w - s_i (what the optimizer takes off w)

    Module 0 is the one that others are compared with, usually the backbone. The optimizer is any, and its weight decay is
    scaled, too. The step costs two passes over half a batch each, so BatchNorm has statistics of halves; loss and metrics
    are those of the whole batch. Weights whose path no rule finds have the factor 1. State: a number for each
    module, among the weights of this model that are not trained.

    Args:
        model: A model with Keras' own training step and loss, that is built.
        modules: Regular expressions for the paths of weights, one for each module, two at least.
        every: Updates from one measurement to the next. Defaults to `5`.
        start: Updates before the first one, as those of a warmup. Defaults to `500`.
        beta: Decay rate of the factors, at least 0 and below 1. Defaults to `0.97`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range, the model is not built, an expression is found in no path, or the
            model has a training step of its own. In training, if there is more than one replica of `tf.distribute`.

    Reference:
        Xue et al., Large-batch Optimization for Dense Visual Predictions, arXiv:2210.11078. The authors' code, Sense-X/AGVM,
        was read, not run.

    Example:

    >>> import numpy as np
    >>> layers = [keras.layers.Dense(4, name="backbone"), keras.layers.Dense(1, name="head")]
    >>> model = AGVM(keras.Sequential([keras.Input((3,)), *layers]), ["backbone", "head"], every=1, start=0)
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.random.rand(8, 3), np.random.rand(8, 1), verbose=0)
    >>> model.factors()[0].item()
    1.0
    """

    def __init__(
        self,
        model: keras.Model,
        modules: Sequence[str],
        every: int = 5,
        start: int = 500,
        beta: float = 0.97,
        name: str | None = None,
    ) -> None:
        super().__init__(model, name)
        self.modules = path_rules.patterns("modules", modules)
        self.every = validation.positive_int("every", every)
        self.start = validation.non_negative_int("start", start)
        self.beta = validation.beta("beta", beta)
        if len(self.modules) < 2:
            raise ValueError(f"`modules` must have two expressions at least. Received: modules={modules!r}")
        if not model.built:
            raise ValueError(f"`model` must be built: call it on data first. Received: model={model.name}")
        rules = path_rules.first_match("modules", self.modules, model.trainable_variables)
        self._module_of = [None if rule is None else self.modules.index(rule) for rule in rules]
        self._factors = self.add_weight(
            shape=(len(self.modules),), initializer="ones", trainable=False, dtype="float32", name="factors"
        )

    def factors(self) -> Any:
        """Return the factors s of all modules as an array."""
        return ops.convert_to_numpy(self._factors)

    def gradients(self, values: Sequence[Tensor], state: State, batch: Any) -> Pass:
        first_half, second_half, share = _halves(batch)
        one = self.evaluate_at(values, state, first_half)
        state_between = [(variable, new) for (variable, _), new in zip(state, one.state, strict=True)]
        other = self.evaluate_at(values, state_between, second_half)
        gradients = [_mixed(a, b, share) for a, b in zip(one.gradients, other.gradients, strict=True)]
        place = next(i for i, (variable, _) in enumerate(state) if variable is self._factors)
        new_state = list(other.state)
        new_state[place] = self._new_factors(state[place][1], one, other, state)
        y_pred = keras.tree.map_structure(lambda a, b: ops.concatenate([a, b]), one.y_pred, other.y_pred)
        loss = share * one.loss + (1 - share) * other.loss
        return other._replace(gradients=gradients, state=new_state, y_pred=y_pred, loss=loss)

    def _new_factors(self, old: Tensor, one: Pass, other: Pass, state: State) -> Tensor:
        with keras.StatelessScope(state):
            done = ops.convert_to_tensor(self.optimizer.iterations)
        is_due = ops.logical_and(done >= self.start, ops.equal(done % self.every, 0))
        phi = ops.stack([self._variance(i, one, other) for i in range(len(self.modules))])
        mu = ops.sqrt(ops.clip((phi[0] + 1e-6) / (phi + 1e-6), LEAST, LARGEST))
        return ops.where(is_due, self.beta * old + (1 - self.beta) * mu, old)

    def _variance(self, module: int, one: Pass, other: Pass) -> Tensor:
        """1 - the cosine of the two gradients of a module."""
        pairs = [
            (wide(a), wide(b))
            for a, b, place in zip(one.gradients, other.gradients, self._module_of, strict=True)
            if place == module and a is not None and b is not None
        ]
        inner, length, other_length = (sum(dot(*each) for each in its) for its in _products(pairs))
        product = ops.sqrt(length) * ops.sqrt(other_length)
        return 1 - inner / ops.where(product > 0, product, 1.0)

    def after_update(self, before: Sequence[Tensor], after: Sequence[Tensor], state: State) -> list[Tensor]:
        factors = next(value for variable, value in state if variable is self._factors)
        moved = []
        for old, new, module in zip(before, after, self._module_of, strict=True):
            if module is None:
                moved.append(new)
                continue
            scaled = wide(old) + ops.cast(factors[module], wide(old).dtype) * (wide(new) - wide(old))
            moved.append(ops.cast(ops.where(ops.equal(factors[module], 1.0), wide(new), scaled), new.dtype))
        return moved

    def get_config(self) -> dict[str, Any]:
        names = ("modules", "every", "start", "beta")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _products(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[list, list, list]:
    return [*pairs], [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs]


def _mixed(one: Tensor | None, other: Tensor | None, share: Any) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return ops.cast(share, one.dtype) * one + ops.cast(1 - share, one.dtype) * other


def _halves(batch: Any) -> tuple[Any, Any, Any]:
    """The two halves of a batch, and the share of the first."""
    size = ops.shape(next(part for part in keras.tree.flatten(batch) if part is not None))[0]
    middle = (size + 1) // 2

    def part(of_first: bool) -> Any:
        def cut(x: Any) -> Any:
            return None if x is None else x[:middle] if of_first else x[middle:]

        return keras.tree.map_structure(cut, batch, none_is_leaf=True)

    return part(True), part(False), ops.cast(middle, "float32") / ops.cast(size, "float32")
