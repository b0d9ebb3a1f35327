"""Quantization that training can go through: the numbers of a format, with the gradient of an estimator."""

from typing import Any, Literal

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.kernels import quantize as compiled
from keras_lrsched.precision._hadamard import checked_signs, hadamard
from keras_lrsched.precision._quantized import (
    Coded,
    Rounding,
    Seed,
    as_floats,
    decode,
    encode,
    numerics_of_numbers,
    prepare,
    rotate,
)
from keras_lrsched.precision._residuals import unless_exporting
from keras_lrsched.precision._shared import shared
from keras_lrsched.precision.elements import E2M1, Element
from keras_lrsched.precision.formats import Format, get_format

Gradient = Literal["ste", "dge", "trust"]


@register(
    title="quantization with an estimator of the gradient",
    paper="arXiv:1308.3432",
    checked="read",
    against="the papers; `trust` (arXiv:2502.05003) for the scales of the format, see `quest` for the authors' own",
    kind="quantizer",
)
def fake_quantize(
    x: Any,
    format: str | Format,
    axis: int = -1,
    rounding: Rounding = "nearest",
    seed: Seed = None,
    gradient: Gradient = "ste",
    rotation: int = 0,
    signs: Any = None,
) -> Any:
    """`dequantize(quantize(x, ...))` in the dtype of `x`, with an estimator of the gradient.

    In a model that is being exported, numbers that are rounded to the nearest are the same, but computed without operations
    on bits, which other formats do not have.

    With v = x / scale, and the scale taken as a constant, the gradient of the result is multiplied with

        ste     1
        dge     min( |2 (v - l) / d - 1|^(1/5 - 1) / 5, 3 ), v in an interval of the grid from l to l + d
        trust   1 where |decode(code) - v| is at most half the gap between the two largest elements, else 0

    Args:
        x: A floating-point tensor.
        format: A name in `FORMATS`, or a `Format`.
        axis: The axis along which blocks lie. Defaults to `-1`.
        rounding: `"nearest"` or `"stochastic"`, see `quantize`. Defaults to `"nearest"`.
        seed: For stochastic rounding, see `quantize`. Defaults to `None`.
        gradient: `"ste"`, `"dge"` or `"trust"`. Defaults to `"ste"`.
        rotation: Of `x` before, see `quantize`; the result stays rotated, and the gradient is rotated back. Defaults to `0`.
        signs: Those of the rotation. Defaults to `None`: all 1.

    Raises:
        ValueError: If an argument is none of these, or `x` is quantized already.

    Reference:
        Straight-through: Bengio et al., arXiv:1308.3432. DGE: Wang et al., Optimizing Large Language Model Training Using
        FP4 Quantization, arXiv:2501.17116; agrees with the values in the tests of Azure/MS-AMP. Trust: Panferov et al.,
        QuEST, arXiv:2502.05003, for the scales of the format; see `quest` for the authors' own.

    Example:

    >>> keras.ops.convert_to_numpy(fake_quantize(keras.ops.array([0.9, -2.6, 6.0]), "MXFP4"))
    array([ 1., -3.,  6.], dtype=float32)
    """
    format = get_format(format)
    validation.one_of("gradient", gradient, ("ste", "dge", "trust"))
    # The seed is drawn here: the state of a generator must not change within the function that has its own gradient.
    floats, blocks, seed = prepare(x, format, axis, rounding, seed)
    signs = checked_signs(floats, rotation, blocks.axis, signs) if rotation else None
    is_compiled = gradient == "ste" and compiled.usable(format, blocks, [floats])

    @unless_exporting
    def quantized(x: Any) -> Any:
        dtype = keras.backend.standardize_dtype(x.dtype)
        factor = None
        if is_compiled:
            rotated, fused_signs = rotate(as_floats(x), format, blocks, rotation, signs)
            y = compiled.fake_quantize(rotated, format, blocks, seed, fused_signs)
        else:
            rotated = hadamard(ops.cast(x, "float32"), rotation, axis, signs) if rotation else x
            y, factor = plain(rotated, seed, format=format, axis=axis, rounding=rounding, gradient=gradient)
            factor = None if factor is None else ops.cast(factor, dtype)

        def grad(*args: Any, upstream: Any = None) -> Any:
            upstream = args[0] if upstream is None else upstream
            upstream = upstream if factor is None else upstream * factor
            return hadamard(upstream, rotation, axis, signs, inverse=True) if rotation else upstream

        return _saturated(y, dtype), grad

    return quantized(ops.convert_to_tensor(x))


@shared
def plain(x: Any, seed: Any, *, format: Format, axis: int, rounding: Rounding, gradient: Gradient) -> tuple[Any, Any]:
    """-> (the numbers of the format, and the factor of the gradient or `None`), in Keras operations."""
    numerics = numerics_of_numbers(rounding)
    coded, blocks = encode(x, format, axis, rounding, seed, numerics)
    y = blocks.join(decode(coded.codes, coded.scales, coded.tensor_scale, format, numerics))
    if gradient == "ste" or is_exporting():  # an export has no gradient
        return y, None
    return y, blocks.join(estimator_factor(gradient, coded, format.element))


def _saturated(y: Any, dtype: str) -> Any:
    """`y` in the dtype of the input: in float16, a number that was rounded up to 2^16 would be infinite."""
    if keras.backend.standardize_dtype(dtype) == "float16":
        y = ops.where(ops.isfinite(y), ops.clip(y, -65504.0, 65504.0), y)
    return ops.cast(y, dtype)


@register(
    title="the derivative of the differentiable gradient estimator",
    paper="arXiv:2501.17116",
    code=("Azure/MS-AMP",),
    checked="vectors",
    against="the values in the tests of Azure/MS-AMP",
    kind="gradient estimator",
)
def dge_factor(x: Any, element: Element = E2M1, k: int = 5, cap: float = 3.0) -> Any:
    """The derivative of the differentiable gradient estimator, for numbers in units of the element.

        min( |2 (|x| - l) / d - 1|^(1/k - 1) / k, cap )

    Args:
        x: A float32 tensor; beyond the largest element the derivative is that at the largest element.
        element: The `Element` whose grid is meant. Defaults to `E2M1`.
        k: How sharp the steps of the smooth function are. Defaults to `5`.
        cap: The largest factor. Defaults to `3.0`.

    Reference:
        Wang et al., arXiv:2501.17116, equation 8.

    Example:

    >>> keras.ops.convert_to_numpy(dge_factor(keras.ops.array([6.0, 0.25])))
    array([0.2, 3. ], dtype=float32)
    """
    lower, upper = element.interval(x)
    size = ops.minimum(ops.absolute(x), element.max)
    distance = ops.absolute(2 * (size - lower) / (upper - lower) - 1)
    return ops.minimum(ops.power(distance, 1 / k - 1) / k, cap)


def trust_factor(values: Any, codes: Any, element: Element) -> Any:
    """1 where rounding moved a number by no more than half the gap at the top of the grid, else 0."""
    near = ops.absolute(element.decode(codes) - values) <= element.top_gap / 2
    return ops.cast(near, "float32")


def estimator_factor(gradient: Gradient, coded: Coded, element: Element) -> Any:
    """The factor of the gradient by the estimator `"dge"` or `"trust"`, for `Coded` blocks."""
    if gradient == "dge":
        return dge_factor(coded.values, element)
    return trust_factor(coded.values, coded.codes, element)
