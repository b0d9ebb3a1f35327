"""Whole training steps with optimizers for matrices, beside AdamW with its compiled update, in turns.

Three models: the digits network, the character model, and eight layers of width 512 with a batch of 1024 rows. The last
columns are the products of matrices in an update alone, of symmetric ones half, in units of 10^9 floating-point operations,
the time that they take at the rate of one large product of the framework, and that time in proportion to the difference to
AdamW.

`--step` measures the update alone, of eight matrices of 512 x 512, beside `torch.optim.Muon` (in a process of its own) and
`keras.optimizers.Muon`; `--products` the iterations alone, compiled and in plain operations.

Run: python benchmarks/matrix_optimizers.py [--step | --products] [--rounds 9] [--models digits,pydoc,wide]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np

from keras_lrsched import optimizers
from keras_lrsched.optimizers import _newton_schulz
from keras_lrsched.study.workloads.digits import Digits
from keras_lrsched.study.workloads.pydoc import PydocTopics

WIDTH, LAYERS, BATCH = 512, 8, 1024
OPTIMIZERS = {
    "Muon": lambda: optimizers.get("muon"),
    "Muon, 5 of Polar Express": lambda: optimizers.get("muon", orthogonalize="polar_express"),
    "NorMuon": lambda: optimizers.get("normuon"),
    "Scion": lambda: optimizers.Scion(1e-3, momentum=0.1),
    "SOAP, refresh each 10": lambda: optimizers.SOAP(1e-3, precondition_frequency=10),
    "Shampoo, roots each 10": lambda: optimizers.Shampoo(1e-3, grafting="adam", epsilon=1e-8, precondition_frequency=10),
    "PSGDKron": lambda: optimizers.PSGDKron(1e-3),
}


def wide():
    """A model and a batch."""
    layers = [keras.layers.Dense(WIDTH, "relu") for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers, keras.layers.Dense(10)])
    rng = np.random.default_rng(0)
    return model, (rng.normal(size=(BATCH, WIDTH)).astype("float32"), rng.integers(10, size=BATCH))


def of_workload(kind):
    workload = kind()
    return workload.build_model(), workload.train_batch(0, seed=0)


MODELS = {"digits": lambda: of_workload(Digits), "pydoc": lambda: of_workload(PydocTopics), "wide": wide}


def training_step(model_name, optimizer, jit):
    """The optimizer, and a function that trains on one batch of it."""
    keras.utils.set_random_seed(0)
    model, batch = MODELS[model_name]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit)
    return lambda: model.train_on_batch(*batch)


def milliseconds(step, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats * 1e3


def newton_schulz_operations(optimizer):
    """Of the products of an update of Muon: for (short, long), 5 times half of A = X X^T, half of A A, and A X."""
    total = 0
    for view in getattr(optimizer, "_views", ()):
        if hasattr(view, "inputs"):
            short, long = sorted((view.inputs, view.outputs))
            total += optimizer.ns_steps * (view.stack or 1) * (3 * short**2 * long + short**3)
    return total


def peak():
    """Floating-point operations a second of one product of the framework, 1024 x 1024."""
    x = keras.ops.ones((1024, 1024))
    product = keras.ops.matmul
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        product = tf.function(keras.ops.matmul, jit_compile=True)
    product(x, x)
    seconds = min(_seconds(lambda: keras.ops.convert_to_numpy(product(x, x))) for _ in range(10))
    return 2 * 1024**3 / seconds


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(model_name, jit, names, rounds):
    adamw = training_step(model_name, optimizers.AdamW(1e-3), jit)
    repeats = {"digits": 30, "pydoc": 10, "wide": 1}[model_name]
    adamw(), adamw()
    rate = peak()
    for name in names:
        optimizer = OPTIMIZERS[name]()
        step = training_step(model_name, optimizer, jit)
        start = time.perf_counter()
        step(), step()
        built = time.perf_counter() - start
        pairs = [[milliseconds(each, max(repeats, 10)) for each in (step, adamw)] for _ in range(rounds)]
        own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(mine / plain for mine, plain in pairs)
        operations = newton_schulz_operations(optimizer) if "uon" in name else 0
        limit = operations / rate * 1e3
        print(
            f"{model_name:8}{'XLA' if jit else 'graph':7}{name:26}{own:9.2f}{other:9.2f}{ratio:7.2f}{built:8.1f}"
            + (f"{operations / 1e9:9.3f}{limit:9.2f}" if operations else "")
            + (f"{limit / (own - other):7.2f}" if operations and own > other else ""),
            flush=True,
        )


# The update alone


def update_of_keras(optimizer):
    values = [np.random.default_rng(i).normal(size=(WIDTH, WIDTH)).astype("float32") for i in range(LAYERS)]
    weights = [keras.Variable(value / 23, name=f"w{i}") for i, value in enumerate(values)]
    gradients = [keras.ops.convert_to_tensor(value) for value in values]
    optimizer.build(weights)
    if keras.backend.backend() != "tensorflow":
        return lambda: optimizer.apply(gradients, weights)
    import tensorflow as tf

    function = tf.function(lambda grads: optimizer.apply(grads, weights), jit_compile=True, autograph=False)
    return lambda: function(gradients)


TORCH = """
import json, time, torch
torch.set_num_threads({threads})
w = [torch.nn.Parameter(torch.randn({width}, {width}) / 23) for _ in range({layers})]
for each in w: each.grad = torch.randn_like(each)
optimizer = torch.optim.Muon(w, lr=0.02)
times = []
for _ in range({rounds}):
    start = time.perf_counter(); optimizer.step(); times.append((time.perf_counter() - start) * 1e3)
