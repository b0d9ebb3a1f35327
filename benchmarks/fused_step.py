"""One update of all variables of a transformer: compiled kernels beside what frameworks do, and beside what memory allows.

    ms       the median of the rounds
    bytes    what the update has to read and write, per parameter
    limit    milliseconds of loops in C that read and write as much, in the same order, in the same rounds
    ratio    to that limit, the median of the rounds

Variables and gradients are float32. The gradients are those of the round before: they lie in memory, not in a cache.

Run: python benchmarks/fused_step.py --millions 25,100 [lion adamw lars lamb sgd]
"""

import argparse
import concurrent.futures
import ctypes
import functools
import json
import os
import statistics
import subprocess
import tempfile
import time
import weakref
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"  # the limit gets the pages that frameworks get

import keras
import numpy as np
import tensorflow as tf

from keras_lrsched import optimizers
from keras_lrsched.kernels import _c_interface, _targets, parameters_in_order

THREADS = os.cpu_count() or 1
BYTES = {"sgd": 20, "lion": 20, "adamw": 28, "lars": 28, "lamb": 40}  # LAMB: 24 and 16
PASSES = {
    "sgd": ["one_slot"],
    "lion": ["one_slot"],
    "adamw": ["two_slots"],
    "lars": ["lars_first", "one_slot"],
    "lamb": ["lamb_first", "lamb_last"],
}
OURS = {
    "sgd": functools.partial(optimizers.SGD, momentum=0.9),
    "lion": optimizers.Lion,
    "adamw": optimizers.AdamW,
    "lars": optimizers.Lars,
    "lamb": optimizers.Lamb,
}
KERAS = {
    "sgd": lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
    "lion": lambda: keras.optimizers.Lion(1e-3, weight_decay=0.1),
    "adamw": lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.1),
    "lamb": lambda: keras.optimizers.Lamb(1e-3, weight_decay=0.1),
}


def shapes(millions):
    """Twelve blocks, an embedding of 16 widths, and all the small variables."""
    width = int((millions * 1e6 / (12 * 12 + 16)) ** 0.5) // 64 * 64
    block = [(width, 3 * width), (3 * width,), (width, width), (width,), (width, 4 * width), (4 * width,)]
    block += [(4 * width, width), (width,), (width,), (width,), (width,), (width,)]
    return [(16 * width, width), *12 * block]


def values(shapes, seed, scale):
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal(shape, "float32")).astype("float32") for shape in shapes]


def limit_row(name, shapes):
    """One array of the same size, in C, by as many threads as there are processors."""
    size = sum(int(np.prod(shape)) for shape in shapes)
    arrays = [np.full(size, 1e-3, "float32") for _ in range(4)]  # what nobody wrote to takes no memory
    library = _limits()
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)
    sums = [np.zeros(1024, "float32") for _ in range(THREADS)]
    borders = [size * part // THREADS for part in range(THREADS + 1)]

    def step():
        for each in PASSES[name]:
            function = getattr(library, each)
            jobs = []
            for part in range(THREADS):
                pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*arrays, sums[part])]
                ends = ctypes.c_int64(borders[part]), ctypes.c_int64(borders[part + 1])
                jobs.append(pool.submit(function, *pointers, *ends))
            for job in jobs:
                job.result()

    return step


def _limits():
    folder = tempfile.mkdtemp()
    source = Path(__file__).with_name("limit.c")
    library = f"{folder}/limit.so"
    flags = ["-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-shared", "-fPIC"]
    subprocess.run([*_targets.compiler(), "-x", "c", *flags, str(source), "-o", library], check=True)
    return ctypes.CDLL(library)


def core_row(name):
    """The kernel by itself: the C interface, as PyTorch has it, on arrays of NumPy."""

    def make(shapes):
        arrays = [
            values(shapes, 0, 0.02),
            values(shapes, 1, 1e-3),
            *([np.zeros(s, "float32") for s in shapes] for _ in "mv"),
        ]
        named = {"gradient_scale": 1.0, **OURS[name](1e-3).kernel_parameters(keras.ops.ones(()))}
        parameters = [float(value) for value in parameters_in_order(name, named)]
        tensors = []
        for i, (w, g, m, v) in enumerate(zip(*arrays, strict=True)):
            slots = m.ctypes.data, v.ctypes.data
            tensors.append(_c_interface.Tensor(w.ctypes.data, g.ctypes.data, slots, w.size, 0, 0, 1e-3, 0.1, True, i, 1, 1))
        return lambda arrays=arrays: _c_interface.update(name, tensors, parameters, threads=THREADS)

    return make


def keras_row(optimizer, jit):
    """On TensorFlow: gradients are variables that the graph reads, as it reads what a backward pass has left."""

    def make(shapes):
        variables = [keras.Variable(value) for value in values(shapes, 0, 0.02)]
        gradients = [tf.Variable(value) for value in values(shapes, 1, 1e-3)]
        made = optimizer()
        made.build(variables)
        step = tf.function(lambda: made.apply([g.read_value() for g in gradients], variables), jit_compile=jit)
        return lambda: (step(), variables[-1].value.numpy())

    return make


