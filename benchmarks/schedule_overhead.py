"""Cost of a schedule, beside Keras' CosineDecay with the same warmup.

One row a schedule. All are measured in the same run and in turn, the median of the repetitions is shown:

    int         microseconds of `schedule(step)` with a Python int, in eager code
    variable    the same with an optimizer's `iterations`
    graph       microseconds a step in a loop inside one `tf.function` that sums `schedule(step)`, less those of the same
                loop around nothing
    XLA ns      nanoseconds a step in such a loop compiled by XLA, which fuses and vectorizes it; nothing taken off
    (ratio)     to CosineDecay, in the same column
    values      milliseconds of `schedule.values(100_000)`

Run: python benchmarks/schedule_overhead.py --repeats 7      (KERAS_BACKEND chooses the backend)
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras.optimizers.schedules import CosineDecay

from keras_lrsched import schedules

TOTAL, WARMUP = 10_000, 1_000
CALLS = 100  # eager calls in one repetition
LOOPS = {"graph": 10_000, "XLA ns": 1_000_000}  # steps of a compiled loop, enough to take milliseconds


def candidates():
    """name -> schedule; each group begins with the CosineDecay that it is compared to."""
    for warmup in (0, WARMUP):
        suffix = f" + warmup {warmup}" if warmup else ""
        options = {"warmup_target": 0.1, "warmup_steps": warmup} if warmup else {}
        yield f"Keras CosineDecay{suffix}", CosineDecay(0.0 if warmup else 0.1, TOTAL - warmup, **options)
        for name in schedules.names():
            yield name + suffix, schedules.get(name, 0.1, TOTAL, warmup_steps=warmup)


def compiled_loop(schedule, kind):
    """A function without arguments that sums `LOOPS[kind]` values in one compiled call."""
    steps = LOOPS[kind]
    if keras.backend.backend() == "jax":
        import jax
        import jax.numpy as jnp

        def body(step, total):
            return total + jnp.asarray(schedule(step), "float32")

        # The start is an argument, so that XLA cannot compute the loop beforehand.
        loop = jax.jit(lambda start: jax.lax.fori_loop(start, start + steps, body, jnp.float32(0)))
        return lambda: loop(0).block_until_ready()

    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # or it warns that every schedule is traced once

    @tf.function(jit_compile=kind == "XLA ns")
    def loop(start):
        def body(step, total):
            return step + 1, total + tf.cast(schedule(step), "float32")

        return tf.while_loop(lambda step, _: step < start + steps, body, (start, tf.constant(0.0)))[1]

    start = tf.constant(0, "int64")
    return lambda: loop(start).numpy()


def repeated(schedule, argument):
    def call():
        for _ in range(CALLS):
            schedule(argument)

    return call


def measurements(schedule):
    """column -> (what to time, by what to divide the seconds)."""
    iterations = keras.optimizers.SGD().iterations
    iterations.assign(TOTAL // 2)
    found = {
        "int": (repeated(schedule, TOTAL // 2), CALLS / 1e6),
        "variable": (repeated(schedule, iterations), CALLS / 1e6),
    }
    for kind in {"tensorflow": ("graph", "XLA ns"), "jax": ("XLA ns",)}.get(keras.backend.backend(), ()):
        found[kind] = compiled_loop(schedule, kind), LOOPS[kind] / (1e9 if kind == "XLA ns" else 1e6)
    if hasattr(schedule, "values"):
        found["values"] = (lambda: schedule.values(100_000)), 1e-3
    return found


def measure(repeats):
    """(name, column) -> median, in the column's unit."""
    tasks = {(name, key): task for name, schedule in candidates() for key, task in measurements(schedule).items()}
    nothing = measurements(lambda step: keras.ops.cast(step, "float32"))
    tasks |= {("nothing", key): nothing[key] for key in nothing if key == "graph"}
    times = {key: [] for key in tasks}
    for repeat in range(repeats + 1):
        for key, (function, unit) in tasks.items():
            start = time.perf_counter()
            function()
            if repeat:  # the first is the warm-up: tracing, compiling, caches
                times[key].append((time.perf_counter() - start) / unit)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {(name, key): value - medians.get(("nothing", key), 0.0) for (name, key), value in medians.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    times = measure(parser.parse_args().repeats)

    names = dict.fromkeys(name for name, _ in times if name != "nothing")
    keys = [key for key in ("int", "variable", "graph", "XLA ns") if any(key == column for _, column in times)]
    print(f"Keras {keras.__version__}, {keras.backend.backend()}. Microseconds (ratio to Keras), XLA in ns, values in ms")
    print(f"{'':32}" + "".join(f"{key:>18}" for key in keys) + f"{'values':>9}")
    baseline = None
    for name in names:
        if name.startswith("Keras"):
            baseline = name
        cells = (f"{times[name, key]:10.3f} ({times[name, key] / times[baseline, key]:4.2f})" for key in keys)
        values = f"{times[name, 'values']:9.2f}" if (name, "values") in times else ""
        print(f"{name:32}" + "".join(f"{cell:>18}" for cell in cells) + values)


if __name__ == "__main__":
    main()
