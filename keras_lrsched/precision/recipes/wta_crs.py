"""WTA-CRS: the kernel's gradient from a few rows of the inputs, so that only these need to be kept."""

import dataclasses
from typing import Any

from keras import ops

from keras_lrsched._core import backends, validation
from keras_lrsched._core.philox import random_bits
from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import Rule
from keras_lrsched.precision.recipe import ROLES, LayerContext, Recipe


@register(
    "wta_crs",
    title="WTA-CRS: the gradient of kernels from sampled rows",
    paper="arXiv:2305.15265",
    code=("zirui-ray-liu/WTACRS",),
    checked="read",
    against="zirui-ray-liu/WTACRS",
    deviations=(
        "without the norms of the gradients of the epoch before; draws are not dropped above 0.999, and are "
        "divided by p in the first epoch, too, so that the estimate is unbiased"
    ),
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class WtaCrs(Recipe):
    """WTA-CRS: the backward pass keeps k = ratio n of the n rows of the inputs, those that count and some of the others.

        p_i = |x_i| / sum |x|;  winners: the c rows with the largest p, where c minimizes (1 - P_c) / (k - c)
        dw = sum over winners x_i dy_i^T  +  sum over k - c draws from the others (1 - P_c) / (p_j (k - c)) x_j dy_j^T

    with P_c the sum of the winners' p. The expected value of dw is the gradient itself; outputs and the gradient by the
    inputs are exact. A row is a token: all axes of the inputs but the last together. All is computed in float32; what is
    saved is memory, between the forward and the backward pass. On TensorFlow this holds in graphs: eager, the tape keeps the
    inputs.

    The authors multiply the p by the norms of the gradients of the same sample in the epoch before. That needs to know which
    sample a row is, so it is left out: the estimate stays unbiased, with a larger variance. They drop the draws where P_c
    is above 0.999, and do not divide by p in the first epoch; both are biased, and not done here.

    Args:
        ratio: The share of rows that is kept. Defaults to `0.3`.
        minimal_rows: At least so many are kept. Defaults to `10`.
        roles: Of layers that do so, see `LayerContext`. The authors' settings do it for queries, keys and values.
            Defaults to `("linear", "attention")`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Liu et al., Winner-Take-All Column Row Sampling for Memory Efficient Adaptation of Language Model, arXiv:2305.15265;
        zirui-ray-liu/WTACRS was read, not run.

    Example:

    >>> import keras
    >>> from keras_lrsched.precision import quantize_model
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> quantize_model(model, WtaCrs(ratio=0.1)).quantized[0].split("/")[-1][:5]
    'dense'
    """

    ratio: float = 0.3
    minimal_rows: int = 10
    roles: tuple = ("linear", "attention")

    def __post_init__(self) -> None:
        validation.positive_fraction("ratio", self.ratio)
        validation.positive_int("minimal_rows", self.minimal_rows)
        for role in self.roles:
            validation.one_of("roles", role, ROLES)

    def rule(self, context: LayerContext) -> Rule | None:
        return SampledRows(float(self.ratio), int(self.minimal_rows)) if context.role in self.roles else None


@dataclasses.dataclass(frozen=True)
class SampledRows(Rule):
    """The product of `WtaCrs`, whose settings it has."""

    ratio: float
    minimal_rows: int

    def __call__(self, x: Any, w: Any, variables: Any, seed: Any, training: bool) -> Any:
        if not training:
            return ops.matmul(x, w)
        rows, weights = self.sample(x, seed)
        kept = ops.take(ops.stop_gradient(x), rows, axis=0) * weights[:, None]

        @ops.custom_gradient
        def with_kernel(y: Any, w: Any) -> Any:
            def grad(*args: Any, upstream: Any = None) -> Any:
                dy = args[0] if upstream is None else upstream
                return dy, ops.matmul(ops.transpose(kept), ops.take(dy, rows, axis=0))

            return y, grad

        # Apart from the kernel's gradient, so that no backend has a reason to keep x.
        return with_kernel(ops.matmul(x, ops.stop_gradient(w)), w)

    def sample(self, x: Any, seed: Any) -> Any:
        """-> the indices of k rows, and their weights."""
        norms = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(x)), axis=1))
        order = ops.argsort(norms)  # the smallest first: their sums are what must be exact
        norms = ops.take(norms, order)
        sums = ops.cumsum(norms)
        n = ops.shape(x)[0]
        k = self.rows(n)
        last, place = n - 1, ops.arange(k)
        of_others = ops.take(sums, last - place)
        winners = ops.cast(ops.argmin(of_others / ops.cast(k - place, "float32")), "int32")
        of_others = ops.take(of_others, winners)

        drawn = backends.count_not_above(sums, _uniform(k, seed) * of_others)
        drawn = ops.minimum(ops.cast(drawn, "int32"), last - winners)
        norm = ops.take(norms, drawn)
        weight = of_others / (ops.where(norm > 0, norm, 1.0) * ops.cast(k - winners, "float32"))
        is_winner = place < winners
        return ops.take(order, ops.where(is_winner, last - place, drawn)), ops.where(is_winner, 1.0, weight)

    def rows(self, n: int) -> Any:
        """k, for n rows; a tensor where a graph does not know n."""
        if isinstance(n, int):
            return min(max(round(self.ratio * n), self.minimal_rows), n)
        wanted = ops.cast(ops.round(self.ratio * ops.cast(n, "float32")), "int32")
        return ops.minimum(ops.maximum(wanted, self.minimal_rows), n)


def _uniform(k: int, seed: Any) -> Any:
    """`k` numbers between 0 and 1, both excluded."""
    bits = ops.bitwise_and(ops.right_shift(random_bits((k,), seed), 8), 2**24 - 1)
    return (ops.cast(bits, "float32") + 0.5) * 2.0**-24
