"""Products of FP8 numbers as such, forced on a machine without a GPU, beside those of the float32 numbers they stand for."""

import re
import types

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.kernels import matmul as compiled
from keras_lrsched.precision import LayerContext, get_recipe, matmul, quantize, quantize_model
from keras_lrsched.precision._gemms import LinearGemms
from keras_lrsched.precision.recipes.fp8_delayed import DelayedScaling
from tests.precision.compiled import gradient, quickly

RNG = np.random.default_rng(0)
X, W, DY = (RNG.normal(size=shape).astype("float32") for shape in ((40, 50), (50, 30), (40, 30)))
RULES = {
    "fp8_current": get_recipe("fp8_current").rule(LayerContext()),
    "power_of_two": get_recipe("fp8_current", power_of_two=True).rule(LayerContext()),
    "coat": get_recipe("coat").rule(LayerContext()),
    "fp8_delayed": DelayedScaling(2, "max", 0),
}
only_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="FP8 numbers are multiplied as such on JAX")
DOTS = [("f8E4M3FN", "f8E4M3FN"), ("f8E4M3FN", "f8E5M2"), ("f8E5M2", "f8E4M3FN")]


def variables():
    """Scales that are no powers of two, and that let some numbers saturate."""
    scales = {"inputs": 150.0, "kernel": 90.0, "gradient": 1e4}
    state = {f"{name}_scale": ops.convert_to_tensor(scale, "float32") for name, scale in scales.items()}
    return {**state, "gradient_amax": ops.convert_to_tensor(0.0, "float32")}


def call(rule, x, w):
    return rule(x, w, variables(), ops.zeros((2,), "int32"), False)


def step(rule):
    """A function of x, w and dy that gives y, dx and dw, on JAX."""
    import jax

    def function(x, w, dy):
        y, pull = jax.vjp(lambda x, w: call(rule, x, w), x, w)
        return y, *pull(dy)

    return function


@only_jax
@pytest.mark.parametrize("name", RULES)
def test_values_are_those_of_the_emulation(name, monkeypatch):
    """No size is a multiple of 16."""
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0")
    emulated = quickly(step(RULES[name]), X, W, DY)
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    for result, expected in zip(quickly(step(RULES[name]), X, W, DY), emulated, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@only_jax
@pytest.mark.parametrize("formats", [("FP8_E4M3", "FP8_E4M3"), ("FP8_E5M2", "FP8_E4M3"), ("FP8_E4M3", "FP8_E5M2")])
@pytest.mark.parametrize("shape", [(5, 1), (3, 40, 65), (16, 32)])
def test_products_and_codes(formats, shape, monkeypatch):
    x, w = RNG.normal(size=shape).astype("float32"), RNG.normal(size=(shape[-1], 7)).astype("float32")

    def product(x, w):
        a, b = quantize(x, formats[0]), quantize(w, formats[1], axis=0)
        return matmul(a, b), a.codes, b.codes

    found = []
    for mode in ("0", "1"):
        monkeypatch.setenv("KERAS_LRSCHED_FUSED", mode)
        found.append(quickly(product, x, w))
    (expected, *codes), (y, *same_codes) = found
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    for ours, theirs in zip(codes, same_codes, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def dots(function, *arrays):
    """The dtypes of the operands of all products in a function, sorted."""
    import jax

    lines = [line for line in jax.jit(function).lower(*arrays).as_text().splitlines() if "dot_general" in line]
    return sorted(re.search(r"\(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>\)", line).groups() for line in lines)


@only_jax
@pytest.mark.parametrize("mode", ["0", "auto", "1"])
@pytest.mark.parametrize("name", RULES)
def test_all_three_products_have_operands_in_fp8(name, mode, monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", mode)
    assert dots(step(RULES[name]), X, W, DY) == (DOTS if mode == "1" else [("f32", "f32")] * 3)


@only_jax
@pytest.mark.parametrize("recipe", ["fp8_current", "fp8_delayed", "coat"])
def test_a_training_step(recipe, monkeypatch):
    """Two layers: the first needs no gradient of its inputs, the head stays as it is."""
    import jax

    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((20,)), dense(30, activation="relu"), dense(24), dense(3)])
    quantize_model(model, recipe)
    state = [[each.value for each in part] for part in (model.trainable_variables, model.non_trainable_variables)]

    def loss(trained, rest, x):
        outputs, rest = model.stateless_call(trained, rest, x, training=True)
        return ops.sum(outputs**2), rest

    found = dots(lambda *arguments: jax.value_and_grad(loss, has_aux=True)(*arguments), *state, np.ones((8, 20), "float32"))
    assert found == sorted([*DOTS[:2], *DOTS, *[("f32", "f32")] * 3])


@only_jax
@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [("gpu", "8.9", True), ("gpu", "9.0", True), ("gpu", "12.0", True), ("gpu", "8.0", False), ("gpu", "gfx942", False)],
)
def test_which_gpus(platform, capability, expected, monkeypatch):
    import jax

    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    for mode, usable in (("auto", expected), ("1", True), ("0", False)):
        monkeypatch.setenv("KERAS_LRSCHED_FUSED", mode)
        assert compiled.multiplies_fp8("E4M3", "E5M2") is usable
        assert not compiled.multiplies_fp8("E5M2", "E5M2")
        assert not compiled.multiplies_fp8("E4M3", "INT8")


def test_other_backends_go_without(monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    assert compiled.multiplies_fp8("E4M3", "E4M3") is (keras.backend.backend() == "jax")


def test_a_rule_may_write_once_more_what_was_written():
    """An operand of a backward product that is not `IDENTITY` gets numbers, not codes."""
    rule, w = RULES["fp8_current"], ops.convert_to_tensor(W)
    again = LinearGemms(rule.fprop, rule.dgrad, rule.wgrad, residuals="quantized")
    once, twice = (gradient(lambda x, rule=rule: call(rule, x, w), X, DY) for rule in (RULES["coat"], again))
    np.testing.assert_allclose(twice, once, rtol=1e-5, atol=1e-5)
