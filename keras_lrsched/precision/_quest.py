"""QuEST: a grid that fits a normal distribution, and a gradient that is trusted where rounding moved little."""

from typing import Any, Literal

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.precision._hadamard import hadamard
from keras_lrsched.precision._residuals import unless_exporting

CLIPS = {
    1: 0.7978845587140913,
    2: 1.4935346200015913,
    3: 2.051068354131873,
    4: 2.513930578568423,
    5: 2.9160938834961225,
    6: 3.276597282593217,
    7: 3.6010497188221655,
    8: 3.884938678807525,
}
"""Where a grid of so many bits is clipped, in standard deviations, for the smallest squared error of normal numbers."""


@register(
    title="QuEST: a grid for normal numbers and a trusted gradient",
    paper="arXiv:2502.05003",
    code=("IST-DASLab/QuEST",),
    checked="vectors",
    against="`TrustQuantizer`, `HalfHadamardTrustQuantizer` and `HadamardTrustQuantizer`",
    kind="quantizer",
)
def quest(x: Any, bits: int = 4, rotation: Literal["half", "full", "none"] = "half") -> Any:
    """`x` on a centered grid of 2^bits levels, after a Hadamard transform of its last axis.

        h = x H,  s = sqrt(mean h^2),  a = c_bits s + 1e-8,  d = 2 a / (2^bits - 1)
        y = d round(clip(h, -a, a) / d + 1/2) - d/2

    The mean is over the last axis. The gradient by h is that of y where |y - h| <= s c_bits / (2^bits - 1), else 0. Two
    operands of a matrix product may both stay rotated, because the rotations cancel.

    Args:
        x: A floating-point tensor.
        bits: 1 to 8. Defaults to `4`.
        rotation: `"half"`: the result stays rotated; `"full"`: it is rotated back; `"none"`: h = x. The first two
            need a last axis whose size is a multiple of 128. Defaults to `"half"`.

    Raises:
        ValueError: If an argument is none of these.

    Reference:
        Panferov et al., QuEST: Stable Training of LLMs with 1-Bit Weights and Activations, arXiv:2502.05003. Agrees with the
        authors' code, IST-DASLab/QuEST (`TrustQuantizer`, `HalfHadamardTrustQuantizer`, `HadamardTrustQuantizer`).

    Example:

    >>> keras.ops.convert_to_numpy(quest(keras.ops.array([[1.0, -1.0, 0.1, -3.0]]), bits=1, rotation="none")).round(4)
    array([[ 1.3237, -1.3237,  1.3237, -1.3237]], dtype=float32)
    """
    validation.one_of("bits", bits, tuple(CLIPS))
    validation.one_of("rotation", rotation, ("half", "full", "none"))
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    rotated = ops.cast(x, "float32") if rotation == "none" else hadamard(ops.cast(x, "float32"), 128)
    y = _trusted(rotated, bits)
    return ops.cast(hadamard(y, 128, inverse=True) if rotation == "full" else y, dtype)


def on_grid(x: Any, bits: int, axis: int = -1) -> tuple[Any, Any]:
    """-> (`x` on its grid of 2^bits levels, 1 where the gradient is trusted and else 0), without a transform."""
    clip, steps = CLIPS[bits], 2**bits - 1
    deviation = ops.sqrt(ops.mean(ops.square(x), axis=axis, keepdims=True))
    edge = clip * deviation + 1e-8
    step = 2 * edge / steps
    y = step * ops.round(ops.clip(x, -edge, edge) / step + 0.5) - step / 2
    return y, ops.cast(ops.absolute(y - x) <= deviation * (clip / steps), "float32")


def _trusted(x: Any, bits: int) -> Any:
    @unless_exporting
    def quantized(x: Any) -> Any:
        y, mask = on_grid(x, bits)

        def grad(*args: Any, upstream: Any = None) -> Any:
            return (args[0] if upstream is None else upstream) * mask

        return y, grad

    return quantized(x)
