"""The C interface of ops/kernels through `ctypes`: for PyTorch and NumPy arrays, by their addresses, and for sizes on JAX.

The structures and functions are those of update.h, quantize.h, matmul.h and orthogonalize.h. `ctypes` lets other threads run
during a call.
"""

import ctypes
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence

from keras_lrsched.kernels._build import library
from keras_lrsched.kernels._threads import pool

INT, INT64, POINTER, TEXT = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
RANGE = (INT64, INT64)  # begin, end

FUNCTIONS: dict[str, dict[str, tuple]] = {
    "update": {
        "klr_find_method": (INT, TEXT),
        "klr_method_name": (TEXT, INT),
        "klr_parameter_names": (TEXT, INT),
        "klr_parameter_count": (INT, INT),
        "klr_has_sums": (INT, INT),
        "klr_in_blocks": (INT, INT),
        "klr_parts": (INT, INT64),
        "klr_takes_code": (INT, INT, INT64, INT64),
        "klr_instruction_set": (TEXT,),
        "klr_valid_blocks": (INT, POINTER),
        "klr_plan": (None, POINTER, INT64, POINTER),
        "klr_plan_sums": (None, INT, POINTER, INT64, POINTER),
        "klr_sum": (None, INT, POINTER, INT64, POINTER, POINTER, *RANGE, POINTER),
        "klr_reduce": (None, INT64, POINTER, POINTER, POINTER),
        "klr_update": (None, INT, POINTER, INT64, POINTER, POINTER, *RANGE, POINTER),
    },
    "quantize": {
        "klr_quantize_instruction_set": (TEXT,),
        "klr_quantize_valid": (INT, POINTER),
        "klr_quantize_stored": (None, POINTER, POINTER),
        "klr_quantize_phases": (INT, POINTER),
        "klr_quantize_chunks": (INT64, POINTER),
        "klr_quantize_amax": (None, POINTER, POINTER, *RANGE, POINTER),
        "klr_quantize_fit": (None, POINTER, POINTER, POINTER),
        "klr_quantize": (None, POINTER, POINTER, POINTER, *RANGE, POINTER, POINTER),
        "klr_fake_quantize": (None, POINTER, POINTER, POINTER, *RANGE, POINTER),
        "klr_dequantize": (None, POINTER, POINTER, POINTER, POINTER, *RANGE, POINTER),
    },
    "matmul": {
        "klr_matmul_instruction_set": (TEXT, INT),
        "klr_matmul_error": (TEXT, POINTER),
        "klr_matmul_scratch": (INT64, POINTER),
        "klr_matmul_pieces": (INT64, POINTER),
        "klr_matmul_tiles": (INT64, POINTER),
        "klr_matmul_pack": (None, POINTER, POINTER, *RANGE),
        "klr_matmul_compute": (None, POINTER, POINTER, *RANGE),
    },
    "orthogonalize": {
        "klr_orthogonalize_instruction_set": (TEXT,),
        "klr_orthogonalize_error": (TEXT, POINTER),
        "klr_orthogonalize_scratch": (INT64, POINTER),
        "klr_orthogonalize_phases": (INT64, POINTER),
        "klr_orthogonalize_pieces": (INT64, POINTER, INT64),
        "klr_orthogonalize_run": (None, POINTER, POINTER, INT64, *RANGE),
    },
}
"""The types of the result and of the arguments of each function, by the family that its library belongs to."""

FLOAT32, BFLOAT16 = 0, 1
OUTPUTS = ("int32", "scaled", "blocks")
"""Of a product, in the order of matmul.h."""

LARGE_UPDATE = 64  # chunks, below which threads are not worth their start
LARGE_TENSOR = 8  # chunks of a tensor that is quantized
LARGE_PRODUCT = 2**24  # multiplications
LARGE_ORTHOGONALIZATION = 2**14  # entries


