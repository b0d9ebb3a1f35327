"""APOLLO-Mini: APOLLO with one random direction and one scale for each matrix."""

from typing import Unpack

from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate
from keras_lrsched.optimizers.apollo import Apollo, ApolloOptions


@register(
    "apollo_mini",
    title="APOLLO with one scale for each matrix",
    paper="arXiv:2412.05270",
    code=("https://pypi.org/project/apollo-torch",),
    checked="trajectory",
    against="the authors' package apollo-torch 1.0.3, given its random numbers",
    deviations="no limit of the norm after a gradient of 0, where that of the authors is about 1e-8",
    kind="optimizer",
)
class ApolloMini(Apollo):
    """Plain gradients, each matrix of which is scaled as Adam scales one random projection of it.

    This is `Apollo` with other defaults: `rank=1, scale=128.0, scale_type="tensor"`, where the root of 128, 11.3, makes up
    for what a rank of 1 misses. State: for a matrix 2 n + 1 float32 numbers, where n is its longer side, so 0.016 bytes for
    each parameter if both are 512; two numbers for each parameter of all else.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        rank: The number of directions. Defaults to `1`.
        update_proj_gap: For how many updates they stay. Defaults to `200`.
        scale: Its root multiplies the update of matrices, above 0. Defaults to `128.0`.
        scale_type: Whether a scale is for each `"channel"` or for the whole `"tensor"`. Defaults to `"tensor"`.
        **options: See `Apollo`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance, arXiv:2412.05270. Trajectories agree with the authors'
        package apollo-torch 1.0.3, given its random numbers.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((512, 512)))
    >>> optimizer = ApolloMini(learning_rate=0.1)
    >>> optimizer.apply([keras.ops.eye(512)], [w])
    >>> optimizer.state_bytes_per_parameter() < 0.016
    True
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        rank: int | None = 1,
        update_proj_gap: int = 200,
        scale: float = 128.0,
        scale_type: str = "tensor",
        **options: Unpack[ApolloOptions],
    ) -> None:
        super().__init__(learning_rate, rank, update_proj_gap, scale, scale_type, **options)
