"""Times of the first use of compiled code, and of the second one in a new process.

Each library is built into a cache that is empty at first, in a process of its own; then loaded from there by others. The
first of a family, `core`, compiles the kernels, which the others link. "Import" is the import of the package, after Keras,
with a first `Lion` update, less the same with KERAS_LRSCHED_FUSED=0.

Run: python benchmarks/build_times.py
"""

import os
import statistics
import subprocess
import sys
import tempfile

BUILD = """
import time
if {target!r}.startswith("tensorflow"): import tensorflow
if {target!r}.startswith("jax"): import jax
from keras_lrsched.kernels import _build
start = time.perf_counter()
_build.library({target!r}, {family!r})
print(time.perf_counter() - start)
"""
UPDATE = """
import time
import numpy, keras  # whose seconds vary by more than what is measured
start = time.perf_counter()
from keras_lrsched.optimizers import Lion
w = keras.Variable(numpy.ones((64, 64), "float32"))
Lion(1e-3).apply([numpy.ones((64, 64), "float32")], [w])
print(time.perf_counter() - start)
"""
TARGETS = ("core", "jax", "tensorflow", "tensorflow_xla")
FAMILIES = ("update", "quantize", "matmul", "orthogonalize")


def main():
    with tempfile.TemporaryDirectory() as cache:
        print("| library | seconds |\n| --- | ---: |")
        for family in FAMILIES:
            for target in TARGETS:
                print(f"| {family}, {target} | {run(BUILD.format(target=target, family=family), cache):.1f} |", flush=True)
        rounds = [(run(UPDATE, cache, "auto"), run(UPDATE, cache, "0")) for _ in range(12)]
        extra = statistics.median(with_kernel - without for with_kernel, without in rounds[1:])
        print(f"\nimport and first update: {1e3 * extra:.0f} ms more with compiled code, of {rounds[-1][1]:.1f} s")


def run(code, cache, mode="auto"):
    environment = {**os.environ, "KERAS_LRSCHED_CACHE": cache, "KERAS_LRSCHED_FUSED": mode, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
