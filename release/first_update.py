"""Time of the first update by a kernel in a new process without a compiler, from the end of the import.

Each figure is the median of five processes with an empty cache. Fails if a kernel is not called, or takes over a second.

Run: python release/first_update.py tensorflow jax        (`--plain`: plain operations instead)
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

UPDATE = """
import time
import keras
import numpy
from keras_lrsched.optimizers import AdamW

start = time.perf_counter()
weight = keras.Variable(numpy.ones((64, 64), "float32"))
optimizer = AdamW(1e-3, fused={fused})
optimizer.apply([keras.ops.ones((64, 64))], [weight])
numpy.asarray(weight.value)
print(time.perf_counter() - start)
"""
LIMIT = 1.0


def seconds(backend, fused, with_compiler):
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            **{"KERAS_BACKEND": backend, "KERAS_LRSCHED_CACHE": f"{folder}/cache", "TF_CPP_MIN_LOG_LEVEL": "3"},
            **({} if with_compiler else {"CXX": "no-compiler"}),
        }
        command = [sys.executable, "-c", UPDATE.format(fused=fused)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="+")
    parser.add_argument("--plain", action="store_true", help="plain operations")
    parser.add_argument("--with-compiler", action="store_true", help="build what is not prebuilt; once, and without a limit")
    arguments = parser.parse_args()
    for backend in arguments.backends:
        count = 1 if arguments.with_compiler else 5
        found = [seconds(backend, not arguments.plain, arguments.with_compiler) for _ in range(count)]
        print(f"{backend}: {statistics.median(found):.2f} s", flush=True)
        if not arguments.with_compiler and statistics.median(found) > LIMIT:
            sys.exit(f"over {LIMIT} s")


if __name__ == "__main__":
    main()
