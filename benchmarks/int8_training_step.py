"""A training step of a transformer block in INT8 and in float32, on a CPU, and what of it is quantization.

    python benchmarks/int8_training_step.py
    python benchmarks/int8_training_step.py --jit

The block has attention of 16 heads and a feed-forward layer of four times the width; its step is a `train_on_batch` with
SGD. Steps alternate between the recipes; medians and ratios to float32 are printed. "Quantization" is the time of all
operands that a recipe quantizes in a step, measured alone, in the median; those that it wrote before are left out.
"""

import argparse
import statistics
import time

import keras
import numpy as np

from keras_lrsched.precision import get_recipe, quantize, quantize_model
from keras_lrsched.precision.layers import projections
from keras_lrsched.precision.model import quantized_layers

WIDTH, HEADS = 1024, 16
RECIPES = (None, "int8_switchback", "int8_jetfire", "bfloat16")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--batch", type=int, default=8, help="sequences (default: 8)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence (default: 256)")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each that are timed (default: 9)")
    arguments = parser.parse_args()
    shape = (arguments.batch, arguments.length, WIDTH)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    models = {name: block(shape, name, arguments.jit) for name in RECIPES}
    times = {name: [] for name in RECIPES}
    for _ in range(arguments.rounds + 2):
        for name, model in models.items():
            started = time.perf_counter()
            model.train_on_batch(x, x)
            times[name].append(time.perf_counter() - started)
    base = statistics.median(times[None][2:])
    print(f"{shape[0] * shape[1]} tokens, width {WIDTH}, {'XLA' if arguments.jit else 'graph'}, {keras.backend.backend()}\n")
    print("| recipe | ms | float32 / it | quantization, ms | share |\n| --- | ---: | ---: | ---: | ---: |")
    for name in RECIPES:
        median = statistics.median(times[name][2:])
        spent = quantization(models[name], shape[0] * shape[1]) if name in ("int8_switchback", "int8_jetfire") else 0.0
        cells = (
            name or "float32",
            f"{1e3 * median:.0f}",
            f"{base / median:.2f}",
            f"{1e3 * spent:.0f}",
            f"{spent / median:.0%}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def block(shape, name, jit):
    """A pre-norm transformer block, compiled."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    inputs = keras.Input(batch_shape=shape)
    x = keras.layers.LayerNormalization()(inputs)
    x = inputs + keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(x, x)
    y = keras.layers.Dense(4 * WIDTH, "gelu")(keras.layers.LayerNormalization()(x))
    y = keras.layers.Dense(WIDTH)(y)
    model = keras.Model(inputs, keras.layers.LayerNormalization()(x + y))
    if name not in (None, "bfloat16"):
        quantize_model(model, name)
    model.compile(keras.optimizers.SGD(1e-3), loss="mse", jit_compile=jit)
    keras.config.set_dtype_policy("float32")
    return model


def quantization(model, tokens):
    """Seconds for all operands that a recipe quantizes in a step."""
    total = 0.0
    for rule, inputs, outputs in gemms(model):
        fprop, dgrad, wgrad = rule.fprop, rule.dgrad, rule.wgrad
        operands = [
            (fprop.left, (tokens, inputs), 1),
            (fprop.right, (inputs, outputs), 0),
            (dgrad.left, (tokens, outputs), 1),
            (wgrad.right, (tokens, outputs), 0),
        ]
        if not fprop.right.shares_codes_with(dgrad.right):
            operands.append((dgrad.right, (outputs, inputs), 0))
        if not fprop.left.shares_codes_with(wgrad.left):
            operands.append((wgrad.left, (inputs, tokens), 1))
        total += sum(seconds(shape, operand, axis) for operand, shape, axis in operands if operand.code_format is not None)
    return total


def gemms(model):
    """Rule, inputs and outputs of each product with a kernel."""
    for layer in quantized_layers(model):
        rule = get_recipe(layer.recipe).rule(layer.context)
        for each in projections(layer) or [layer]:
            inputs = each.kernel.shape[0] if each is layer else WIDTH
            if rule is not None:
                yield rule, inputs, int(np.prod(each.kernel.shape)) // inputs


def seconds(shape, operand, axis, rounds=5):
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32"))
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        codes = quantize(x, operand.format, axis, operand.rounding, seed=0).codes
        keras.ops.convert_to_numpy(codes[:1, :1])  # waits for it
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
