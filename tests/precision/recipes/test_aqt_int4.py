import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import LayerContext, get_recipe, quantize_model
from keras_lrsched.precision.recipes import AQTInt4
from keras_lrsched.precision.recipes.aqt_int4 import Bounded, BoundedProduct, ChannelIntegers, channels
from tests.precision.compiled import gradient, quickly
from tests.precision.recipes.life import check_life


def test_name():
    assert type(get_recipe("aqt_int4")) is AQTInt4


def test_weights():
    """Channels whose scales are 1 and 1/2; ties go up, also below zero."""
    w = np.array([[7.0, 14.0], [0.5, 1.0], [-0.5, -1.0], [1.5, -2.9], [0.0, 4.9]], "float32")
    quantized = ops.convert_to_numpy(ChannelIntegers(4).quantize(ops.convert_to_tensor(w), 0, None).values)
    np.testing.assert_array_equal(quantized, [[7, 14], [1, 2], [0, 0], [2, -2], [0, 4]])
    assert not ops.convert_to_numpy(ChannelIntegers(4).quantize(ops.zeros((2, 2)), 0, None).values).any()


@pytest.mark.parametrize(
    ("unsigned", "expected", "mask"),
    [(False, [[0.5, -1, 3.5, -3.5]], [[1, 1, 0, 0]]), (True, [[0.4375, 0, 3.28125, 0]], [[1, 0, 0, 0]])],
)
def test_activations(unsigned, expected, mask):
    """With the bound 3.5: signed in steps of 1/2, unsigned of 7/32."""
    x = np.array([[0.6, -0.9, 3.6, -4.0]], "float32")
    quantized = Bounded(4, ops.full((4,), 3.5), ops.convert_to_tensor(unsigned), ops.convert_to_tensor(True))
    quantized = quantized.quantize(ops.convert_to_tensor(x), 1, None)
    np.testing.assert_allclose(ops.convert_to_numpy(quantized.values), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(quantized.factor), mask)


@pytest.mark.parametrize(("bound", "is_fixed"), [(1.0, False), (0.0, True)])
def test_activations_stay_without_bounds(bound, is_fixed):
    x = np.array([[0.6, -9.0]], "float32")
    quantized = Bounded(4, ops.full((2,), bound), ops.convert_to_tensor(False), ops.convert_to_tensor(is_fixed))
    quantized = quantized.quantize(ops.convert_to_tensor(x), 1, None)
    np.testing.assert_array_equal(ops.convert_to_numpy(quantized.values), x)
    np.testing.assert_array_equal(ops.convert_to_numpy(quantized.factor), [[1, 1]])


def test_gradients_are_those_of_the_quantized_operands():
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(shape, "float32") for shape in ((5, 4), (4, 3), (5, 3)))
    rule = BoundedProduct(4, 4, 1, 0.1)
    numbers = {"batches": np.int32(1), "bound": np.array([0.5, 1, 2, 0], "float32"), "lowest": np.float32(-1)}
    variables = {name: ops.convert_to_tensor(number) for name, number in numbers.items()}

    def product(x, w):
        return rule(ops.convert_to_tensor(x), ops.convert_to_tensor(w), variables, None, False)

    steps = np.array([0.5, 1, 2, 7], "float32") / 7
    xq = np.clip(np.floor(x / steps + 0.5), -7, 7) * steps
    xq[:, 3] = x[:, 3]
    of_w = np.abs(w).max(axis=0) / 7
    wq = np.floor(w / of_w + 0.5) * of_w
    inside = np.abs(x) <= [0.5, 1, 2, 100]
    np.testing.assert_allclose(quickly(lambda x: product(x, w), x), xq @ wq, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient(lambda x: product(x, w), x, dy), dy @ wq.T * inside, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient(lambda w: product(x, w), w, dy), xq.T @ dy, rtol=1e-5, atol=1e-6)


def one_layer(steps):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    quantize_model(model, AQTInt4(statistics_steps=steps))
    return model, model.layers[0].gemm.state


def test_bounds_average_and_freeze():
    model, state = one_layer(2)
    for inputs in ([[2, -1], [1, 0]], [[4, 3], [0, 0]], [[100, 100], [0, -100]]):
        model.train_on_batch(np.array(inputs, "float32"), np.zeros((2, 2)))
    np.testing.assert_allclose(ops.convert_to_numpy(state["bound"]), [2.2, 1.2], rtol=1e-6)
    assert float(state["lowest"]) == -1
    assert int(state["batches"]) == 3


def test_positions_of_a_convolution_share_bounds():
    model = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 3, padding="same")])
    model.compile("sgd", "mse")
    quantize_model(model, AQTInt4(statistics_steps=1))
    x = np.random.default_rng(0).random((2, 4, 4, 2), "float32") * np.array([1, 5], "float32")
    model.train_on_batch(x, np.zeros((2, 4, 4, 3)))
    state = model.layers[0].gemm.state
    np.testing.assert_array_equal(ops.convert_to_numpy(state["bound"]), x.max(axis=(0, 1, 2)))
    assert float(state["lowest"]) == 0
    exact = ops.convert_to_numpy(ops.conv(x, model.layers[0].kernel, padding="same"))
    error = model.predict(x, verbose=0) - exact
    assert 0 < np.abs(error).max() < 0.15


@pytest.mark.parametrize("equation", ["abc,cde->abde", "abcd,cde->abe"])
def test_channels_of_einsum(equation):
    layer = keras.layers.EinsumDense(equation, (None, 3, 4) if "abde" in equation else (None, 4))
    layer.build((2, 3, 5) if "abde" in equation else (2, 3, 5, 6))
    assert channels(layer) == (5 if "abde" in equation else 30)


def test_first_layer_and_head_have_more_bits():
    recipe = AQTInt4()
    assert recipe.rule(LayerContext("convolution", 1, 3)).weight_bits == 4
    assert recipe.rule(LayerContext("convolution", 0, 3)).weight_bits == 8
    assert recipe.rule(LayerContext("head", 2, 3)).activation_bits == 8


def test_life(tmp_path):
    check_life(AQTInt4(statistics_steps=2), tmp_path)


@pytest.mark.parametrize(
    "settings", [{"weight_bits": 1}, {"activation_bits": 9}, {"statistics_steps": 0}, {"average_rate": 0}], ids=str
)
def test_bad_input(settings):
    with pytest.raises(ValueError, match="Received"):
        AQTInt4(**settings)
