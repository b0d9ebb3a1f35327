"""Products whose operands are quantized: against the same from its parts, in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import NVFP4_SIGNS, LayerContext, fake_quantize, get_recipe
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import IDENTITY, Cast
from keras_lrsched.precision.recipes.fp4_dge import Compensated
from keras_lrsched.precision.recipes.quartet_mxfp4 import FittedMXFP4, UnbiasedMXFP4
from tests.nightly import nightly
from tests.precision.compiled import MODES, compiled, gradient

RNG = np.random.default_rng(0)
X, W, DY = (RNG.normal(size=shape).astype("float32") for shape in ((40, 50), (50, 30), (40, 30)))


def tensor(x):
    return ops.convert_to_tensor(x, "float32")


def key(*words):
    return ops.convert_to_tensor(words, "int32")


def numpy(x):
    return ops.convert_to_numpy(x)


def results(rule, seed=None):
    """y, dx, dw."""
    seed = key(0, 0) if seed is None else seed
    y = numpy(rule(tensor(X), tensor(W), {}, seed, True))
    dx = gradient(lambda x: rule(x, tensor(W), {}, seed, True), tensor(X), DY)
    dw = gradient(lambda w: rule(tensor(X), w, {}, seed, True), tensor(W), DY)
    return y, dx, dw


def quantized(x, format, axis, rounding="nearest", seed=None):
    return numpy(fake_quantize(tensor(x), format, axis, rounding, seed)).astype("float64")


def test_each_operand_in_its_own_format():
    """Along the axis that its product sums over, from the original numbers."""
    rule = LinearGemms(
        GemmSpec(Cast("MXFP8_E4M3"), Cast("MXFP4")),
        GemmSpec(Cast("FP8_E5M2"), Cast("FP8_E4M3")),
        GemmSpec(Cast("MXFP6_E2M3"), Cast("NVFP4")),
    )
    expected = (
        quantized(X, "MXFP8_E4M3", 1) @ quantized(W, "MXFP4", 0),
        quantized(DY, "FP8_E5M2", 1) @ quantized(W.T, "FP8_E4M3", 0),
        quantized(X.T, "MXFP6_E2M3", 1) @ quantized(DY, "NVFP4", 0),
    )
    for result, reference in zip(results(rule), expected, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-5)


def test_backward_products_may_start_from_what_was_written():
    rule = LinearGemms(GemmSpec(Cast("MXFP4"), Cast("MXFP4")), residuals="quantized")
    x, w = quantized(X, "MXFP4", 1), quantized(W, "MXFP4", 0)
    for result, reference in zip(results(rule), (x @ w, DY @ w.T, x.T @ DY), strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rotation", [16, 32, 128])
@pytest.mark.parametrize("signs", [None, "random"])
def test_a_rotation_changes_no_product(rotation, signs):
    """Neither size here is a multiple of the transform's."""
    product = GemmSpec(rotation=rotation, signs=signs)
    for result, reference in zip(
        results(LinearGemms(product, product, product, residuals="quantized")), results(LinearGemms()), strict=True
    ):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=2e-5)


def test_fixed_signs():
    product = GemmSpec(Cast("NVFP4"), Cast("NVFP4"), 16, NVFP4_SIGNS)
    y = numpy(product.multiply(tensor(X), tensor(W), key(0, 0)))
    assert 0 < np.linalg.norm(y - X @ W) < 0.2 * np.linalg.norm(X @ W)


@pytest.mark.parametrize("name", ["int8_jetfire", "int8_switchback"])
def test_integers_give_what_their_numbers_give(name):
    rule = get_recipe(name).rule(LayerContext())
    product = rule.fprop
    assert product.multiplies_codes(tensor(X), tensor(W))
    left, right, _ = product.quantize(tensor(X), tensor(W), key(0, 0))
    expected = numpy(left.values).astype("float64") @ numpy(right.values)
    np.testing.assert_allclose(numpy(product.multiply(tensor(X), tensor(W), key(0, 0))), expected, rtol=1e-5, atol=1e-5)


UNKNOWN_SHAPES = [("nvfp4", False, "auto"), ("int8_switchback", False, "0")]
"""Blocks of a token, and operations of Keras; at night blocks that reach over tokens."""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere all shapes are known")
@pytest.mark.parametrize(
    ("name", "jit", "compiled"),
    [
        pytest.param(name, *way, marks=() if (name, *way) in UNKNOWN_SHAPES else nightly)
        for name in ("int8_jetfire", "int8_switchback", "mxfp8", "fp8_current", "nvfp4", "coat")
        for way in ((False, "auto"), (True, "auto"), (False, "0"))
    ],
)
def test_an_unknown_number_of_tokens(name, jit, compiled, monkeypatch):
    """As in `fit` on batches of unknown shape, also without compiled code."""
    import tensorflow as tf

    monkeypatch.setenv("KERAS_LRSCHED_FUSED", compiled)

    rule = get_recipe(name, **{"keep_last": 0.0} if name == "nvfp4" else {}).rule(LayerContext())

    @tf.function(jit_compile=jit, input_signature=[tf.TensorSpec((None, 50)), tf.TensorSpec((None, 30))])
    def step(x, dy):
        w = tf.constant(W)
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = rule(x, w, {}, tf.constant([0, 0]), True)
        return y, *tape.gradient(y, [x, w], output_gradients=dy)

    for result, reference in zip(step(X, DY), results(rule), strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=2e-5)


