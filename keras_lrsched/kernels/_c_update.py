"""The C interface of ops/kernels through `ctypes`, for PyTorch and for NumPy arrays."""

import ctypes
import functools
import itertools

from keras_lrsched.kernels._build import library
from keras_lrsched.kernels._threads import pool

NUMBERS = 12
PARTS = 4
FLOAT32, BFLOAT16 = 0, 1
LARGE = 64  # chunks, below which threads are not worth their start


class Tensor(ctypes.Structure):
    """klr_tensor."""

    _fields_ = (
        ("w", ctypes.c_void_p),
        ("g", ctypes.c_void_p),
        ("slots", ctypes.c_void_p * 2),
        ("size", ctypes.c_int64),
        ("w_dtype", ctypes.c_int32),
        ("g_dtype", ctypes.c_int32),
        ("learning_rate", ctypes.c_float),
        ("weight_decay", ctypes.c_float),
        ("adapted", ctypes.c_int32),
        ("index", ctypes.c_int32),
        ("blocks", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("parts", ctypes.c_void_p * PARTS * 2),
        ("code_block", ctypes.c_int64),
        ("code", ctypes.c_int32),
    )


class Settings(ctypes.Structure):
    """klr_settings."""

    _fields_ = (
        ("numbers", ctypes.c_float * NUMBERS),
        ("seed", ctypes.c_uint32 * 2),
        ("stochastic_rounding", ctypes.c_int32),
    )


@functools.cache
def load():
    """The library, with the types of its functions."""
    loaded = ctypes.CDLL(str(library("core")))
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    loaded.klr_find_method.argtypes = [ctypes.c_char_p]
    loaded.klr_instruction_set.restype = ctypes.c_char_p
    loaded.klr_parts.argtypes = [integer]
    loaded.klr_plan.argtypes = [pointer, integer, pointer]
    loaded.klr_plan_sums.argtypes = [ctypes.c_int, pointer, integer, pointer]
    loaded.klr_valid_blocks.argtypes = [pointer]
    loaded.klr_sum.argtypes = [ctypes.c_int, pointer, integer, pointer, pointer, integer, integer, pointer]
    loaded.klr_reduce.argtypes = [integer, pointer, pointer, pointer]
    loaded.klr_update.argtypes = [ctypes.c_int, pointer, integer, pointer, pointer, integer, integer, pointer]
    return loaded


def update(method, tensors, settings, threads=1):
    """Updates in place what `tensors`, a list of `Tensor`, point to."""
    kernels, n = load(), len(tensors)
    number = kernels.klr_find_method(method.encode())
    array, pointer = (Tensor * n)(*tensors), ctypes.byref(settings)
    first, pieces = (ctypes.c_int64 * (n + 1))(), (ctypes.c_int64 * (n + 1))()
    kernels.klr_plan(array, n, first)
    totals = None
    if kernels.klr_has_sums(number):
        kernels.klr_plan_sums(number, array, n, pieces)
        sums, totals = (ctypes.c_double * (2 * pieces[n]))(), (ctypes.c_double * (2 * n))()
        common = number, array, n, pieces, pointer
        _spread(lambda begin, end: kernels.klr_sum(*common, begin, end, sums), pieces[n], threads)
        kernels.klr_reduce(n, pieces, sums, totals)
    common = number, array, n, first, pointer
    _spread(lambda begin, end: kernels.klr_update(*common, begin, end, totals), first[n], threads)


def _spread(function, chunks, threads):
    """Calls `function(begin, end)` for all chunks; `ctypes` lets other threads run meanwhile."""
    if threads == 1 or chunks < LARGE:
        function(0, chunks)
        return
    borders = [chunks * part // threads for part in range(threads + 1)]
    for each in [pool(threads).submit(function, *part) for part in itertools.pairwise(borders)]:
        each.result()
