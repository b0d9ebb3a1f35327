"""The element types of low-precision formats: which numbers they have, and the code of each."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from keras import ops

from keras_lrsched.precision import _exact


@dataclasses.dataclass(frozen=True, repr=False)
class Element:
    """A type of at most 8 bits: a sign, an exponent, and a mantissa; below 2^min_exponent, steps of equal size.

        value = +-2^(min_exponent - mantissa) m                            exponent field 0
        value = +-2^(min_exponent - mantissa + field - 1) (2^mantissa + m)  exponent field 1 and above

    Integers are types whose steps are of equal size up to the largest value; their negative codes are two's complements.

    Args:
        name: The name of the type.
        bits: How many bits an element has.
        mantissa: How many bits of them the mantissa has.
        min_exponent: The exponent of the smallest normal number.
        max_code: The code of the largest finite number.
        integer: Whether negative codes are two's complements. Defaults to `False`.
        nan: The code of NaN, or `None` for types without. Defaults to `None`.
        infinity: The code of infinity, or `None` for types without. Defaults to `None`.

    Reference:
        OCP Microscaling Formats (MX) Specification v1.0; Micikevicius et al., FP8 Formats for Deep Learning,
        arXiv:2209.05433. All codes agree with the package `ml_dtypes`.

    Example:

    >>> E2M1.values()[:8]
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ], dtype=float32)
    >>> E4M3.max, E4M3.max_exponent
    (448.0, 8)
    """

    name: str
    bits: int
    mantissa: int
    min_exponent: int
    max_code: int
    integer: bool = False
    nan: int | None = None
    infinity: int | None = None

    def __repr__(self) -> str:
        return self.name

    def magnitude(self, code: int) -> float:
        """The value of a code without its sign bit."""
        field, mantissa = divmod(code, 2**self.mantissa)
        return math.ldexp(mantissa + 2**self.mantissa * (field > 0), max(field, 1) - 1 + self.min_exponent - self.mantissa)

    @property
    def max(self) -> float:
        """The largest finite value."""
        return self.magnitude(self.max_code)

    @property
    def max_exponent(self) -> int:
        """The exponent of the largest finite value."""
        return math.frexp(self.max)[1] - 1

    @property
    def top_gap(self) -> float:
        """The distance between the two largest finite values."""
        return self.max - self.magnitude(self.max_code - 1)

    @functools.cache  # noqa: B019 - the few elements live as long as the module
    def values(self) -> np.ndarray:
        """The value of every code, from 0 up."""
        half = 2 ** (self.bits - 1)
        positive = np.array([self.magnitude(code) for code in range(half)])
        if self.integer:
            return np.concatenate([positive, -self.magnitude(half) + positive]).astype("float32")
        if self.infinity is not None:
            positive[self.infinity], positive[self.infinity + 1 :] = math.inf, math.nan
        elif self.nan is not None:
            positive[self.nan] = math.nan
        return np.concatenate([positive, -positive]).astype("float32")

    def encode(self, x: Any, noise: Any = None) -> Any:
        """The codes of float32 numbers, as int32: the nearest value, ties to even; what is too large becomes the largest.

        `noise`, random integers below 2^30, rounds up or down with probabilities that make the expected value `x`.
        NaN becomes 0 in types without NaN.
        """
        code = ops.minimum(self._magnitude_code(_exact.magnitude(x), noise), self.max_code)
        code = ops.where(ops.isnan(x), self.nan or 0, code)
        negative = _exact.bits(x) < 0
        if self.integer:
            return ops.bitwise_and(ops.where(negative, -code, code), 2**self.bits - 1)
        return ops.where(negative, code + 2 ** (self.bits - 1), code)

    def decode(self, code: Any) -> Any:
        """The values of codes, in float32."""
        return ops.take(ops.convert_to_tensor(self.values()), ops.cast(code, "int32"))

    def _magnitude_code(self, size: Any, noise: Any = None, round_down: bool = False) -> Any:
        exponent = ops.right_shift(size, 23) - 127
        significand = ops.where(exponent > -127, ops.bitwise_or(ops.bitwise_and(size, _exact.MANTISSA), 1 << 23), 0)
        below = ops.maximum(self.min_exponent - exponent, 0)
        places = 23 - self.mantissa + below
        # A shift by more than 30 places is done in two; the first drops only what noise of 30 bits would not see.
        significand = ops.right_shift(significand, ops.clip(places - 30, 0, 30))
        places = ops.minimum(places, 30)
        if round_down:
            steps = ops.right_shift(significand, places)
        elif noise is None:
            steps = _exact.shift_to_nearest(significand, places)
        else:
            steps = ops.right_shift(significand + ops.right_shift(noise, 30 - places), places)
        return ops.left_shift(exponent + below - self.min_exponent, self.mantissa) + steps

    def interval(self, x: Any) -> tuple[Any, Any]:
        """The two neighboring values >= 0 between which |x| lies; the two largest where |x| is beyond them."""
        lower = ops.minimum(self._magnitude_code(_exact.magnitude(x), round_down=True), self.max_code - 1)
        values = ops.convert_to_tensor(np.array([self.magnitude(code) for code in range(self.max_code + 1)], "float32"))
        return ops.take(values, lower), ops.take(values, lower + 1)


E4M3 = Element("E4M3", 8, 3, -6, 0x7E, nan=0x7F)
E5M2 = Element("E5M2", 8, 2, -14, 0x7B, nan=0x7E, infinity=0x7C)
E2M3 = Element("E2M3", 6, 3, 0, 0x1F)
E3M2 = Element("E3M2", 6, 2, -2, 0x1F)
E2M1 = Element("E2M1", 4, 1, 0, 0x7)
FIXED8 = Element("FIXED8", 8, 6, 0, 127, integer=True)
"""Multiples of 1/64, from -127/64 to 127/64: the element of MXINT8."""
INT8 = Element("INT8", 8, 6, 6, 127, integer=True)
INT4 = Element("INT4", 4, 2, 2, 7, integer=True)
