"""Quantization, dequantization and both in one pass: compiled kernels beside casts of frameworks, and what memory allows.

    ms       the median of the rounds
    limit    milliseconds of loops in C that read and write as much, in the same rounds
    ratio    to that limit, the median of the rounds
    spread   the smallest and the largest of these ratios

Numbers are float32, every result is new; the limit writes to memory that is there already. Casts of frameworks have no
scale: they read once, where a format with one scale for the tensor reads twice.

Run: python benchmarks/quantize.py --millions 33
"""

import argparse
import concurrent.futures
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_LRSCHED_FUSED"] = "1"
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"  # the limit gets the pages that frameworks get

import ml_dtypes
import numpy as np
import tensorflow as tf

from keras_lrsched.kernels import _targets
from keras_lrsched.precision import NVFP4_SIGNS, dequantize, fake_quantize, hadamard, quantize

THREADS = os.cpu_count() or 1
FORMATS = ("FP8_E4M3", "MXFP8_E4M3", "MXFP4", "NVFP4", "INT8_GROUP128")
IN_TWO_PASSES = ("FP8_E4M3", "NVFP4")
COLUMNS = 4096


def limit_of(passes, x):
    """A function that makes the passes."""
    library, pool = _limits(), concurrent.futures.ThreadPoolExecutor(THREADS)
    codes = np.ones(x.size, "uint8")  # zeros that nobody wrote would take no memory
    arrays = x, codes, np.zeros(x.size, "float32"), np.zeros(x.size, "uint8")
    borders = [x.size * part // THREADS // 16 * 16 for part in range(THREADS + 1)]

    def run():
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        for name in passes:
            ends = [(ctypes.c_int64(borders[part]), ctypes.c_int64(borders[part + 1])) for part in range(THREADS)]
            for job in [pool.submit(getattr(library, name), *pointers, *own) for own in ends]:
                job.result()

    return run


def _limits():
    library = f"{tempfile.mkdtemp()}/limit.so"
    source = Path(__file__).with_name("quantize_limit.c")
    subprocess.run(
        [*_targets.compiler(), "-x", "c", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library], check=True
    )
    return ctypes.CDLL(library)


def our_rows(x):
    """(label, passes of the limit, function)"""
    tensor = tf.constant(x)
    for name in FORMATS:
        size = "nibble" if name.endswith("FP4") else "byte"
        first = ["read"] if name in IN_TWO_PASSES else []
        stored = quantize(tensor, name)
        yield f"ours, {name}, quantize", [*first, f"to_{size}"], lambda name=name: quantize(tensor, name)
        yield f"ours, {name}, dequantize", [f"from_{size}"], lambda stored=stored: dequantize(stored)
        yield f"ours, {name}, both", [*first, "copy"], lambda name=name: fake_quantize(tensor, name)


def other_axis_rows(x):
    """Along the first axis, where neighbors in a block are not neighbors in memory."""
    tensor = tf.constant(x)
    for name in FORMATS:
        size = "nibble" if name.endswith("FP4") else "byte"
        first = ["read"] if name in IN_TWO_PASSES else []
        stored = quantize(tensor, name, axis=0)
        yield f"first axis, {name}, quantize", [*first, f"to_{size}"], lambda name=name: quantize(tensor, name, axis=0)
        yield f"first axis, {name}, dequantize", [f"from_{size}"], lambda stored=stored: dequantize(stored)
        yield f"first axis, {name}, both", [*first, "copy"], lambda name=name: fake_quantize(tensor, name, axis=0)


def rotated_rows(x):
    """NVFP4 after Hadamard transforms of 16: in one pass, and with operations of TensorFlow before, by XLA and eager."""
    tensor, own = tf.constant(x), {"rotation": 16, "signs": tf.constant(NVFP4_SIGNS, "float32")}

    def rotate(x):
        return hadamard(x, 16, signs=NVFP4_SIGNS)

    by_xla = tf.function(rotate, jit_compile=True)
    for name, size, make in (("quantize", "to_nibble", quantize), ("both", "copy", fake_quantize)):
        yield f"ours, NVFP4 rotated, {name}", ["read", size], lambda make=make: make(tensor, "NVFP4", **own)
        yield f"XLA rotates, then {name}", ["read", size], lambda make=make: make(by_xla(tensor), "NVFP4")
        yield f"TensorFlow rotates, then {name}", ["read", size], lambda make=make: make(rotate(tensor), "NVFP4")


def other_rows(x):
    """Casts from and to FP8 E4M3, without a scale."""
    tensor = tf.constant(x)
    codes = tf.cast(tensor, tf.dtypes.experimental.float8_e4m3fn)
    to_float8 = tf.function(lambda x: tf.cast(x, tf.dtypes.experimental.float8_e4m3fn), jit_compile=True)
    to_float32 = tf.function(lambda x: tf.cast(x, tf.float32), jit_compile=True)
    yield "tf.cast to FP8", ["to_byte"], lambda: tf.cast(tensor, tf.dtypes.experimental.float8_e4m3fn)
    yield "tf.cast from FP8", ["from_byte"], lambda: tf.cast(codes, tf.float32)
    yield "XLA cast to FP8", ["to_byte"], lambda: to_float8(tensor)
    yield "XLA cast from FP8", ["from_byte"], lambda: to_float32(codes)
    narrow = x.astype(ml_dtypes.float8_e4m3fn)
    yield "ml_dtypes cast to FP8", ["to_byte"], lambda: x.astype(ml_dtypes.float8_e4m3fn)
    yield "ml_dtypes cast from FP8", ["from_byte"], lambda: narrow.astype("float32")
    yield from torch_rows(x)


def torch_rows(x):
    try:
        import torch
    except ImportError as error:
        print(f"PyTorch: {error}")
        return
    torch.set_num_threads(THREADS)
    tensor = torch.from_numpy(x)
    codes = tensor.to(torch.float8_e4m3fn)
    yield "torch cast to FP8", ["to_byte"], lambda: tensor.to(torch.float8_e4m3fn)
    yield "torch cast from FP8", ["from_byte"], lambda: codes.to(torch.float32)
    try:
        from torchao.prototype.mx_formats.mx_tensor import to_mx
    except ImportError as error:
        print(f"torchao: {error}")
        return
    yield "torchao, MXFP8_E4M3, quantize", ["to_byte"], lambda: to_mx(tensor, torch.float8_e4m3fn, 32)


ROWS = {"ours": our_rows, "axis": other_axis_rows, "rotated": rotated_rows, "others": other_rows}


def measure(label, passes, function, x, rounds):
    """Prints a line; the function and the limit take turns."""
    limit = limit_of(passes, x)
    limit(), function()
    pairs = []
    for number in range(rounds):
        order = (limit, function) if number % 2 else (function, limit)
        taken = {id(each): _seconds(each) for each in order}
        pairs.append((taken[id(limit)], taken[id(function)]))
    ratios = [own / least for least, own in pairs]
    own, least = (statistics.median(each) * 1e3 for each in (list(zip(*pairs, strict=True))[1], [pair[0] for pair in pairs]))
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    print(f"{label:34s}{own:9.1f}{least:9.1f}{statistics.median(ratios):9.2f}   {spread}", flush=True)


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=33.5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", nargs="*", choices=ROWS, help="which rows; all by default")
    arguments = parser.parse_args()
    rows = int(arguments.millions * 1e6) // COLUMNS
    x = np.random.default_rng(0).standard_normal((rows, COLUMNS), "float32")
    print(f"{x.size / 1e6:.1f} million numbers, {THREADS} threads\n{'':34s}{'ms':>9s}{'limit':>9s}{'ratio':>9s}   spread")
    for make in [ROWS[name] for name in arguments.rows or ROWS]:
        for label, passes, function in make(x):
            measure(label, passes, function, x, arguments.rounds)


if __name__ == "__main__":
    main()
