"""The residuals of products for the backward pass: codes where they can be, and the same results."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import LayerContext, get_recipe
from keras_lrsched.precision._gemms import GemmSpec
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.recipes import ForwardOnly
from keras_lrsched.precision.recipes.fp8_delayed import DelayedScaling
from tests.precision.compiled import gradient, quickly

RNG = np.random.default_rng(0)
X, W, DY = (RNG.normal(size=shape).astype("float32") for shape in ((41, 67), (67, 31), (41, 31)))
RULES = {
    "coat": get_recipe("coat").rule(LayerContext()),
    "fp8_delayed": DelayedScaling(2, "max", 0),
    "forward_only int8": ForwardOnly("int8_jetfire").rule(LayerContext()),
    "forward_only nvfp4": ForwardOnly("nvfp4").rule(LayerContext()),
}
ENCODED_ONCE = {name: get_recipe(name).rule(LayerContext()) for name in ("int8_jetfire", "int8_switchback")}
BACKEND = keras.backend.backend()


def call(rule, x, w):
    state = {f"{name}_scale": ops.convert_to_tensor(100.0, "float32") for name in ("inputs", "kernel", "gradient")}
    return rule(x, w, {**state, "gradient_amax": ops.convert_to_tensor(0.0)}, ops.zeros((2,), "int32"), False)


def results(rule):
    x, w = ops.convert_to_tensor(X), ops.convert_to_tensor(W)
    gradients = gradient(lambda x: call(rule, x, w), X, DY), gradient(lambda w: call(rule, x, w), W, DY)
    return quickly(lambda x, w: call(rule, x, w), X, W), *gradients


@pytest.mark.parametrize("name", RULES)
def test_codes_change_no_bit(name, monkeypatch):
    ours = results(RULES[name])
    monkeypatch.setattr(GemmSpec, "has_codes", False)
    for result, expected in zip(ours, results(RULES[name]), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ENCODED_ONCE)
def test_what_is_encoded_once_changes_no_bit(name, monkeypatch):
    """Codes of square blocks, for the backward products, too."""
    calls = []
    encode = Cast.encode

    def counted(self, x, axis, seed):
        calls.append(self.is_encoded(x))
        return encode(self, x, axis, seed)

    monkeypatch.setattr(Cast, "encode", counted)
    ours = results(ENCODED_ONCE[name])
    assert any(calls)
    monkeypatch.setattr(Cast, "shares_codes_with", lambda self, other: False)
    for result, expected in zip(ours, results(ENCODED_ONCE[name]), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["coat", "fp8_delayed", "forward_only int8", "int8_jetfire"])
def test_a_number_takes_one_byte(name):
    """Of the inputs and of the kernel: neither they themselves nor what was quantized stays in float32."""
    sizes = kept_sizes({**RULES, **ENCODED_ONCE}[name])
    assert len(sizes) >= 2
    assert all(size == 1 for size in sizes)


def kept_sizes(rule):
    """The bytes of a number in each matrix that is there for the backward pass only; inputs may be of whole blocks."""
    if BACKEND == "jax":
        import jax

        leaves = jax.tree.leaves(jax.vjp(lambda x, w: call(rule, x * 2, w * 2), X, W)[1])
        return [leaf.dtype.itemsize for leaf in leaves if leaf.size >= 1000]
    before = {id(each) for each in matrices()}
    if BACKEND == "torch":
        import torch

        x, w = (torch.tensor(each, requires_grad=True) for each in (X, W))
        graph = _after(rule, x, w)
    else:
        import tensorflow as tf

        x, w = tf.constant(X), tf.constant(W)
        with tf.GradientTape() as graph:
            graph.watch([x, w])
            outputs = _after(rule, x, w)
        assert outputs is not None
    found = [each for each in matrices() if id(each) not in before and each is not x and each is not w]
    assert graph is not None
    return [1 if "8" in keras.backend.standardize_dtype(each.dtype) else 4 for each in found]


def _after(rule, x, w):
    """The outputs; the inputs of the product are nobody else's."""
    x, w = x * 2, w * 2
    references = weakref.ref(x), weakref.ref(w)
    outputs = call(rule, x, w)
    del x, w
    gc.collect()
    assert [reference() is None for reference in references] == [True, True]
    return outputs


def matrices():
    """All matrices of 1000 numbers and more, other than of the shape of outputs, or of the blocks that hold these."""
    gc.collect()
    name = {"torch": "Tensor", "tensorflow": "EagerTensor"}[BACKEND]
    tensors = [each for each in gc.get_objects() if type(each).__name__ == name]
    matrices = [each for each in tensors if len(each.shape) == 2 and np.prod(each.shape) >= 1000]
    return [each for each in matrices if tuple(each.shape) not in (DY.shape, (64, 32))]