def test_gradients_of_an_estimator():
    """That by the kernel is multiplied with the estimator's factor, that by the inputs is not."""
    rule = LinearGemms(GemmSpec(IDENTITY, Cast("MXFP4", gradient="trust")))
    dw = gradient(lambda w: rule(tensor(X), w), tensor(W), DY)
    factor = gradient(lambda w: fake_quantize(w, "MXFP4", 0, gradient="trust"), tensor(W), np.ones_like(W))
    assert 0 < np.mean(factor == 0) < 0.1
    np.testing.assert_allclose(dw, (X.T @ DY) * factor, rtol=1e-4, atol=1e-5)


def test_stochastic_gradients_are_unbiased():
    rule = get_recipe("int8_jetfire", head=True).rule(LayerContext())

    def dx(seed):
        return gradient(lambda x: rule(x, tensor(W), {}, seed, True), tensor(X), DY)

    samples = np.array([dx(key(7, 64 * t)) for t in range(200)], "float64")
    exact = DY @ quantized(W.T, "INT8_BLOCK32X32", 0)
    z = (samples.mean(axis=0) - exact) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))
    assert np.max(np.abs(z)) < 5  # of 2000
    assert np.std(z) < 1.2


def test_the_two_products_of_a_step_draw_their_own_numbers():
    cast = Cast("MXFP4", "stochastic")
    dy = np.ones((32, 32), "float32") * 0.3
    dy[:, 0] = dy[0] = 1.0
    rule = LinearGemms(GemmSpec(), GemmSpec(cast, IDENTITY), GemmSpec(IDENTITY, cast))
    one = np.eye(32, dtype="float32")
    dx = gradient(lambda x: rule(x, tensor(one), {}, key(0, 0), True), tensor(one), dy)
    dw = gradient(lambda w: rule(tensor(one), w, {}, key(0, 0), True), tensor(one), dy)
    assert set(np.unique(dx)) <= {0.25, 0.375, 1.0}
    assert not np.array_equal(dx, dw)


def test_unbiased_mxfp4_never_saturates():
    """3/4 of any number is within the grid; the mean of many draws is the number."""
    x = np.array([[7.9, *np.random.default_rng(0).uniform(-7.9, 7.9, 31)]], "float32")
    mode = "graph" if "graph" in MODES else MODES[0]
    draw = compiled(lambda words: UnbiasedMXFP4().quantize(tensor(x), 1, words).values, mode)
    draws = np.array([numpy(draw(key(3, t))) for t in range(500)], "float64")
    z = (draws.mean(axis=0) - x) / np.maximum(draws.std(axis=0, ddof=1) / np.sqrt(len(draws)), 1e-9)
    assert np.max(np.abs(z)) < 4.5
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6]) * 4 / 3
    assert np.all(np.isclose(np.abs(draws)[..., None], grid, rtol=1e-6).any(axis=-1))


def test_fitted_mxfp4():
    """The scale from the standard deviation, in NumPy."""
    x = RNG.normal(size=(3, 64)).astype("float32") * [[1e-3], [1.0], [50.0]]
    x[1, 5] = 30.0  # clipped
    result = FittedMXFP4().quantize(tensor(x), 1, None)
    blocks = x.astype("float64").reshape(3, 2, 32)
    scale = 2.0 ** np.floor(np.log2(2.92247856 / 6 * blocks.std(axis=-1, keepdims=True) + 1e-8))
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    grid = np.concatenate([-grid[:0:-1], grid])
    nearest = grid[np.argmin(np.abs(blocks[..., None] / scale[..., None] - grid), axis=-1)]
    np.testing.assert_allclose(numpy(result.values), (nearest * scale).reshape(3, 64), rtol=1e-6)
    np.testing.assert_array_equal(numpy(result.factor), (np.abs(blocks / scale) < 6).reshape(3, 64))
    assert numpy(result.factor)[1, 5] == 0


def test_outliers_stay_as_they_are():
    x = RNG.permutation(np.concatenate([RNG.uniform(-1, 1, 198), [40.0, -50.0]])).reshape(4, 50).astype("float32")
    y = numpy(Compensated(Cast("MXFP4"), 0.99).quantize(tensor(x), 1, None).values)
    low, high = np.sort(x.ravel())[[2, 198]]
    clamped = np.clip(x, low, high)
    np.testing.assert_allclose(y, quantized(clamped, "MXFP4", 1) + (x - clamped), rtol=1e-6)
    assert np.max(np.abs(y - x)) < 0.3


def test_what_is_no_product():
    for make, message in (
        (lambda: GemmSpec(rotation=64), "`rotation`"),
        (lambda: LinearGemms(residuals="twice"), "`residuals`"),
        (lambda: LinearGemms(GemmSpec(rotation=16)), "residuals='quantized'"),
        (lambda: Cast("FP5"), "`format`"),
        (lambda: Cast("MXFP4", "up"), "`rounding`"),
        (lambda: Cast("MXFP4", gradient="none"), "`gradient`"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(NotImplementedError):
        Rule()(None, None, {}, None, True)
    assert keras.backend.standardize_dtype(LinearGemms()(tensor(X), tensor(W)).dtype) == "float32"
