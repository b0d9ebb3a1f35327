import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import E2M1, FORMATS, dequantize, dge_factor, fake_quantize, get_format, quantize
from keras_lrsched.precision._fake_quantize import trust_factor
from tests.precision.compiled import gradient, quickly
from tests.precision.vectors import VECTORS, assert_same_bits, numbers

pytestmark = pytest.mark.usefixtures("plain_and_compiled")


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((8, 160)).astype("float32")


@pytest.fixture
def upstream():
    return np.random.default_rng(1).standard_normal((8, 160)).astype("float32")


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_of_quantize_and_dequantize(name, x):
    x[0, 3] = np.nan
    both = quickly(lambda x: (fake_quantize(x, name), dequantize(quantize(x, name))), x)
    assert_same_bits(*both)


@pytest.mark.parametrize("name", ["MXFP4", "NVFP4_2D", "INT8_CHANNEL", "FP8_E4M3"])
def test_straight_through(name, x, upstream):
    np.testing.assert_array_equal(gradient(lambda x: fake_quantize(x, name, axis=0), x, upstream), upstream)


def test_dge_points():
    vectors = VECTORS["dge"]
    factors = ops.convert_to_numpy(dge_factor(numbers(vectors["input_bf16"])))
    np.testing.assert_allclose(factors, vectors["numpy_fp32"], rtol=2e-6)
    np.testing.assert_allclose(factors, vectors["expected_bf16_from_MS-AMP_tests"], rtol=4e-3)


def test_dge_is_the_derivative_of_the_smooth_step():
    """f(x) = l + d/2 (1 + sign(t) |t|^(1/5)), t = 2 (x - l) / d - 1, has its derivative where that is below the cap."""

    def smooth(x, lower, gap):
        t = 2 * (x - lower) / gap - 1
        return lower + gap / 2 * (1 + np.sign(t) * np.abs(t) ** 0.2)

    x = np.array([0.05, 0.45, 2.1, 2.9, 4.2, 5.9])
    lower, gap = np.array([0, 0, 2, 2, 4, 4]), np.array([0.5, 0.5, 1, 1, 2, 2])
    slope = (smooth(x + 1e-6, lower, gap) - smooth(x - 1e-6, lower, gap)) / 2e-6
    np.testing.assert_allclose(ops.convert_to_numpy(dge_factor(x.astype("float32"))), slope, rtol=1e-5)


def test_dge_gradient_is_in_units_of_the_element(x, upstream):
    units = x / np.abs(x).max(axis=1, keepdims=True) * 6
    format = get_format("MXFP4", block=(1, None), scale="float32", scale_rule="exact")
    result = gradient(lambda x: fake_quantize(x, format, gradient="dge"), x, upstream)
    np.testing.assert_allclose(result, upstream * ops.convert_to_numpy(dge_factor(units)), rtol=2e-3)


def test_trust_drops_what_is_clipped_far(upstream):
    x = np.full((1, 32), 7.5, "float32")  # in units of MXFP4: largest element 6, half the gap below it 1
    x[0, :4] = 6.5, 7.0, 7.1, 0.3
    result = gradient(lambda x: fake_quantize(x, "MXFP4", gradient="trust"), x, upstream[:1, :32])
    expected = upstream[:1, :32] * (np.arange(32) < 4)
    expected[0, 2] = 0
    np.testing.assert_array_equal(result, expected)


def test_trust_keeps_what_is_rounded():
    values = ops.convert_to_tensor(np.linspace(-6, 6, 101, dtype="float32"))
    assert float(ops.min(trust_factor(values, E2M1.encode(values), E2M1))) == 1


def test_dtype_is_kept():
    x = ops.cast(ops.convert_to_tensor(np.array([0.9, -2.6], "float32")), "bfloat16")
    y = fake_quantize(x, "MXFP4")
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(y, "float32")), [1.0, -3.0])


@pytest.mark.parametrize("estimator", ["ste", "dge", "trust"])
def test_compiled(estimator, x, run):
    options = {"rounding": "stochastic", "seed": 3, "gradient": estimator}
    eager = quickly(lambda x: fake_quantize(x, "NVFP4", **options), x)
    assert_same_bits(run(lambda x: fake_quantize(x, "NVFP4", **options), x), eager)


def test_a_generator_gives_new_noise_each_time(x):
    generator = keras.random.SeedGenerator(1)
    first, second = (
        ops.convert_to_numpy(fake_quantize(x, "MXFP4", rounding="stochastic", seed=generator)) for _ in range(2)
    )
    assert (first != second).any()


def test_trains_a_layer(x):
    class Quantized(keras.layers.Dense):
        def call(self, inputs):
            kernel = fake_quantize(self.kernel, "NVFP4_2D", axis=0, gradient="dge")
            return ops.matmul(fake_quantize(inputs, "MXFP8_E4M3"), kernel) + self.bias

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((160,)), Quantized(1)])
    model.compile(keras.optimizers.SGD(0.002), "mse")
    model.optimizer.build(model.trainable_variables)
    losses = model.fit(x, x[:, :1], epochs=10, batch_size=2, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]


def test_bad_input(x):
    with pytest.raises(ValueError, match="`gradient` must be one of 'ste', 'dge', 'trust'"):
        fake_quantize(x, "MXFP4", gradient="lsq")
    with pytest.raises(ValueError, match="quantized already"):
        fake_quantize(quantize(x, "MXFP4"), "MXFP4")
    with pytest.raises(ValueError, match="`rounding` must be"):
        fake_quantize(x, "MXFP4", rounding="down")
