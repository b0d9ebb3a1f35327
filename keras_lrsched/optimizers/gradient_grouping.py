"""Scaling with gradient grouping: learning rates by clusters of the momentum."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import deferred
from keras_lrsched._core.types import Patterns, Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._schedule_free import SCHEDULE_FREE
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper

LLOYD_STEPS = 10
LEAST, LARGEST = 0.1, 10.0
"""Bounds of the factors."""


@register(
    "gradient_grouping",
    title="AdamW with learning rates by clusters of its steps",
    paper="arXiv:2506.01049",
    code=("Westlake-AI/OpenToMe",),
    checked="memory",
    against="a summary of the paper; the released code differs from it, and cannot be constructed",
    deviations="clusters by a deterministic rule of our own; the mean of steps takes the place of a momentum",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class GradientGrouping(Wrapper):
    """SGG: the entries of each variable in a few clusters, with a factor each for the steps of any optimizer.

        u = what the inner optimizer takes off w;  m = beta m + (1 - beta) u
        every `every` updates:  clusters of the entries of m by their values, in each variable l
                                D_lc = median of |m - mean_l(m)| in cluster c;  D = median of all D_lc
                                S_lc = beta_3 S_lc + (1 - beta_3) D / (D_lc + 1e-8), between 0.1 and 10;  at first 1
        w = w - S_lc u

    So entries whose steps lie far from the others of their variable become slower. The paper clusters an inner momentum by
    k-means with random starts. Here it is the mean of steps, so that every inner optimizer has one, and the clusters are
    those of ten steps of Lloyd's rule from equal parts of the sorted entries, the same in each run. The factor is that of
    the whole step, with the inner weight decay. A variable is one vector of entries, of whatever shape; what
    `exclude_from_grouping` finds has the factor 1. State: two float32 numbers for each parameter beside the inner state, and
    `clusters` for each variable.

    Under gradient accumulation the median is over all variables, also those without a gradient.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        clusters: The number of clusters of a variable, at least 2. Defaults to `3`.
        every: Updates from one clustering to the next. Defaults to `500`.
        beta: Decay rate of m, at least 0 and below 1. Defaults to `0.9`.
        beta_3: Decay rate of the factors, at least 0 and below 1. Defaults to `0.99`.
        exclude_from_grouping: Regular expressions for variables without factors. Defaults to `["bias", "normalization"]`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range, or an expression is found in no path. If the inner optimizer averages
            weights itself, or is a `LossScaleOptimizer`, which belongs around this one.

    Reference:
        Li et al., Taming LLMs by Scaling Learning Rates with Gradient Grouping, arXiv:2506.01049, by a summary; no claim is
        made that the paper's code agrees.

    Example:

    >>> w = keras.Variable([0.0, 0.0, 0.0, 0.0])
    >>> optimizer = GradientGrouping(keras.optimizers.SGD(1.0), clusters=2, every=1, beta=0.0, beta_3=0.0)
    >>> optimizer.apply([keras.ops.array([-1.0, -1.0, -1.0, -5.0])], [w])
    >>> w.numpy().round(4)  # distances from the mean 2 of the steps: 1 and 3, with the median 2
    array([2.    , 2.    , 2.    , 3.3333], dtype=float32)
    """

    state_names = ("mean", "label")

    moves_weights = True

    def __init__(
        self,
        optimizer: OptimizerLike,
        clusters: int = 3,
        every: int = 500,
        beta: float = 0.9,
        beta_3: float = 0.99,
        exclude_from_grouping: Patterns = ("bias", "normalization"),
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        inner = self.inner_optimizer
        if inner.use_ema or isinstance(inner, SCHEDULE_FREE):
            raise ValueError(
                f"GradientGrouping needs an inner optimizer that averages no weights. Received: optimizer={optimizer!r}"
            )
        self.clusters = validation.positive_int("clusters", clusters)
        if self.clusters < 2:
            raise ValueError(f"`clusters` must be at least 2. Received: clusters={clusters!r}")
        self.every = validation.positive_int("every", every)
        self.beta = validation.beta("beta", beta)
        self.beta_3 = validation.beta("beta_3", beta_3)
        self.exclude_from_grouping = path_rules.patterns("exclude_from_grouping", exclude_from_grouping)

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        roles = deferred(variables)
        self._grouped = path_rules.included("exclude_from_grouping", self.exclude_from_grouping, variables, roles)
        super().build(variables)
        shape = (len(variables), self.clusters)
        self._factors = self.add_variable(shape, "ones", "float32", aggregation="only_first_replica", name="factors")

    def _make_state(self, variable: Variable) -> dict[str, Variable]:
        index = len(self.__dict__.get("_made", []))
        self.__dict__.setdefault("_made", []).append(index)
        return super()._make_state(variable) if self._grouped[index] and 0 not in variable.shape else {}

    def before_update(self, pairs: Pairs) -> Any:
        done = ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))
        return done, [self.value_of(variable, index) for variable, index in pairs]

    def after_update(self, pairs: Pairs, before: Any) -> None:
        done_before, weights = before
        done, steps = ops.convert_to_tensor(keras_private.iterations(self)), self.gradient_accumulation_steps or 1
        moved = ops.logical_and(ops.not_equal(done, done_before), ops.equal(done % steps, 0))
        is_due = ops.logical_and(moved, ops.equal((done // steps) % self.every, 0))
        chosen = [(v, i, w) for (v, i), w in zip(pairs, weights, strict=True) if self._states[i]]
        if not chosen:
            return
        means = []
        for variable, index, w in chosen:
            old = wide(self._states[index]["mean"])
            takes_part = ops.logical_and(moved, self.takes_part(index, w, self.value_of(variable, index)))
            means.append(ops.where(takes_part, average(self.beta, old, w - self.value_of(variable, index)), old))
        labels, factors = self._clustered(is_due, [index for _, index, _ in chosen], means)
        for (variable, index, w), mean, label in zip(chosen, means, labels, strict=True):
            step = w - self.value_of(variable, index)
            factor = ops.cast(ops.take(factors[index], ops.cast(label, "int32")), step.dtype)
            self.set_value(variable, index, w - ops.where(factor == 1, step, factor * step))
            self.assign(self._states[index]["mean"], mean)
            self.assign(self._states[index]["label"], ops.cast(label, mean.dtype))
        self.assign(self._factors, factors)

    def _clustered(self, is_due: Tensor, places: Sequence[int], means: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The clusters of all entries, and the factors of all clusters, as they are from now on."""
        old = [ops.cast(wide(self._states[i]["label"]), "float32") for i in places], ops.copy(self._factors)

        def anew() -> Any:
            labels = [clusters_of(m, self.clusters) for m in means]
            apart = [spread(m, label, self.clusters) for m, label in zip(means, labels, strict=True)]
            middle = median(ops.concatenate(apart))
            factors = ops.convert_to_tensor(old[1])
            for i, d in zip(places, apart, strict=True):
                new = ops.where(ops.isfinite(d), middle / (d + 1e-8), 1.0)
                new = ops.clip(average(self.beta_3, factors[i], new), LEAST, LARGEST)
                factors = ops.where(ops.arange(len(self._states))[:, None] == i, new[None], factors)
            return labels, factors

        return ops.cond(is_due, anew, lambda: (list(old[0]), ops.convert_to_tensor(old[1])))

    def get_config(self) -> dict[str, Any]:
        names = ("clusters", "every", "beta", "beta_3", "exclude_from_grouping")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def clusters_of(m: Tensor, count: int) -> Tensor:
    """The cluster of each entry, 0 to `count` - 1, as floats: by Lloyd's rule, from equal parts of the sorted entries."""
    m = ops.cast(m, "float32")
    entries = ops.sort(ops.reshape(m, (-1,)))
    size = entries.shape[0]
    centers = ops.stack([entries[min(int((c + 0.5) * size / count), size - 1)] for c in range(count)])

    def labels_of(x: Tensor) -> Tensor:
        borders = (centers[1:] + centers[:-1]) / 2
        return sum(ops.cast(x > borders[c], "float32") for c in range(count - 1))

    for _ in range(LLOYD_STEPS):
        labels = labels_of(entries)
        members = [ops.cast(labels == c, "float32") for c in range(count)]
        sums = [(ops.sum(each), ops.sum(each * entries)) for each in members]
        centers = ops.stack([ops.where(n > 0, s / ops.maximum(n, 1.0), centers[c]) for c, (n, s) in enumerate(sums)])
    return labels_of(m)


def spread(m: Tensor, labels: Tensor, count: int) -> Tensor:
    """The median distance from the mean of all entries, of each cluster; infinite for one without entries."""
    distances = ops.reshape(ops.abs(ops.cast(m, "float32") - ops.cast(ops.mean(m), "float32")), (-1,))
    labels = ops.reshape(labels, (-1,))
    return ops.stack([median(ops.where(labels == c, distances, float("inf"))) for c in range(count)])


def median(values: Tensor) -> Tensor:
    """The median of the finite ones of some numbers; infinite if there are none."""
    ordered = ops.sort(values)
    count = ops.sum(ops.cast(ops.isfinite(values), "int32"))
    low, high = ops.maximum((count - 1) // 2, 0), count // 2
    high = ops.minimum(high, ops.maximum(count - 1, 0))
    return (ops.take(ordered, low) + ops.take(ordered, high)) / 2