print(json.dumps(times))
"""


def compare_updates(rounds):
    ours = update_of_keras(optimizers.Muon.original())
    theirs = update_of_keras(keras.optimizers.Muon(0.02, rms_rate=None))
    for step in (ours, theirs):
        step(), step()
    pairs = [[milliseconds(step, 1) for step in (ours, theirs)] for _ in range(rounds)]
    mine, of_keras = (statistics.median(column) for column in zip(*pairs, strict=True))
    limit = 5 * 4 * WIDTH**3 * LAYERS / peak() * 1e3
    print(f"update of {LAYERS} matrices of {WIDTH} x {WIDTH}; the limit of the products is {limit:.0f} ms")
    print(f"ours                  {mine:9.1f} ms")
    print(f"keras.optimizers.Muon {of_keras:9.1f} ms  {of_keras / mine:.2f} x")
    script = TORCH.format(width=WIDTH, layers=LAYERS, rounds=rounds + 2, threads=os.cpu_count())
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if out.returncode:
        print(f"torch.optim.Muon: {out.stderr.splitlines()[-1]}")
        return
    of_torch = statistics.median(json.loads(out.stdout)[2:])
    print(f"torch.optim.Muon      {of_torch:9.1f} ms  {of_torch / mine:.2f} x (its products are bfloat16)")


SHAPES = {
    "8 of 512 x 512": [(512, 512)] * 8,
    "2048 x 2048": [(2048, 2048)],
    "4 of 256 x 1024": [(256, 1024)] * 4,
    "16 of 128 x 128": [(128, 128)] * 16,
    "8 of 64 x 64, 4 of 64 x 256": [(64, 64)] * 8 + [(64, 256)] * 4,
    "9 x 16, 144 x 32, 512 x 64": [(9, 16), (144, 32), (512, 64)],
}


def compare_products(rounds):
    """Five iterations, in graphs."""
    import tensorflow as tf

    print(f"{'':30}{'compiled':>9}{'plain':>9}{'ratio':>7}{'limit':>9}")
    rate = peak()
    for name, shapes in SHAPES.items():
        xs = [tf.random.normal(shape) for shape in shapes]
        ways = []
        for setting in ("auto", "0"):
            os.environ["KERAS_LRSCHED_FUSED"] = setting
            ways.append(tf.function(lambda xs=xs: _newton_schulz.orthogonalized_all(xs, 5)))
            ways[-1]()
        repeats = max(1, 20 // len(shapes))
        pairs = [[milliseconds(lambda way=way: way()[0].numpy(), repeats) for way in ways] for _ in range(rounds)]
        own, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(other / mine for mine, other in pairs)
        operations = sum(5 * (3 * min(shape) ** 2 * max(shape) + min(shape) ** 3) for shape in shapes)
        print(f"{name:30}{own:9.2f}{plain:9.2f}{ratio:7.2f}{operations / rate * 1e3:9.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", action="store_true", help="the update alone")
    parser.add_argument("--products", action="store_true", help="the iterations alone, on TensorFlow")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", default="digits,pydoc,wide")
    quick = [name for name in OPTIMIZERS if "," not in name]
    parser.add_argument("--optimizers", nargs="+", default=quick, choices=OPTIMIZERS)
    parser.add_argument("--all", action="store_true", help="every optimizer of this script")
    parser.add_argument("--graph", action="store_true", help="without XLA, too")
    arguments = parser.parse_args()
    print(f"Keras {keras.__version__}, {keras.backend.backend()}, {os.cpu_count()} cores; milliseconds, in the median")
    if arguments.step:
        compare_updates(arguments.rounds)
        return
    if arguments.products:
        compare_products(arguments.rounds)
        return
    names = list(OPTIMIZERS) if arguments.all else arguments.optimizers
    print(f"{'model':8}{'':7}{'':26}{'step':>9}{'AdamW':>9}{'ratio':>7}{'built s':>8}{'GFLOP':>9}{'limit':>9}{'share':>7}")
    for model_name in arguments.models.split(","):
        for jit in (True, False) if arguments.graph else (True,):
            compare(model_name, jit, names, arguments.rounds)


if __name__ == "__main__":
    main()
