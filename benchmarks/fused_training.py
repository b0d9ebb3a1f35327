"""A whole training step of the character model, with compiled updates and without, in turns.

Two sizes: the workload's own (two layers of width 64), and one of 100 million parameters (eight layers of width 1024).

Run: python benchmarks/fused_training.py [--large]
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras

from keras_lrsched import optimizers
from keras_lrsched.study.workloads.pydoc import PydocTopics


def training_step(workload, name, fused, jit):
    """A function that trains on one batch."""
    model = workload.build_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(getattr(optimizers, name)(1e-4, fused=fused), loss, jit_compile=jit)
    batch = workload.train_batch(0, seed=0)
    return model.count_params(), lambda: model.train_on_batch(*batch)


def milliseconds(step, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats * 1e3


def measure(workload, name, jit, rounds, repeats):
    steps = []
    for fused in (True, False):
        parameters, step = training_step(workload, name, fused, jit)
        step(), step()
        steps.append(step)
    pairs = [[milliseconds(step, repeats) for step in steps] for _ in range(rounds)]
    with_kernel, without = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(own / plain for own, plain in pairs)
    kind = "XLA" if jit else "graph"
    print(f"{name:8}{parameters / 1e6:8.2f}M  {kind:8}{with_kernel:10.2f}{without:10.2f}{ratio:8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="the model of 100 million parameters")
    large = parser.parse_args().large
    workload = PydocTopics()
    if large:
        workload.layers, workload.width, workload.heads, workload.batch_size = 8, 1024, 16, 4
    print(f"Keras {keras.__version__}, {keras.backend.backend()}; milliseconds of a training step, in the median")
    print(f"{'':8}{'size':>9}  {'':8}{'kernel':>10}{'without':>10}{'ratio':>8}")
    for name in ("Lion", "AdamW", "Lamb"):
        for jit in (False, True):
            measure(workload, name, jit, *((7, 1) if large else (15, 10)))


if __name__ == "__main__":
    main()
