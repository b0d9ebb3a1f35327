"""The C interface of quantization through `ctypes`, for PyTorch and for NumPy arrays."""

import ctypes
import functools
import itertools

from keras_lrsched.kernels._build import library
from keras_lrsched.kernels._threads import pool

FLOAT32, BFLOAT16 = 0, 1
LARGE = 8  # chunks, below which threads are not worth their start


class Quantizer(ctypes.Structure):
    """klr_quantizer."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("outer", "columns", "inner", "rows", "block_rows", "block_columns")),
        *((name, ctypes.c_int32) for name in ("element", "rule", "stochastic", "dtype")),
        ("seed", ctypes.c_uint32 * 2),
        ("hadamard", ctypes.c_int32),
        ("signs", ctypes.c_void_p),
    )


class Stored(ctypes.Structure):
    """klr_stored."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("code_rows", "code_bytes", "scale_rows", "scale_columns", "scale_bytes")
    )


@functools.cache
def load():
    """The library, with the types of its functions."""
    loaded = ctypes.CDLL(str(library("core", "quantize")))
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    loaded.klr_quantize_instruction_set.restype = ctypes.c_char_p
    loaded.klr_quantize_valid.argtypes = [pointer]
    loaded.klr_quantize_stored.argtypes = [pointer, pointer]
    loaded.klr_quantize_phases.argtypes = [pointer]
    loaded.klr_quantize_chunks.argtypes = [pointer]
    loaded.klr_quantize_chunks.restype = integer
    loaded.klr_quantize_amax.argtypes = [pointer, pointer, integer, integer, pointer]
    loaded.klr_quantize_fit.argtypes = [pointer, pointer, pointer]
    loaded.klr_quantize.argtypes = [pointer, pointer, pointer, integer, integer, pointer, pointer]
    loaded.klr_fake_quantize.argtypes = [pointer, pointer, pointer, integer, integer, pointer]
    loaded.klr_dequantize.argtypes = [pointer, pointer, pointer, pointer, integer, integer, pointer]
    return loaded


def make(shape, numbers, dtype, seed=(0, 0), hadamard=0, signs=None):
    """A `Quantizer` for a tensor of the shape (outer, columns, inner); for `numbers` see `keras_lrsched.kernels.quantize`.

    `hadamard` is the size of a transform that comes first, `signs` the address of so many numbers in float32.

    Raises:
        ValueError: If there is no kernel for it.
    """
    made = Quantizer(*shape, *numbers, dtype, tuple(word % 2**32 for word in seed), hadamard, signs)
    if not load().klr_quantize_valid(ctypes.byref(made)):
        raise ValueError(f"There is no such quantization of a tensor of shape {tuple(shape)}. Received: {tuple(numbers)}")
    return made


def stored(quantizer):
    """The sizes of codes and scales."""
    sizes = Stored()
    load().klr_quantize_stored(ctypes.byref(quantizer), ctypes.byref(sizes))
    return sizes


def quantize(quantizer, x, codes, scales, tensor_scale, threads=1):
    """Reads and writes at addresses; `tensor_scale` is written for NVFP4."""
    kernels = load()
    numbers = _fit(quantizer, x, threads)
    own = ctypes.byref(quantizer)
    _spread(lambda begin, end: kernels.klr_quantize(own, x, numbers, begin, end, codes, scales), quantizer, threads)
    if numbers is not None and tensor_scale is not None:
        ctypes.memmove(tensor_scale, ctypes.addressof(numbers) + 4, 4)


def fake_quantize(quantizer, x, y, threads=1):
    """Reads and writes at addresses."""
    kernels = load()
    numbers = _fit(quantizer, x, threads)
    own = ctypes.byref(quantizer)
    _spread(lambda begin, end: kernels.klr_fake_quantize(own, x, numbers, begin, end, y), quantizer, threads)


def dequantize(quantizer, codes, scales, tensor_scale, y, threads=1):
    """Reads and writes at addresses."""
    kernels, own = load(), ctypes.byref(quantizer)
    common = own, codes, scales, tensor_scale
    _spread(lambda begin, end: kernels.klr_dequantize(*common, begin, end, y), quantizer, threads)


def _fit(quantizer, x, threads):
    """Of formats in two phases the numbers of the tensor, {factor, scale}."""
    kernels, own = load(), ctypes.byref(quantizer)
    if kernels.klr_quantize_phases(own) == 1:
        return None
    amax = (ctypes.c_uint32 * kernels.klr_quantize_chunks(own))()
    _spread(lambda begin, end: kernels.klr_quantize_amax(own, x, begin, end, amax), quantizer, threads)
    numbers = (ctypes.c_float * 2)()
    kernels.klr_quantize_fit(own, amax, numbers)
    return numbers


def _spread(function, quantizer, threads):
    """Calls `function(begin, end)` for all chunks; `ctypes` lets other threads run meanwhile."""
    chunks = load().klr_quantize_chunks(ctypes.byref(quantizer))
    if threads == 1 or chunks < LARGE:
        function(0, chunks)
        return
    borders = [chunks * part // threads for part in range(threads + 1)]
    for each in [pool(threads).submit(function, *part) for part in itertools.pairwise(borders)]:
        each.result()