def empty_row(name):
    """Cost of a call: a function of TensorFlow that gets the same variables, gradients and state, and updates nothing."""

    def make(shapes):
        variables = [keras.Variable(value) for value in values(shapes, 0, 0.02)]
        gradients = [tf.Variable(value) for value in values(shapes, 1, 1e-3)]
        made = OURS[name](1e-3)
        made.build(variables)
        held = [variable.value for variable in (*variables, *made.variables)]

        def touch():
            read = [gradient.read_value().op for gradient in gradients]
            tf.group(*read, *(tf.raw_ops.VarIsInitializedOp(resource=each.handle).op for each in held))

        return tf.function(touch)

    return make


def torch_row(name):
    import torch

    torch.set_num_threads(THREADS)

    def make(shapes):
        parameters = [torch.nn.Parameter(torch.from_numpy(value)) for value in values(shapes, 0, 0.02)]
        for parameter, gradient in zip(parameters, values(shapes, 1, 1e-3), strict=True):
            parameter.grad = torch.from_numpy(gradient)
        kind = {"adamw": torch.optim.AdamW, "sgd": lambda p, **o: torch.optim.SGD(p, momentum=0.9, **o)}[name]
        return kind(parameters, lr=1e-3, weight_decay=0.1, fused=True).step

    return make


def optax_row(name):
    import jax
    import optax

    def make(shapes):
        kind = {"lion": optax.lion, "adamw": optax.adamw, "lamb": optax.lamb, "lars": optax.lars, "sgd": _optax_sgd}[name]
        method = kind(1e-3)
        weights = [jax.numpy.asarray(value) for value in values(shapes, 0, 0.02)]
        gradients = [jax.numpy.asarray(value) for value in values(shapes, 1, 1e-3)]
        held = [weights, method.init(weights)]

        def update(weights, state, gradients):
            updates, state = method.update(gradients, state, weights)
            return optax.apply_updates(weights, updates), state

        compiled = jax.jit(update, donate_argnums=(0, 1))

        def step():
            held[:] = compiled(*held, gradients)
            jax.block_until_ready(held)

        return step

    return make


def addons_row(name):
    """TensorFlow Addons, in an environment and a process of its own."""
    del name
    python = Path(__file__).parents[1] / ".venv-tfa" / "bin" / "python"
    if not python.exists():
        raise ImportError("its environment is made by `make .venv-tfa/made`")

    def make(shapes):
        command = [str(python), str(Path(__file__).with_name("tfa_step.py")), json.dumps(shapes)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def step():
            process.stdin.write("go\n")
            process.stdin.flush()
            if process.stdout.readline() != "done\n":
                raise RuntimeError("TensorFlow Addons has failed; see above")

        weakref.finalize(step, process.kill)
        return step

    return make


def _optax_sgd(rate):
    import optax

    return optax.sgd(rate, momentum=0.9)


def rows(name):
    decay = {} if name == "sgd" else {"weight_decay": 0.1}
    made = {
        "ours, C interface": core_row(name),
        "TensorFlow, no update": empty_row(name),
        "ours, graph": keras_row(lambda: OURS[name](1e-3, fused=True, **decay), False),
        "ours, XLA": keras_row(lambda: OURS[name](1e-3, fused=True, **decay), True),
        "ours without kernel, graph": keras_row(lambda: OURS[name](1e-3, fused=False, **decay), False),
        "ours without kernel, XLA": keras_row(lambda: OURS[name](1e-3, fused=False, **decay), True),
    }
    if name in KERAS:
        made |= {"Keras, graph": keras_row(KERAS[name], False), "Keras, XLA": keras_row(KERAS[name], True)}
    others = (
        ("PyTorch, fused", ("adamw", "sgd"), torch_row),
        ("optax, jit", tuple(OURS), optax_row),
        ("TensorFlow Addons, graph", ("lamb",), addons_row),
    )
    for label, names, make in others:
        if name in names:
            try:
                made[label] = make(name)
            except ImportError as error:
                print(f"{label}: {error}")
    return made


def measure(name, millions, rounds, wanted):
    """Prints a line a row. Each row takes turns with the limit, and lets go of its memory before the next."""
    own = shapes(millions)
    size = sum(int(np.prod(shape)) for shape in own)
    limit = limit_row(name, own)
    limit()
    for label, make in rows(name).items():
        if wanted not in label:
            continue
        step = make(own)
        step(), step()
        pairs = []
        for number in range(rounds):
            order = (limit, step) if number % 2 else (step, limit)
            taken = {id(each): _seconds(each) for each in order}
            pairs.append((taken[id(limit)], taken[id(step)]))
        ratio = statistics.median(taken / least for least, taken in pairs)
        best = statistics.median(taken for _, taken in pairs) * 1e3
        least = statistics.median(least for least, _ in pairs) * 1e3
        print(f"{name:7}{size / 1e6:8.1f}M  {label:28}{BYTES[name]:6}{best:9.1f}{least:9.1f}{ratio:8.2f}", flush=True)
        del step


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(OURS), help=f"of {', '.join(OURS)}; all if none is given")
    parser.add_argument("--millions", default="25", help="parameters, in millions (default: 25)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", default="", help="a part of their names, as 'C interface' (default: all rows)")
    arguments = parser.parse_args()
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {THREADS} threads")
    print(f"{'method':7}{'size':>9}  {'':28}{'bytes':>6}{'ms':>9}{'limit':>9}{'ratio':>8}")
    for millions in map(float, arguments.millions.split(",")):
        for name in arguments.names:
            measure(name, millions, arguments.rounds, arguments.rows)


if __name__ == "__main__":
    main()
