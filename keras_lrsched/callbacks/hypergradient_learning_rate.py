"""Hypergradient descent: the learning rate takes a step along its own gradient before each update."""

from typing import Any, Literal

import keras
from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import inner_optimizer
from keras_lrsched.callbacks.gradient_controller import GradientController, global_square

RULES = ("multiplicative", "additive", "fedhyper")
RANGE = (-0.8, 4.0)
"""FedHyper: how far the learning rate may be from the first one, as a fraction of it."""


@register(
    title="Hypergradient descent, FedHyper",
    paper="arXiv:1703.04782",
    code=("gbaydin/hypergradient-descent", "ATP-1010/FedHyper"),
    checked="vectors",
    against="the learning rates of the official code for the additive rule",
    deviations=(
        "with a momentum, weights differ, as Keras keeps older learning rates within it; for Adam, h is summed over "
        "all tensors first; the multiplicative rule is from memory; FedHyper (arXiv:2310.03156) was read but not "
        "run, and its rounds are optimizer steps here"
    ),
    kind="controller",
)
class HypergradientLearningRate(GradientController):
    """Gradient descent on the learning rate: it rises while gradients point along the last update, and falls otherwise.

    Let g be the gradient of all weights, u the direction of the last update, at first 0, and b the
    `hypergradient_learning_rate`. Before each update, with h = <g, u>, or <g, u> / (|g| |u|) if `normalize`,

        "multiplicative"    learning rate <- learning rate (1 + b h)
        "additive"          learning rate <- learning rate + b h
        "fedhyper"          s <- min(max(s + b h, -0.8), 4);  learning rate <- first learning rate (1 + s)

    within the least and the largest learning rate. The direction is, with the bias corrections of Adam,

        SGD                 u = v, or g + momentum v with Nesterov;  v <- momentum v + g
        Adam, AdamW         u = m / (sqrt(v) + epsilon)

    The rule is part of the compiled step. For SGD it keeps one copy of the weights' size, with Nesterov two. Gradients count
    as they are before clipping; weight decay is no part of the direction. Each `fit` starts with u = 0 and s = 0.

    The official code for Adam changes the rate between the tensors of one update; here h is summed over all first.
    FedHyper adapts the rate of the server by rounds of federated training; here a round is an update. Of its rules this is
    the global one ("FedHyper-G" of its code).

    Args:
        rule: `"multiplicative"`, `"additive"` or `"fedhyper"`. Defaults to `"multiplicative"`, which is free of scale.
        hypergradient_learning_rate: b, above 0. Defaults to `None`: `0.02` if `normalize`, which is ours; else what official
            codes have, `1e-6` with SGD and `1e-8` with Adam, or `1.0` for `"fedhyper"`.
        normalize: Whether h is a cosine. Defaults to `None`: unless the rule is `"additive"`. The official code of FedHyper
            has plain products, which depend on the scale of the loss.
        min_learning_rate: The least learning rate, or `None` for no bound, not even 0. Defaults to `0.0`.
        max_learning_rate: The largest, or `None`. Defaults to `1.0`.

    Raises:
        ValueError: At construction, if an argument is out of its range. When `fit` begins, as `Controller`; if the optimizer
            is none of Keras' SGD, Adam (without AMSGrad) and AdamW; if it accumulates gradients.

    Reference:
        arXiv 1703.04782 and https://github.com/gbaydin/hypergradient-descent, whose numbers for the additive rule this class
        reproduces. With a momentum, Keras has older learning rates within it, so weights differ from those of that code,
        which multiplies the momentum by the newest. The multiplicative rule is the paper's by memory, unverified.
        arXiv 2310.03156 and https://github.com/ATP-1010/FedHyper, whose code was read but not run.

    Example:

    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(1e-3), loss="mse")
    >>> hypergradient = HypergradientLearningRate(hypergradient_learning_rate=0.1)
    >>> history = model.fit(x, 2 * x, batch_size=64, epochs=60, verbose=0, callbacks=[hypergradient])
    >>> 0.1 < history.history["learning_rate"][-1] < 1
    True
    """

    step_settings = (
        "rule",
        "hypergradient_learning_rate",
        "normalize",
        "min_learning_rate",
        "max_learning_rate",
    )

    def __init__(
        self,
        rule: Literal["multiplicative", "additive", "fedhyper"] = "multiplicative",
        hypergradient_learning_rate: float | None = None,
        normalize: bool | None = None,
        min_learning_rate: float | None = 0.0,
        max_learning_rate: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.rule = validation.one_of("rule", rule, RULES)
        if hypergradient_learning_rate is not None:
            validation.positive_float("hypergradient_learning_rate", hypergradient_learning_rate)
        self.hypergradient_learning_rate = hypergradient_learning_rate
        self.normalize = rule != "additive" if normalize is None else bool(normalize)
        self.min_learning_rate = _bound("min_learning_rate", min_learning_rate, -float("inf"))
        self.max_learning_rate = _bound("max_learning_rate", max_learning_rate, float("inf"))
        validation.below("min_learning_rate", self.min_learning_rate, "max_learning_rate", self.max_learning_rate)

    def begin(self) -> None:
        self._refuse_other_optimizers()
        self.build_optimizer()
        super().begin()
        self._first_rate = self.add_variable("first_rate", initializer=keras.initializers.Constant(self.learning_rate))
        self._sum = self.add_variable("sum")
        optimizer = self.optimizer
        self._is_sgd = isinstance(optimizer, keras.optimizers.SGD)
        shapes = [tuple(each.shape) for each in keras_private.trained_by(optimizer)] if self._is_sgd else []
        self._directions = [self.add_variable(f"direction_{i}", shape) for i, shape in enumerate(shapes)]
        shapes = shapes if self._is_sgd and optimizer.nesterov else []
        self._momenta = [self.add_variable(f"momentum_{i}", shape) for i, shape in enumerate(shapes)]
        self._b = self.hypergradient_learning_rate or self._default()

    def before_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        optimizer = inner_optimizer(self._trainer.optimizer)
        gradients = [ops.cast(each, "float32") for each in gradients]
        places = [keras_private.variable_index(optimizer, each) for each in variables]
        directions = [self._directions[i] if self._is_sgd else _adam_direction(optimizer, i) for i in places]
        h = sum(ops.sum(g * u) for g, u in zip(gradients, directions, strict=True))
        if self.normalize:
            h = h / ops.maximum(ops.sqrt(global_square(gradients)) * ops.sqrt(global_square(directions)), 1e-30)
        elif not self._is_sgd:
            h = h * _bias_correction(optimizer)
        self.rate.assign(ops.clip(self._new_rate(self._b * h), self.min_learning_rate, self.max_learning_rate))
        if self._is_sgd:
            self._turn(gradients, places, optimizer.momentum)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["learning_rate"] = float(self.read(self.rate))

    def _new_rate(self, change: Any) -> Any:
        rate = ops.cast(self.rate, "float32")
        if self.rule == "multiplicative":
            return rate * (1 + change)
        if self.rule == "additive":
            return rate + change
        total = ops.clip(self._sum + change, *RANGE)
        self._sum.assign(total)
        return self._first_rate * (1 + total)

    def _turn(self, gradients: list[Any], places: Any, momentum: Any) -> None:
        """SGD: the direction of the update that follows."""
        for g, i in zip(gradients, places, strict=True):
            v = self._momenta[i] if self._momenta else self._directions[i]
            new = momentum * v + g
            v.assign(new)
            if self._momenta:
                self._directions[i].assign(g + momentum * new)

    def _default(self) -> float:
        if self.normalize:
            return 0.02
        if self.rule == "fedhyper":
            return 1.0
        return 1e-6 if self._is_sgd else 1e-8

    def _refuse_other_optimizers(self) -> None:
        optimizer = self.optimizer
        known = isinstance(optimizer, (keras.optimizers.SGD, keras.optimizers.Adam))
        if not known or getattr(optimizer, "amsgrad", False):
            raise ValueError(
                "HypergradientLearningRate supports Keras' SGD, Adam without AMSGrad, and AdamW. "
                f"Received: optimizer={type(optimizer).__name__}, amsgrad={getattr(optimizer, 'amsgrad', False)}"
            )
        if optimizer.gradient_accumulation_steps:
            raise ValueError(
                "HypergradientLearningRate needs an update at every batch. "
                f"Received: gradient_accumulation_steps={optimizer.gradient_accumulation_steps}"
            )


def _adam_direction(optimizer: keras.optimizers.Optimizer, place: int) -> Any:
    m, v = (ops.cast(slots[place], "float32") for slots in keras_private.adam_moments(optimizer))
    return m / (ops.sqrt(v) + optimizer.epsilon)


def _bias_correction(optimizer: keras.optimizers.Optimizer) -> Any:
    """That of the last update; where there was none, the direction is 0, and this a finite number."""
    t = ops.cast(ops.maximum(optimizer.iterations, 1), "float32")
    beta_1, beta_2 = (ops.cast(each, "float32") for each in (optimizer.beta_1, optimizer.beta_2))
    return ops.sqrt(1 - ops.power(beta_2, t)) / (1 - ops.power(beta_1, t))


def _bound(name: str, value: Any, none: float) -> float:
    return none if value is None else validation.finite_float(name, value)
