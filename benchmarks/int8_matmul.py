"""Products of int8 matrices, beside what TensorFlow, its XLA and PyTorch make of integers and of floating-point numbers.

    ms       the median of the rounds; all rows take their turn in each round
    best     the fastest round
    cpu      processor time of all threads together, the least of the rounds: what other processes hardly disturb
    ratio    how many times as long as ours in int32 the row takes, the median of the rounds

All rows get what they multiply ready: numbers are quantized beforehand. Rows in TensorFlow are graphs, and make a new result
each time. Results in int32 are compared with ours before they are timed.

Run: python benchmarks/int8_matmul.py --rounds 15 [1024x1024x1024 2048x2048x2048 2048x4096x1024 2048x1024x4096]
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf

from keras_lrsched.precision import int8_matmul

THREADS = os.cpu_count() or 1
SHAPES = ["1024x1024x1024", "2048x2048x2048", "2048x4096x1024", "2048x1024x4096"]  # the last two: a transformer's
OURS = "ours, int32"
PAUSE = 0.05  # seconds before each row: threads of the one before wait awake for more work, and would take its time


def constants(m, n, k):
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.integers(-127, 128, shape, "int8")) for shape in ((m, k), (k, n)))
    channels = [tf.constant(rng.random(size, "float32")) for size in (m, n)]
    blocks = [tf.constant(rng.random((-(-rows // 32), -(-columns // 32)), "float32")) for rows, columns in ((m, k), (k, n))]
    return a, b, channels, blocks


def rows(m, n, k):
    """name -> a function without arguments."""
    a, b, channels, blocks = constants(m, n, k)
    a_transposed, b_transposed = (tf.constant(tf.transpose(each)) for each in (a, b))
    made = {
        OURS: graph(lambda a, b: int8_matmul(a, b), a, b),
        "ours, int32, A^T B": graph(lambda a, b: int8_matmul(a, b, transpose_a=True), a_transposed, b),
        "ours, int32, A B^T": graph(lambda a, b: int8_matmul(a, b, transpose_b=True), a, b_transposed),
        "ours, scales of rows and columns": graph(int8_matmul, a, b, *channels),
        "ours, scales of 32 x 32": graph(int8_matmul, a, b, *blocks),
        "TensorFlow, float32": graph(tf.matmul, tf.cast(a, "float32"), tf.cast(b, "float32")),
        "TensorFlow, bfloat16": graph(tf.matmul, tf.cast(a, "bfloat16"), tf.cast(b, "bfloat16")),
        "TensorFlow, u8 s8, QuantizedMatMulWithBias": graph(quantized, tf.cast(tf.cast(a, "int32") + 128, "uint8"), b),
        "TensorFlow XLA, int8": graph(wide, a, b, jit=True),
        "TensorFlow, int8": graph(wide, a, b),
    }
    made |= of_torch(a.numpy(), b.numpy())
    expected = made[OURS]()
    for name in ("TensorFlow XLA, int8", "TensorFlow, int8", "PyTorch, _int_mm"):
        if name in made and not np.array_equal(made[name](), expected):
            raise ValueError(f"{name} differs from ours")
    return made


def graph(function, *arguments, jit=False):
    compiled = tf.function(function, jit_compile=jit)
    return lambda: compiled(*arguments).numpy()


def wide(a, b):
    return tf.matmul(a, b, output_type=tf.int32)


def quantized(a, b):
    """oneDNN's product, in its own integers."""
    low, high = tf.constant(-1.0), tf.constant(1.0)
    a, b, bias = tf.bitcast(a, tf.quint8), tf.bitcast(b, tf.qint8), tf.zeros((b.shape[1],))
    product = tf.raw_ops.QuantizedMatMulWithBias(
        a=a, b=b, bias=bias, min_a=low, max_a=high, min_b=low, max_b=high, input_quant_mode="SCALED"
    )
    return tf.bitcast(product[0], tf.int32)


def of_torch(a, b):
    try:
        import torch
    except ImportError as error:
        print(f"PyTorch: {error}")
        return {}
    torch.set_num_threads(THREADS)
    a, b = torch.from_numpy(a.copy()), torch.from_numpy(b.copy())
    wide = a.to(torch.bfloat16), b.to(torch.bfloat16)
    return {"PyTorch, _int_mm": lambda: torch._int_mm(a, b).numpy(), "PyTorch, bfloat16": lambda: torch.mm(*wide)}


def measure(shape, rounds, names):
    m, n, k = map(int, shape.split("x"))
    made = rows(m, n, k)
    taken: dict[str, list] = {name: [] for name in made if not names or name in (OURS, *names)}
    for number in range(rounds):
        for name, all_rounds in taken.items():
            if all_rounds and all_rounds[0][0] > 0.5 and number > 2:
                continue  # three rounds are enough of what is that slow
            time.sleep(PAUSE)
            start, cpu = time.perf_counter(), time.process_time()
            made[name]()
            all_rounds.append((time.perf_counter() - start, time.process_time() - cpu))
    for name, all_rounds in taken.items():
        ratio = statistics.median(each / ours for (each, _), (ours, _) in zip(all_rounds, taken[OURS], strict=False))
        walls, cpus = ([1e3 * seconds for seconds in each] for each in zip(*all_rounds, strict=True))
        columns = f"{statistics.median(walls):9.2f}{min(walls):9.2f}{min(cpus):9.2f}{ratio:8.2f}"
        print(f"{shape:17}{name:46}{columns}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES, help=f"m x n x k (default: {' '.join(SHAPES)})")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--names", nargs="*", default=[], help="rows to time beside ours (default: all)")
    arguments = parser.parse_args()
    print(f"TensorFlow {tf.__version__}, {THREADS} threads")
    print(f"{'m x n x k':17}{'':46}{'ms':>9}{'best':>9}{'cpu':>9}{'ratio':>8}")
    for shape in arguments.shapes:
        measure(shape, arguments.rounds, arguments.names)


if __name__ == "__main__":
    main()
