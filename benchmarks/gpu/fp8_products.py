"""Products of FP8 matrices on a GPU under JAX: their values, that cuBLASLt takes them, and their speed beside bfloat16."""

import jax
import numpy as np
from speed import seconds

from keras_lrsched.kernels.matmul import binding
from keras_lrsched.precision import LayerContext, QuantizedTensor, get_format, get_recipe, matmul, quantize

CALL = "__cublas$lt$matmul$f8"
RECIPES = ("fp8_current", "coat")
SIZES = ((4096, 4096, 4096), (8192, 4096, 4096))


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape, "float32")


def training_step(rule):
    def step(x, w, dy):
        y, pull = jax.vjp(lambda x, w: rule(x, w, {}, jax.numpy.zeros(2, "int32"), True), x, w)
        return y, *pull(dy)

    return jax.jit(step)


def operands(rule, x, w, dy):
    """The operands of the three products of a step, in float64: both tensors and the gradient, quantized and dequantized."""

    def numbers(x, element):
        q = jax.jit(lambda x: parts(quantize(x, element)))(x)
        codes = np.asarray(q[0]).view(jax.numpy.float8_e4m3fn if element == "FP8_E4M3" else jax.numpy.float8_e5m2)
        return codes.astype("float64") * np.float64(q[1])

    x, w, dy = numbers(x, "FP8_E4M3"), numbers(w, "FP8_E4M3"), numbers(dy, "FP8_E5M2")
    return x @ w, dy @ w.T, x.T @ dy


def parts(q):
    return q.codes, q.scales


def check(name, m=1000, k=520, n=310):
    """The largest error of the three products, in parts of the largest number; no size is a multiple of 16."""
    arrays = normal(m, k), normal(k, n), normal(m, n)
    rule = get_recipe(name).rule(LayerContext())
    step = training_step(rule)
    calls = step.lower(*arrays).compile().as_text().count(f'custom_call_target="{CALL}"')
    assert calls == 3, f"{name}: {calls} calls of {CALL}, not 3"
    pairs = zip(step(*arrays), operands(rule, *arrays), strict=True)
    error = max(np.abs(np.asarray(ours, "float64") - exact).max() / np.abs(exact).max() for ours, exact in pairs)
    print(f"{name:14}{calls} calls of {CALL}, largest error {error:.1e}")
    assert error < 1e-5, name


def speed(m, k, n):
    """TFLOP/s of a product: in bfloat16, of FP8 codes, and of FP8 with the quantization of both operands."""
    x, w = (jax.numpy.asarray(each) for each in (normal(m, k), normal(k, n)))
    quantized = jax.jit(lambda x, w: (parts(quantize(x, "FP8_E4M3")), parts(quantize(w, "FP8_E4M3", axis=0))))
    format = get_format("FP8_E4M3")

    def multiply(a, b):
        return matmul(QuantizedTensor(*a, format, (m, k), 1), QuantizedTensor(*b, format, (k, n), 0))

    a, b = quantized(x, w)
    of_codes, whole = jax.jit(multiply), jax.jit(lambda x, w: multiply(*quantized(x, w)))
    wide = jax.jit(lambda x, w: jax.numpy.matmul(x, w, preferred_element_type="float32"))
    xb, wb = x.astype("bfloat16"), w.astype("bfloat16")
    rows = {
        "bfloat16": lambda: wide(xb, wb),
        "FP8, of codes": lambda: of_codes(a, b),
        "FP8, quantization and product": lambda: whole(x, w),
    }
    print(f"{m} x {k} x {n}, TFLOP/s")
    taken = {label: seconds(call, jax.block_until_ready) for label, call in rows.items()}
    for label, time in taken.items():
        print(f"{label:32}{2e-12 * m * k * n / time:8.0f}{taken['bfloat16'] / time:8.2f} x bfloat16", flush=True)


def main():
    if not binding("matmul").gpu_has_fp8():
        kind = jax.devices()[0].device_kind
        print(f"FP8 products: nothing was checked. Ada, Hopper and later GPUs have them, not {kind}.")
        return
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}")
    for name in RECIPES:
        check(name)
    for sizes in SIZES:
        speed(*sizes)


if __name__ == "__main__":
    main()
