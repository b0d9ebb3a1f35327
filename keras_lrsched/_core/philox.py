"""Philox4x32-10: random bits from a counter, the same on every backend and for any split of the work."""

import random
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.backends import view

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def random_bits(shape: Any, seed: Any) -> Any:
    """int32 tensor of random bits: element i, in row-major order, is word i % 4 of the block with the counter i // 4.

    Args:
        shape: The shape of the result.
        seed: A non-negative integer below 2^64; a `keras.random.SeedGenerator`; a tensor of two 32-bit integers; or `None`,
            for a seed by chance (in a compiled function: drawn once, when it is traced).

    Reference:
        Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011). Agrees with the known answers of the authors'
        library, Random123.
    """
    size = ops.prod(ops.convert_to_tensor(shape, "int32")) if _is_dynamic(shape) else int(np.prod(shape, dtype="int64"))
    counter = ops.arange((size + 3) // 4, dtype="int32")
    zero = ops.zeros_like(counter)
    words = ops.stack(philox((counter, zero, zero, zero), key_of(seed)), axis=-1)
    return ops.reshape(ops.reshape(words, (-1,))[:size], shape)


def rounding_noise(shape: Any, seed: Any) -> Any:
    """int32 tensor of 30 random bits, the upper ones of `random_bits`: an int32 has room for a mantissa added to them."""
    return ops.bitwise_and(ops.right_shift(random_bits(shape, seed), 2), 2**30 - 1)


def philox(counter: Any, key: Any) -> Any:
    """Four words for each counter of four words and a key of two, all int32."""

    def one_round(_: Any, state: Any) -> tuple:
        (a, b, c, d), (first, second) = state
        a_high, a_low = _product(a, MULTIPLIERS[0])
        c_high, c_low = _product(c, MULTIPLIERS[1])
        a, c = ops.bitwise_xor(ops.bitwise_xor(c_high, b), first), ops.bitwise_xor(ops.bitwise_xor(a_high, d), second)
        return (a, c_low, c, a_low), (first + _signed(WEYL[0]), second + _signed(WEYL[1]))

    # A loop: with each round on its own, the graph of a model with many random numbers takes minutes to be made.
    words, _ = ops.fori_loop(0, ROUNDS, one_round, (tuple(counter), tuple(key)))
    return words


def key_of(seed: Any) -> tuple:
    """Two int32 scalars."""
    if seed is None:
        seed = random.getrandbits(63)
    if isinstance(seed, keras.random.SeedGenerator):
        seed = seed.next()
    if not ops.is_tensor(seed) and not isinstance(seed, np.ndarray):
        seed = validation.non_negative_int("seed", seed) % 2**64
        return tuple(ops.convert_to_tensor(_signed(word), "int32") for word in (seed % 2**32, seed >> 32))
    if tuple(seed.shape) != (2,):
        raise ValueError(
            f"`seed` must be an integer or a tensor of two integers. Received: seed of shape {tuple(seed.shape)}"
        )
    seed = ops.convert_to_tensor(seed)
    seed = view(seed, "int32") if keras.backend.standardize_dtype(seed.dtype) == "uint32" else ops.cast(seed, "int32")
    return seed[0], seed[1]


def _product(x: Any, constant: int) -> tuple:
    """The upper and the lower 32 bits of x times a constant, from products of 16 bits each."""
    x_high, x_low = _upper(x), ops.bitwise_and(x, 0xFFFF)
    high, low = constant >> 16, constant & 0xFFFF
    inner, outer = x_high * low, x_low * high
    middle = _upper(x_low * low) + ops.bitwise_and(inner, 0xFFFF) + ops.bitwise_and(outer, 0xFFFF)
    return x_high * high + _upper(inner) + _upper(outer) + _upper(middle), x * _signed(constant)


def _upper(x: Any) -> Any:
    """The upper 16 bits; the shift alone would copy the sign."""
    return ops.bitwise_and(ops.right_shift(x, 16), 0xFFFF)


def _signed(word: Any) -> Any:
    return word - 2**32 if word >= 2**31 else word


def _is_dynamic(shape: Any) -> bool:
    return any(not isinstance(size, int) for size in shape)