@functools.cache
def load(family: str) -> ctypes.CDLL:
    """The library of a family, with the types of its functions."""
    loaded = ctypes.CDLL(str(library("core", family)))
    for name, (result, *arguments) in FUNCTIONS[family].items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def _spread(function: Callable[[int, int], object], count: int, threads: int) -> None:
    """Call `function(begin, end)` for all of `count`, in so many threads."""
    borders = [count * part // threads for part in range(threads + 1)]
    first, *others = itertools.pairwise(borders)
    waiting = [pool(threads).submit(function, *part) for part in others]
    function(*first)
    for each in waiting:
        each.result()


# Updates of optimizers


class Tensor(ctypes.Structure):
    """klr_tensor."""

    _fields_ = (
        ("w", POINTER),
        ("g", POINTER),
        ("slots", POINTER * 2),
        ("size", INT64),
        ("w_dtype", ctypes.c_int32),
        ("g_dtype", ctypes.c_int32),
        ("learning_rate", ctypes.c_float),
        ("weight_decay", ctypes.c_float),
        ("adapted", ctypes.c_int32),
        ("index", ctypes.c_int32),
        ("blocks", INT64),
        ("inner", INT64),
        ("parts", POINTER * 4 * 2),
        ("code_block", INT64),
        ("code", ctypes.c_int32),
    )


class Settings(ctypes.Structure):
    """klr_settings."""

    _fields_ = (("parameters", POINTER), ("seed", ctypes.c_uint32 * 2), ("stochastic_rounding", ctypes.c_int32))


def update(
    method: str,
    tensors: Sequence[Tensor],
    parameters: Sequence[float],
    seed: Iterable[int] = (0, 0),
    stochastic_rounding: bool = False,
    threads: int = 1,
) -> None:
    """Update in place what `tensors` point to; `parameters` are in the order of update_rules.h."""
    kernels, n = load("update"), len(tensors)
    number = kernels.klr_find_method(method.encode())
    if number < 0 or len(parameters) != kernels.klr_parameter_count(number):
        raise ValueError(f"There is no compiled update {method!r} with {len(parameters)} parameters.")
    array, values = (Tensor * n)(*tensors), (ctypes.c_float * len(parameters))(*parameters)
    settings = Settings(ctypes.addressof(values), tuple(seed), stochastic_rounding)
    pointer = ctypes.byref(settings)
    totals = None
    if kernels.klr_has_sums(number):
        pieces = (INT64 * (n + 1))()
        kernels.klr_plan_sums(number, array, n, pieces)
        sums, totals = (ctypes.c_double * (2 * pieces[n]))(), (ctypes.c_double * (2 * n))()
        common = number, array, n, pieces, pointer
        own_threads = threads if pieces[n] >= LARGE_UPDATE else 1
        _spread(lambda begin, end: kernels.klr_sum(*common, begin, end, sums), pieces[n], own_threads)
        kernels.klr_reduce(n, pieces, sums, totals)
    chunks = (INT64 * (n + 1))()
    kernels.klr_plan(array, n, chunks)
    own_threads = threads if chunks[n] >= LARGE_UPDATE else 1
    of_all = number, array, n, chunks, pointer
    _spread(lambda begin, end: kernels.klr_update(*of_all, begin, end, totals), chunks[n], own_threads)


# Quantization


class Quantizer(ctypes.Structure):
    """klr_quantizer."""

    _fields_ = (
        *((name, INT64) for name in ("outer", "columns", "inner", "rows", "block_rows", "block_columns")),
        *((name, ctypes.c_int32) for name in ("element", "rule", "stochastic", "dtype")),
        ("seed", ctypes.c_uint32 * 2),
        ("hadamard", ctypes.c_int32),
        ("signs", POINTER),
    )


class StoredSizes(ctypes.Structure):
    """klr_stored."""

    _fields_ = tuple((name, INT64) for name in ("code_rows", "code_bytes", "scale_rows", "scale_columns", "scale_bytes"))


def make_quantizer(
    shape: Sequence[int],
    spec: Sequence[int],
    dtype: int,
    seed: Iterable[int] = (0, 0),
    hadamard: int = 0,
    signs: int | None = None,
) -> Quantizer:
    """A `Quantizer` for a tensor of the shape (outer, columns, inner); for `spec` see `keras_lrsched.kernels.quantize`.

    `hadamard` is the size of a transform that comes first, `signs` the address of so many numbers in float32.

    Raises:
        ValueError: If there is no kernel for it.
    """
    made = Quantizer(*shape, *spec, dtype, tuple(word % 2**32 for word in seed), hadamard, signs)
    if not load("quantize").klr_quantize_valid(ctypes.byref(made)):
        raise ValueError(f"There is no such quantization of a tensor of shape {tuple(shape)}. Received: {tuple(spec)}")
    return made


def stored_sizes(quantizer: Quantizer) -> StoredSizes:
    """The sizes of codes and scales."""
    sizes = StoredSizes()
    load("quantize").klr_quantize_stored(ctypes.byref(quantizer), ctypes.byref(sizes))
    return sizes


def quantize(quantizer: Quantizer, x: int, codes: int, scales: int, tensor_scale: int | None, threads: int = 1) -> None:
    """Read and write at addresses; `tensor_scale` is written for NVFP4."""
    kernels, own = load("quantize"), ctypes.byref(quantizer)
    fitted = _fit(quantizer, x, threads)
    _each_chunk(quantizer, threads, lambda begin, end: kernels.klr_quantize(own, x, fitted, begin, end, codes, scales))
    if fitted is not None and tensor_scale is not None:
        ctypes.memmove(tensor_scale, ctypes.addressof(fitted) + 4, 4)


def fake_quantize(quantizer: Quantizer, x: int, y: int, threads: int = 1) -> None:
    """Read and write at addresses."""
    kernels, own = load("quantize"), ctypes.byref(quantizer)
    fitted = _fit(quantizer, x, threads)
    _each_chunk(quantizer, threads, lambda begin, end: kernels.klr_fake_quantize(own, x, fitted, begin, end, y))


def dequantize(quantizer: Quantizer, codes: int, scales: int, tensor_scale: int | None, y: int, threads: int = 1) -> None:
    """Read and write at addresses."""
    kernels = load("quantize")
    common = ctypes.byref(quantizer), codes, scales, tensor_scale
    _each_chunk(quantizer, threads, lambda begin, end: kernels.klr_dequantize(*common, begin, end, y))


def _fit(quantizer: Quantizer, x: int, threads: int) -> ctypes.Array[ctypes.c_float] | None:
    """Of formats in two phases {factor, scale} of the tensor."""
    kernels, own = load("quantize"), ctypes.byref(quantizer)
    if kernels.klr_quantize_phases(own) == 1:
        return None
    amax = (ctypes.c_uint32 * kernels.klr_quantize_chunks(own))()
    _each_chunk(quantizer, threads, lambda begin, end: kernels.klr_quantize_amax(own, x, begin, end, amax))
    fitted = (ctypes.c_float * 2)()
    kernels.klr_quantize_fit(own, amax, fitted)
    return fitted


def _each_chunk(quantizer: Quantizer, threads: int, function: Callable[[int, int], object]) -> None:
    chunks = load("quantize").klr_quantize_chunks(ctypes.byref(quantizer))
    _spread(function, chunks, threads if chunks >= LARGE_TENSOR else 1)


# Products of int8 matrices


class Product(ctypes.Structure):
    """klr_matmul."""

    _fields_ = (
        *((name, POINTER) for name in ("a", "b", "c", "a_scales", "b_scales")),
        *((name, INT64) for name in ("m", "n", "k", "a_scales_size", "b_scales_size")),
        *((name, ctypes.c_int32) for name in ("transpose_a", "transpose_b", "output", "instruction_set")),
    )


def check_product(product: Product) -> None:
    """Raise a `ValueError` if sizes and scales do not fit."""
    if error := load("matmul").klr_matmul_error(ctypes.byref(product)):
        raise ValueError(f"Product of {product.m} x {product.k} and {product.k} x {product.n}: {error.decode()}.")


def scratch_size(product: Product) -> int:
    """The number of bytes that `multiply` needs, with room to begin at a multiple of 64."""
    return load("matmul").klr_matmul_scratch(ctypes.byref(product)) + 64


def multiply(product: Product, scratch: int, threads: int = 1) -> None:
    """Write the product. `scratch` is the address of as many bytes as `scratch_size` returns."""
    kernels, pointer = load("matmul"), ctypes.byref(product)
    scratch = -(-scratch // 64) * 64
    threads = threads if product.m * product.n * product.k >= LARGE_PRODUCT else 1
    _spread(lambda *part: kernels.klr_matmul_pack(pointer, scratch, *part), kernels.klr_matmul_pieces(pointer), threads)
    _spread(lambda *part: kernels.klr_matmul_compute(pointer, scratch, *part), kernels.klr_matmul_tiles(pointer), threads)


# Orthogonalization of matrices


class Matrix(ctypes.Structure):
    """klr_matrix."""

    _fields_ = (("start", POINTER), ("end", POINTER), ("rows", INT64), ("columns", INT64))


class Orthogonalization(ctypes.Structure):
    """klr_orthogonalize."""

    _fields_ = (
        ("matrices", ctypes.POINTER(Matrix)),
        ("count", INT64),
        ("coefficients", POINTER),
        ("steps", INT64),
        ("safety", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("threads", INT64),
    )


def orthogonalization_scratch(job: Orthogonalization) -> int:
    """The number of bytes that `orthogonalize` needs, with room to begin at a multiple of 64."""
    return load("orthogonalize").klr_orthogonalize_scratch(ctypes.byref(job)) + 64


def orthogonalize(job: Orthogonalization, scratch: int, threads: int = 1) -> None:
    """Write the results. `scratch` is the address of as many bytes as `orthogonalization_scratch` returns."""
    kernels, pointer = load("orthogonalize"), ctypes.byref(job)
    scratch = -(-scratch // 64) * 64
    size = sum(job.matrices[i].rows * job.matrices[i].columns for i in range(job.count))
    threads = threads if size >= LARGE_ORTHOGONALIZATION else 1
    for phase in range(kernels.klr_orthogonalize_phases(pointer)):
        count = kernels.klr_orthogonalize_pieces(pointer, phase)
        _spread(lambda *part, phase=phase: kernels.klr_orthogonalize_run(pointer, scratch, phase, *part), count, threads)
