"""Compile times and memory of quantizers in plain Keras operations, as they run without compiled kernels.

For each format, rounding and estimator of the gradient: the processor seconds and the memory that the first call of
`fake_quantize` with its gradient takes, in a compiled function, and the time of later calls.

Run: python benchmarks/plain_quantizers.py [--formats MXFP4,NVFP4] [--xla yes|no] [--shape 256,512]
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_LRSCHED_FUSED"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

from keras_lrsched.precision import FORMATS, fake_quantize

BACKEND = keras.backend.backend()
CASES = (("nearest", "ste"), ("stochastic", "ste"), ("nearest", "dge"), ("nearest", "trust"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=",".join(FORMATS), help="names in FORMATS")
    parser.add_argument("--xla", choices=["yes", "no"], default="yes", help="jit_compile of tf.function")
    parser.add_argument("--shape", default="256,512")
    arguments = parser.parse_args()
    x = np.random.default_rng(0).normal(size=tuple(map(int, arguments.shape.split(",")))).astype("float32")
    print(f"{BACKEND}, jit_compile={arguments.xla == 'yes' or BACKEND == 'jax'}, shape {x.shape}\n")
    print("| format | rounding | gradient | first call, processor s | its memory, MB | later calls, ms |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    compiled(lambda x: x * 2, arguments.xla == "yes")(x)  # what the first compilation of a process takes by itself
    for name in arguments.formats.split(","):
        for rounding, gradient in CASES:
            function = compiled(quantizer(name, rounding, gradient), arguments.xla == "yes")
            seconds, megabytes = cost(lambda function=function: function(x))
            later = min(cost(lambda function=function: function(x))[0] for _ in range(3))
            print(f"| {name} | {rounding} | {gradient} | {seconds:.2f} | {megabytes:.0f} | {1e3 * later:.1f} |", flush=True)


def quantizer(name: str, rounding: str, gradient: str) -> Callable[[Any], Any]:
    def quantized(x: Any) -> Any:
        return fake_quantize(x, name, rounding=rounding, seed=1 if rounding == "stochastic" else None, gradient=gradient)

    return quantized


def compiled(function: Callable[[Any], Any], xla: bool) -> Callable[[Any], Any]:
    """The function and its gradient."""
    if BACKEND == "jax":
        import jax

        return jax.jit(jax.value_and_grad(lambda x: ops.sum(function(x) * x)))
    import tensorflow as tf

    @tf.function(jit_compile=xla)
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x)

    return lambda x: run(tf.constant(x))


def cost(function: Callable[[], Any]) -> tuple[float, float]:
    """Processor seconds of a call, and how much its peak of memory lies above what the process had."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present size
    before, start = memory("VmRSS"), time.process_time()
    keras.tree.map_structure(ops.convert_to_numpy, function())
    return time.process_time() - start, memory("VmHWM") - before


def memory(field: str) -> float:
    """Megabytes, from the kernel's count for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
