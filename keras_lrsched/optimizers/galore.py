"""GaLore: Adam on the singular vectors of the gradient."""

from collections.abc import Mapping
from typing import Unpack

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Patterns, Tensor, WeightDecay
from keras_lrsched.optimizers._low_rank import LowRank
from keras_lrsched.optimizers._options import LowRankOptions
from keras_lrsched.optimizers._update_context import OptimizerState


@register(
    "galore",
    title="Adam on the singular vectors of the gradient",
    paper="arXiv:2403.03507",
    code=("https://pypi.org/project/galore-torch",),
    checked="trajectory",
    against="the authors' package galore-torch 1.0 with the projector `std`, up to the signs of singular vectors",
    deviations="other projectors, and the 8-bit and layerwise forms, are not offered",
    kind="optimizer",
)
class GaLore(LowRank):
    """Adam on the gradient's projection on its largest singular vectors, so that the moments take little memory.

        P = the first `rank` left singular vectors of G      anew every `update_proj_gap` updates
        R = P^T G
        m = beta_1 m + (1 - beta_1) R;  v = beta_2 v + (1 - beta_2) R^2
        w = w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) scale P (m / (sqrt(v) + epsilon))
        w = (1 - lr weight_decay) w

    The gradient G of a matrix is turned such that its rows are the shorter side, of length k; the other one is n. m and v
    have the shape (rank, n) and stay as they are when P changes. Matrices are, by their roles in their layers (see `Role`),
    kernels that multiply inputs, factors of LoRA, and embeddings. The equation of an `EinsumDense` shows which axes of a
    projection of attention are inputs: all heads together are one matrix. `input_axes` sets it for others, such as kernels
    of convolutions. Adam updates these without it, also biases, normalizations, slopes, several matrices in one variable
    (the experts of a mixture), what has more than two axes in layers that are not known, and what `exclude_from_projection`
    lists, with the same learning rate and without `scale`.

    State: for a matrix rank (2 n + k) float32 numbers, so 3 bytes for each parameter of a square matrix at a quarter of its
    side; two for each parameter of all else.

    Singular vectors have no sign of their own; here the entry of the largest absolute value is positive. After a second P,
    old moments meet new vectors, so that runs with other signs differ. `"svd"` is slow for more than a few hundred rows
    where TensorFlow compiles the update (`jit_compile=True`). `"randomized_svd"` is fast everywhere: its P holds nearly as
    much of the gradient, but mixes vectors of near singular values.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        rank: The number of singular vectors, at most the shorter side of each matrix. The default of the authors' code is
            128. Defaults to `None`, for a quarter of the shorter side, rounded up.
        update_proj_gap: For how many updates P stays. Defaults to `200`.
        scale: Multiplies the update of matrices, above 0. Defaults to `0.25`.
        proj: `"svd"` or `"randomized_svd"`. Defaults to `"svd"`.
        beta_1: Decay rate of the mean of R, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of its squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-6`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        exclude_from_projection: Regular expressions; Adam updates a variable if one is found in its path. Defaults to
            `None`, for none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a variable are inputs. Defaults
            to `None`, as above.
        seed: An int, for `"randomized_svd"`, as for stochastic rounding. Defaults to `0`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if `rank` is larger than the shorter
            side of a matrix, or a variable has no more axes than in `input_axes`.

    Reference:
        Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection, arXiv:2403.03507. Trajectories
        agree with the authors' package galore-torch 1.0 and its projector `std`, up to the signs of singular vectors. Other
        projectors, and its 8-bit and layerwise forms, are not offered.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((64, 64)))
    >>> optimizer = GaLore(learning_rate=0.1, rank=1)
    >>> optimizer.apply([keras.ops.outer(keras.ops.arange(64), keras.ops.ones(64))], [w])
    >>> w.numpy()[[0, 32, 63], 0].round(4)  # scale lr times the singular vector
    array([ 0.    , -0.0027, -0.0054], dtype=float32)
    >>> optimizer.state_bytes_per_parameter()
    0.1875
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        rank: int | None = None,
        update_proj_gap: int = 200,
        scale: float = 0.25,
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
        self.scale = validation.positive_float("scale", scale)

    def direction(self, g: Tensor, p: Tensor, r: Tensor, n: Tensor, state: OptimizerState) -> Tensor:
        return self.scale * (p @ n)
