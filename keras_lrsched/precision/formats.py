"""Formats: an element type, the block of numbers that shares a scale, and how the scale is found."""

import dataclasses
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched.precision import elements
from keras_lrsched.precision._blocks import GROUP
from keras_lrsched.precision.elements import Element

SCALE_RULES = {
    "e8m0": ("floor", "ceil", "rceil", "even"),
    "float32": ("exact", "power_of_two"),
    "nvfp4": ("six", "four_over_six"),
}
"""The rules that each type of scale can follow; the first is the default."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A low-precision format: elements of at most 8 bits, and one scale for each block of them.

        x ~ scale element

    Scales of type `e8m0` are powers of two in 8 bits (OCP MX). With e the exponent of the largest magnitude in the block,
    and e_max that of the largest element, their exponent is

        floor   e - e_max; a block maximum between the largest element and the next power of two saturates
        ceil    e - e_max, plus one unless the block maximum is a power of two
        rceil   the exponent of (block maximum) / (largest element), rounded up: nothing saturates
        even    e - e_max, after the block maximum was rounded to the mantissa of the element, halves up

    With `ceil` and `even`, a block maximum that would be rounded up to 2^128 is not, but saturates. With `rceil`, it has the
    codes of the reference, and is dequantized to infinity.

    Scales of type `float32` make the block maximum the largest element: `exact`, or by a power of two that is not above that
    (`power_of_two`; the factor on the way in is rounded down). Scales of type `nvfp4` are E4M3, times one float32 number for
    the tensor; `four_over_six` chooses for each block whether its maximum becomes 6 or 4, by the smaller sum of absolute
    errors (6 if they are equal). The errors of a block are added in pairs, an order that all backends share; the reference
    leaves it to PyTorch's `sum`, so that where both sums are almost equal its choice may be the other one.

    Args:
        name: The name of the format.
        element: The `Element` type.
        block: Rows and columns of a block: `(1, 32)` are 32 numbers along the axis that is quantized; `(1, None)` is the
            whole axis; `(16, 16)` also takes 16 rows along the axis before it. `None` is one block for the tensor.
        scale: `"e8m0"`, `"float32"` or `"nvfp4"`.
        scale_rule: See above. Defaults to the first rule of the type of scale.

    Raises:
        ValueError: If an argument is none of these.

    Reference:
        OCP Microscaling Formats (MX) Specification v1.0 (floor). NVIDIA, Pretraining Large Language Models with NVFP4,
        arXiv:2509.25149. Four over six: arXiv:2512.02010. Codes agree with pytorch/ao (floor, rceil) and with the PyTorch
        reference in NVIDIA/TransformerEngine (NVFP4); `ceil` and `even` follow the description in pytorch/ao, and were
        compared with a few numbers worked out by hand.

    Example:

    >>> get_format("MXFP4")
    Format(name='MXFP4', element=E2M1, block=(1, 32), scale='e8m0', scale_rule='floor')
    >>> get_format("MXFP4", scale_rule="rceil").bits_per_value
    4.25
    """

    name: str
    element: Element
    block: tuple[int, int | None] | None
    scale: str
    scale_rule: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.element, Element):
            raise ValueError(f"`element` must be an `Element`. Received: element={self.element!r}")
        validation.one_of("scale", self.scale, tuple(SCALE_RULES))
        object.__setattr__(self, "scale_rule", self.scale_rule or SCALE_RULES[self.scale][0])
        validation.one_of("scale_rule", self.scale_rule, SCALE_RULES[self.scale])
        if self.block is not None:
            self._check_block(*self.block)

    def _check_block(self, rows: int, columns: int | None) -> None:
        validation.positive_int("rows of the block", rows)
        if columns is not None and validation.positive_int("columns of the block", columns) % GROUP[self.element.bits]:
            raise ValueError(
                f"The columns of `block` must fill whole bytes: a multiple of {GROUP[self.element.bits]}. "
                f"Received: block={self.block}"
            )
        if rows > 1 and columns is None:
            raise ValueError(f"`block` with more than one row must say how many columns. Received: block={self.block}")

    @property
    def rows(self) -> int:
        """Number of rows that share a scale, of those that `axis` is cut into: 1 for formats with blocks along one axis."""
        return 1 if self.block is None else self.block[0]

    @property
    def is_square(self) -> bool:
        """Whether a matrix has the same codes and scales along both of its axes."""
        return self.block is None or self.block[0] == self.block[1]

    @property
    def bits_per_value(self) -> float:
        """Memory of a number in a tensor of whole blocks; scales of whole axes and tensors are left out."""
        if self.block is None or self.block[1] is None:
            return float(self.element.bits)
        return self.element.bits + (32 if self.scale == "float32" else 8) / (self.block[0] * self.block[1])


def _granular(prefix: str, element: Element, **blocks: Any) -> list[Format]:
    """A format for each of several sizes of a block, with a float32 scale."""
    return [Format(prefix + suffix, element, block, "float32", rule) for suffix, (block, rule) in blocks.items()]


_FP8_BLOCKS = {
    "": (None, "exact"),
    "_ROW": ((1, None), "exact"),
    "_BLOCK128": ((1, 128), "power_of_two"),
    "_BLOCK128X128": ((128, 128), "power_of_two"),
}
_INTEGER_BLOCKS = {
    "": (None, "exact"),
    "_CHANNEL": ((1, None), "exact"),
    "_GROUP128": ((1, 128), "exact"),
    "_BLOCK32X32": ((32, 32), "exact"),
}

FORMATS = {
    one.name: one
    for one in (
        *_granular("FP8_E4M3", elements.E4M3, **_FP8_BLOCKS),
        *_granular("FP8_E5M2", elements.E5M2, **_FP8_BLOCKS),
        Format("MXFP8_E4M3", elements.E4M3, (1, 32), "e8m0"),
        Format("MXFP8_E5M2", elements.E5M2, (1, 32), "e8m0"),
        Format("MXFP6_E2M3", elements.E2M3, (1, 32), "e8m0"),
        Format("MXFP6_E3M2", elements.E3M2, (1, 32), "e8m0"),
        Format("MXFP4", elements.E2M1, (1, 32), "e8m0"),
        Format("MXINT8", elements.FIXED8, (1, 32), "e8m0"),
        Format("NVFP4", elements.E2M1, (1, 16), "nvfp4"),
        Format("NVFP4_2D", elements.E2M1, (16, 16), "nvfp4"),
        Format("NVFP4_FOUR_OVER_SIX", elements.E2M1, (1, 16), "nvfp4", "four_over_six"),
        *_granular("INT8", elements.INT8, **_INTEGER_BLOCKS),
        *_granular("INT4", elements.INT4, **_INTEGER_BLOCKS),
    )
}
"""The named formats."""


def get_format(name: str | Format, **changes: Any) -> Format:
    """The named format, or a `Format` as it is, with some of its fields changed.

    Args:
        name: A key of `FORMATS`, or a `Format`.
        **changes: Fields of `Format`, such as `scale_rule`.

    Raises:
        ValueError: If there is no such format; the message lists those that there are.

    Example:

    >>> get_format("INT8_GROUP128", block=(1, 64)).block
    (1, 64)
    """
    if not isinstance(name, Format):
        if not isinstance(name, str) or name not in FORMATS:
            raise ValueError(f"`format` must be a `Format` or one of {', '.join(FORMATS)}. Received: format={name!r}")
        name = FORMATS[name]
    return dataclasses.replace(name, **changes)
