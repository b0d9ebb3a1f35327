"""Products of int8 matrices by the C interface of ops/kernels, through `ctypes`: for PyTorch and for NumPy arrays."""

import ctypes
import functools
import itertools

from keras_lrsched.kernels._build import library
from keras_lrsched.kernels._threads import pool

OUTPUTS = ("int32", "scaled", "blocks")
LARGE = 2**24  # products of two numbers, below which threads are not worth their start


class Product(ctypes.Structure):
    """klr_matmul."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "c", "a_scales", "b_scales")),
        *((name, ctypes.c_int64) for name in ("m", "n", "k", "a_scales_size", "b_scales_size")),
        *((name, ctypes.c_int32) for name in ("transpose_a", "transpose_b", "output", "instruction_set")),
    )


@functools.cache
def load():
    """The library, with the types of its functions."""
    loaded = ctypes.CDLL(str(library("core", "matmul")))
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    loaded.klr_matmul_error.argtypes = [pointer]
    loaded.klr_matmul_error.restype = ctypes.c_char_p
    loaded.klr_matmul_instruction_set.restype = ctypes.c_char_p
    for name in ("scratch", "pieces", "tiles"):
        getattr(loaded, f"klr_matmul_{name}").argtypes = [pointer]
        getattr(loaded, f"klr_matmul_{name}").restype = integer
    for name in ("pack", "compute"):
        getattr(loaded, f"klr_matmul_{name}").argtypes = [pointer, pointer, integer, integer]
        getattr(loaded, f"klr_matmul_{name}").restype = None
    return loaded


def check(product):
    """Raises a `ValueError` if sizes and scales do not fit."""
    if error := load().klr_matmul_error(ctypes.byref(product)):
        raise ValueError(f"Product of {product.m} x {product.k} and {product.k} x {product.n}: {error.decode()}.")


def scratch_size(product):
    """How many bytes `multiply` needs, with room to begin at a multiple of 64."""
    return load().klr_matmul_scratch(ctypes.byref(product)) + 64


def multiply(product, scratch, threads=1):
    """Writes the product. `scratch` is the address of as many bytes as `scratch_size` says."""
    kernels, pointer = load(), ctypes.byref(product)
    scratch = -(-scratch // 64) * 64
    threads = threads if product.m * product.n * product.k >= LARGE else 1
    _spread(lambda *part: kernels.klr_matmul_pack(pointer, scratch, *part), kernels.klr_matmul_pieces(pointer), threads)
    _spread(lambda *part: kernels.klr_matmul_compute(pointer, scratch, *part), kernels.klr_matmul_tiles(pointer), threads)


def _spread(function, count, threads):
    """Calls `function(begin, end)` for all of `count`; `ctypes` lets other threads run meanwhile."""
    borders = [count * part // threads for part in range(threads + 1)]
    first, *others = itertools.pairwise(borders)
    waiting = [pool(threads).submit(function, *part) for part in others]
    function(*first)
    for each in waiting:
        each.result()
