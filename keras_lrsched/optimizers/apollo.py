"""APOLLO: gradients scaled as Adam would scale a random projection of them."""

from collections.abc import Mapping
from typing import Unpack

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Patterns, Tensor, WeightDecay
from keras_lrsched.optimizers._low_rank import LowRank, channel_scale, limited, tensor_scale
from keras_lrsched.optimizers._options import LowRankOptions
from keras_lrsched.optimizers._update_context import OptimizerState


class ApolloOptions(LowRankOptions, total=False):
    """Arguments of `Apollo` that `ApolloMini` hands on."""

    scale_front: bool
    proj: str
    beta_1: float
    beta_2: float
    epsilon: float
    weight_decay: WeightDecay
    exclude_from_projection: Patterns
    input_axes: Mapping[str, int] | None
    seed: int


@register(
    "apollo",
    title="gradients scaled as Adam would a random projection",
    paper="arXiv:2412.05270",
    code=("https://pypi.org/project/apollo-torch",),
    checked="trajectory",
    against="the authors' package apollo-torch 1.0.3, given its random numbers",
    deviations="no limit of the norm after a gradient of 0, where that of the authors is about 1e-8",
    kind="optimizer",
)
class Apollo(LowRank):
    """Plain gradients, each channel of which is scaled as Adam scales a random projection of it.

        P = independent normal numbers of variance 1 / rank  anew every `update_proj_gap` updates
        R = P^T G
        m = beta_1 m + (1 - beta_1) R;  v = beta_2 v + (1 - beta_2) R^2;  N = m / (sqrt(v) + epsilon)
        s = ||N|| / (||R|| + 1e-8)                           for each column, or for the whole matrix
        X = s G, its norm limited to 1.01 times that of the last X
        w = w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) sqrt(scale) X
        w = (1 - lr weight_decay) w

    What is a matrix, how it is turned and what becomes of all else is as in `GaLore`. P is drawn in each update from `seed`,
    the place of the variable and the number of the gap, so it takes no memory and is the same after a pause. Each backend
    draws its own numbers, and so does XLA on TensorFlow. The moments go on unchanged when P changes. X has no limit after a
    gradient of 0, where that of the authors is about 1e-8.

    State: for a matrix 2 rank n float32 numbers and one more, where n is its longer side: 2 bytes for each parameter at a
    quarter of the shorter side, 0.03 at a rank of 1 and a shorter side of 256. With singular vectors, P too. Two for each
    parameter of all else.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        rank: The number of directions, at most the shorter side of each matrix. Defaults to `None`, for a quarter of the
            shorter side, rounded up, as in the paper.
        update_proj_gap: For how many updates P stays. Defaults to `200`.
        scale: Its root multiplies the update of matrices, above 0. Defaults to `1.0`.
        scale_type: Whether s is for each `"channel"` or for the whole `"tensor"`. Defaults to `"channel"`.
        scale_front: Whether X is multiplied by the root of `scale` before its norm is limited, which differs through
            the 1e-8 in the limit only. Defaults to `False`.
        proj: `"random"`; or singular vectors as in `GaLore`, by `"svd"` or `"randomized_svd"`. Defaults to `"random"`.
        beta_1: Decay rate of the mean of R, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of its squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-6`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        exclude_from_projection: Regular expressions; Adam updates a variable if one is found in its path. Defaults to
            `None`, for none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a variable are inputs. Defaults
            to `None`, as in `GaLore`.
        seed: An int, for P, as for stochastic rounding. Defaults to `0`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if `rank` is larger than the shorter
            side of a matrix, or a variable has no more axes than in `input_axes`.

    Reference:
        Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance, arXiv:2412.05270. Trajectories agree with the authors'
        package apollo-torch 1.0.3, given its random numbers. Before version 4, the `APOLLO` of pytorch_optimizer is another
        method.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((64, 64)))
    >>> optimizer = Apollo(learning_rate=0.1, rank=1)
    >>> optimizer.apply([keras.ops.eye(64)], [w])
    >>> optimizer.state_bytes_per_parameter()
    0.1259765625
    """

    matrix_numbers = ("length",)

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        rank: int | None = None,
        update_proj_gap: int = 200,
        scale: float = 1.0,
        scale_type: str = "channel",
        scale_front: bool = False,
        proj: str = "random",
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: WeightDecay = None,
        exclude_from_projection: Patterns = None,
        input_axes: Mapping[str, int] | None = None,
        seed: int = 0,
        **options: Unpack[LowRankOptions],
    ) -> None:
        validation.one_of("proj", proj, ("random", "svd", "randomized_svd"))
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
        self.scale_type = validation.one_of("scale_type", scale_type, ("channel", "tensor"))
        self.scale_front = scale_front

    def direction(self, g: Tensor, p: Tensor, r: Tensor, n: Tensor, state: OptimizerState) -> Tensor:
        x = g * (channel_scale(n, r) if self.scale_type == "channel" else tensor_scale(n, r))
        root = self.scale**0.5
        return limited(root * x, state) if self.scale_front else root * limited(x, state)
