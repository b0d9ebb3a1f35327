"""Compile times and memory of quantizers in plain Keras operations, as they run without compiled kernels.

For each format, rounding and estimator of the gradient: the processor seconds and the memory that the first call of
`fake_quantize` with its gradient takes, in a compiled function, and the time of later calls. Then the same for a training
step of two quantized `Dense` layers, by each recipe.

Run: python benchmarks/plain_quantizers.py [--formats MXFP4,NVFP4] [--recipes nvfp4] [--xla yes|no] [--axis 0]
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

from keras_lrsched.precision import E2M1, FORMATS, Format, fake_quantize, get_recipe, quantize_model, recipe_names

BACKEND = keras.backend.backend()
OTHERS = {
    "E2M1_BLOCK128": Format("E2M1_BLOCK128", E2M1, (1, 128), "float32"),
    "E2M1_ROW": Format("E2M1_ROW", E2M1, (1, None), "float32"),
}
"""Formats of recipes that have no name of their own."""

CASES = (("nearest", "ste"), ("stochastic", "ste"), ("nearest", "dge"), ("nearest", "trust"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=",".join({**FORMATS, **OTHERS}), help="names in FORMATS; `none`")
    parser.add_argument("--recipes", default=",".join(recipe_names()), help="names of recipes; `none`")
    parser.add_argument("--xla", choices=["yes", "no"], default="yes", help="jit_compile of tf.function")
    parser.add_argument("--axis", type=int, default=-1)
    parser.add_argument("--shape", default="256,512")
    arguments = parser.parse_args()
    x = np.random.default_rng(0).normal(size=tuple(map(int, arguments.shape.split(",")))).astype("float32")
    print(f"{BACKEND}, jit_compile={arguments.xla == 'yes' or BACKEND == 'jax'}, shape {x.shape}\n")
    xla = arguments.xla == "yes"
    compiled(lambda x: x * 2, xla)(x)  # what the first compilation of a process takes by itself
    print("| | rounding | gradient | first call, processor s | its memory, MB | later calls, ms |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for name in _names(arguments.formats):
        for rounding, gradient in CASES:
            function = compiled(quantizer(name, arguments.axis, rounding, gradient), xla)
            report(f"{name} | {rounding} | {gradient}", lambda function=function: function(x))
    for name in _names(arguments.recipes):
        step = training_step(name, xla)
        report(f"`{name}`, a training step | | ", step)


def _names(text: str) -> list[str]:
    return [] if text == "none" else text.split(",")


def report(label: str, function: Callable[[], Any]) -> None:
    seconds, megabytes = cost(function)
    later = min(cost(function)[0] for _ in range(3))
    print(f"| {label} | {seconds:.2f} | {megabytes:.0f} | {1e3 * later:.1f} |", flush=True)


def training_step(name: str, xla: bool) -> Callable[[], Any]:
    """A step of two quantized layers of 256 numbers and a head."""
    model = keras.Sequential([keras.Input((256,)), *(keras.layers.Dense(256) for _ in range(2)), keras.layers.Dense(1)])
    settings = {"statistics_steps": 1} if name == "aqt_int4" else {"keep_last": 0.0} if name == "nvfp4" else {}
    quantize_model(model, get_recipe(name, **settings))
    model.compile("sgd", loss="mse", jit_compile=xla)
    x = np.random.default_rng(0).normal(size=(64, 256)).astype("float32")
    return lambda: model.train_on_batch(x, x[:, :1])


def quantizer(name: str, axis: int, rounding: str, gradient: str) -> Callable[[Any], Any]:
    def quantized(x: Any) -> Any:
        seed = 1 if rounding == "stochastic" else None
        return fake_quantize(x, OTHERS.get(name, name), axis, rounding, seed, gradient)

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
