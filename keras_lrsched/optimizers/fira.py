"""Fira: GaLore that also uses what its projection leaves of the gradient."""

from collections.abc import Mapping
from typing import Unpack

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Patterns, Tensor, WeightDecay
from keras_lrsched.optimizers._low_rank import LowRank, channel_scale, limited
from keras_lrsched.optimizers._options import LowRankOptions
from keras_lrsched.optimizers._update_context import OptimizerState


@register(
    "fira",
    title="GaLore and the scaled rest of the gradient",
    paper="arXiv:2410.01623",
    checked="trajectory",
    against="the authors' code, `fira_adamw.py`, up to the signs of singular vectors",
    deviations="the defaults of `learning_rate` and `rank` are ours; no limit of the norm after a gradient of 0",
    kind="optimizer",
)
class Fira(LowRank):
    """Adam on the gradient's largest singular vectors, and the rest of the gradient scaled as Adam scales these.

        P = the first `rank` left singular vectors of G      anew every `update_proj_gap` updates
        R = P^T G
        m = beta_1 m + (1 - beta_1) R;  v = beta_2 v + (1 - beta_2) R^2;  N = m / (sqrt(v) + epsilon)
        s = ||N|| / (||R|| + 1e-8)                           for each column
        X = s (G - alpha P R), its norm limited to 1.01 times that of the last X
        w = w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) (alpha P N + X)
        w = (1 - lr weight_decay) w

    What is a matrix, how it is turned and what becomes of all else is as in `GaLore`, as are singular vectors. If `alpha` is
    not 1, X is more than what P leaves of the gradient; this is the authors' form. X has no limit after a gradient of 0,
    where that of the authors is about 1e-8.

    State: for a matrix rank (2 n + k) float32 numbers and one more, where k is its shorter side and n the other one; two for
    each parameter of all else.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        rank: The number of singular vectors, at most the shorter side of each matrix. Defaults to `None`, for a quarter of
            the shorter side, rounded up.
        update_proj_gap: For how many updates P stays. Defaults to `200`.
        alpha: Multiplies what comes back from the projection, above 0; the authors' command for pre-training has 0.25.
            Defaults to `1.0`.
        proj: `"svd"` or `"randomized_svd"`. Defaults to `"svd"`.
        beta_1: Decay rate of the mean of R, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of its squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-6`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        exclude_from_projection: Regular expressions; Adam updates a variable if one is found in its path. Defaults to
            `None`, for none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a variable are inputs. Defaults
            to `None`, as in `GaLore`.
        seed: An int, for `"randomized_svd"`, as for stochastic rounding. Defaults to `0`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if `rank` is larger than the shorter
            side of a matrix, or a variable has no more axes than in `input_axes`.

    Reference:
        Chen et al., Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?, arXiv:2410.01623.
        Trajectories agree with the authors' code, `fira_adamw.py`, up to the signs of singular vectors. The defaults of
        `learning_rate` and `rank` are ours.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((2, 2)))
    >>> Fira(learning_rate=0.1, rank=1).apply([keras.ops.diag([4.0, 1.0])], [w])
    >>> w.numpy().diagonal().round(2)  # P has nothing of the second column, from which its scale would come
    array([-0.1,  0. ], dtype=float32)
    """

    matrix_numbers = ("length",)

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        rank: int | None = None,
        update_proj_gap: int = 200,
        alpha: float = 1.0,
        proj: str = "svd",
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: WeightDecay = None,
        exclude_from_projection: Patterns = None,
        input_axes: Mapping[str, int] | None = None,
        seed: int = 0,
        **options: Unpack[LowRankOptions],
    ) -> None:
        validation.one_of("proj", proj, ("svd", "randomized_svd"))
        super().__init__(
            learning_rate,
            rank,
            update_proj_gap,
            proj,
            beta_1,
            beta_2,
            epsilon,
            weight_decay,
            exclude_from_projection,
            input_axes,
            seed,
            **options,
        )
        self.alpha = validation.positive_float("alpha", alpha)

    def direction(self, g: Tensor, p: Tensor, r: Tensor, n: Tensor, state: OptimizerState) -> Tensor:
        rest = (g - self.alpha * (p @ r)) * channel_scale(n, r)
        return self.alpha * (p @ n) + limited(rest, state)
