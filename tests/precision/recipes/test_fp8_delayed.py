import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import AdamW
from keras_lrsched.precision import E4M3, E5M2, LayerContext, get_recipe, quantize_model, switch_recipe
from keras_lrsched.precision.layers import QuantizedDense
from keras_lrsched.precision.recipes import FP8Delayed
from keras_lrsched.precision.recipes.fp8_delayed import DelayedScaling, Scaled
from tests.precision.compiled import gradient, quickly
from tests.precision.recipes.life import batches, check_life, tiny_model
from tests.precision.vectors import VECTORS

SEQUENCE = VECTORS["te_delayed_scaling"]
AMAXES = [float(step["amax"]) for step in SEQUENCE["steps"]]
SCALES = [step["scale_used"] for step in SEQUENCE["steps"]]


def test_name():
    assert type(get_recipe("fp8_delayed")) is FP8Delayed


def test_scales_are_those_of_transformer_engine():
    rule = DelayedScaling(SEQUENCE["history_len"], SEQUENCE["algo"], 0)
    scale, history, used = np.float32(1), np.zeros(SEQUENCE["history_len"], "float32"), []
    for amax in AMAXES:
        used.append(float(scale))
        scale, history = quickly(lambda *now: rule.updated(*now, SEQUENCE["fp8_max"]), scale, history, np.float32(amax))
    assert used == SCALES


@pytest.mark.parametrize(
    ("algorithm", "margin", "expected"), [("most_recent", 0, 448.0), ("max", 0, 112.0), ("max", 3, 14.0)]
)
def test_algorithm_and_margin(algorithm, margin, expected):
    rule, scale, history = DelayedScaling(4, algorithm, margin), ops.ones(()), ops.zeros((4,))
    for amax in (4.0, 1.0):
        scale, history = rule.updated(scale, history, ops.convert_to_tensor(amax), 448.0)
    assert float(scale) == expected


@pytest.mark.parametrize("amax", [0.0, np.inf, np.nan])
def test_scale_stays_without_a_usable_amax(amax):
    scale, history = DelayedScaling(2, "max", 0).updated(
        ops.convert_to_tensor(3.0), ops.zeros((2,)), ops.convert_to_tensor(amax, "float32"), 448.0
    )
    assert float(scale) == 3.0
    if amax == 0:
        assert not ops.convert_to_numpy(history).any()


@pytest.mark.parametrize(("dtype", "element"), [("float8_e4m3fn", E4M3), ("float8_e5m2", E5M2)])
def test_casts_are_those_of_the_element(run, dtype, element):
    x = np.concatenate(
        [np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-4, 6).repeat(100), [0.0, 1e9, -1e9]]
    )
    x = x.astype("float32")
    expected = ops.convert_to_numpy(element.decode(element.encode(ops.convert_to_tensor(x * np.float32(4)))))
    np.testing.assert_array_equal(
        run(lambda x: Scaled(dtype, ops.convert_to_tensor(4.0)).quantize(x, 1, None).values, x), expected / 4
    )


def test_outputs_have_the_scale_of_the_past():
    """In the first step it is 1, so that 1000 becomes 448."""
    layer = QuantizedDense(1, use_bias=False, kernel_initializer="ones", recipe=FP8Delayed(head=True))
    x = np.array([[1000.0]], "float32")
    layer(x)
    outputs = [float(ops.squeeze(layer(x, training=True))) for _ in range(2)]
    assert outputs == [448.0, pytest.approx(1000.0, rel=1e-6)]


OPTIMIZERS = {
    "keras": lambda: keras.optimizers.SGD(0.0),
    "ours": lambda: AdamW(0.0, weight_decay=0.1),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=8.0),
    "clipped": lambda: keras.optimizers.Adam(0.0, global_clipnorm=0.01, weight_decay=0.1),
}


def trained_on(amaxes, optimizer):
    """A layer whose inputs, and whose gradient by the outputs, have these amaxes in successive steps; its scales in them."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(optimizer, lambda target, output: ops.sum(target * output))
    quantize_model(model, FP8Delayed(amax_history_length=4, head=True))
    state, used = model.layers[0].gemm.state, []
    for amax in amaxes:
        before = float(state["inputs_scale"])
        x = np.array([[amax, 0.5 * amax]], "float32")
        model.train_on_batch(x, x)
        used.append((before, float(state["gradient_scale"])))
    return used


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scales_in_training(name):
    used = trained_on(AMAXES[:9], OPTIMIZERS[name]())
    assert [each for each, _ in used] == SCALES[:9]
    loss_scale = 8 if name == "loss_scale" else 1
    of_gradient = [1.0] + [scale * 57344 / 448 / loss_scale for scale in SCALES[1:9]]
    assert [each for _, each in used] == of_gradient


def test_gradient_accumulation_takes_the_largest_amax():
    optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
    used = trained_on([8.0, 2.0, 1.0, 1.0, 1.0], optimizer)
    assert [each for _, each in used] == [1.0, 1.0, 57344 / 8, 57344 / 8, 57344 / 8]


def test_products_use_what_was_written():
    """With the scales 2, 1 and 4: outputs, and the gradients by inputs and kernel."""
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(shape, "float32") for shape in ((5, 4), (4, 3), (5, 3)))
    rule = DelayedScaling(2, "max", 0)
    scales = {"inputs": 2.0, "kernel": 1.0, "gradient": 4.0}
    variables = {f"{name}_scale": ops.convert_to_tensor(scale) for name, scale in scales.items()}
    variables["gradient_amax"] = ops.convert_to_tensor(0.0)

    def rounded(x, element, scale):
        return ops.convert_to_numpy(element.decode(element.encode(ops.convert_to_tensor(x * scale)))) / scale

    xq, wq, dyq = rounded(x, E4M3, 2), rounded(w, E4M3, 1), rounded(dy, E5M2, 4)
    np.testing.assert_allclose(
        quickly(lambda x: rule(x, ops.convert_to_tensor(w), variables, None, False), x), xq @ wq, rtol=1e-6
    )
    dx = gradient(lambda x: rule(x, ops.convert_to_tensor(w), variables, None, False), x, dy)
    np.testing.assert_allclose(dx, dyq @ wq.T, rtol=1e-5, atol=1e-6)
    dw = gradient(lambda w: rule(ops.convert_to_tensor(x), w, variables, None, False), w, dy)
    np.testing.assert_allclose(dw, xq.T @ dyq, rtol=1e-5, atol=1e-6)


def test_own_training_loop():
    model = tiny_model(FP8Delayed())
    model(batches(1)[0][0], training=True)
    variables = model.trainable_variables
    numbers = [ops.full(variable.shape, 3.0) for variable in variables]
    rest = FP8Delayed.take_amaxes(numbers, variables)
    assert len(rest) == len(variables) - 2
    assert float(model.layers[0].gemm.state["gradient_amax"]) == 3.0


def test_heads_stay_unless_told():
    assert FP8Delayed().rule(LayerContext("head")) is None
    assert FP8Delayed(head=True).rule(LayerContext("head")) == DelayedScaling(1024, "max", 0)


def test_attention_is_switched_off_and_on_again():
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.MultiHeadAttention(2, 2)(inputs, inputs)))
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "jax")
    quantize_model(model, FP8Delayed(amax_history_length=4))
    x, y = np.random.default_rng(0).random((2, 3, 4)), np.zeros((2, 3, 2))
    model.train_on_batch(x, y)
    amaxes = [each for each in model.trainable_variables if each.overwrite_with_gradient]
    assert len(amaxes) == 4
    assert all(float(ops.convert_to_numpy(each)) > 0 for each in amaxes)
    switch_recipe(model, None)
    switch_recipe(model, FP8Delayed(amax_history_length=4))
    model.train_on_batch(x, y)


def test_life(tmp_path):
    check_life(FP8Delayed(amax_history_length=4), tmp_path)


@pytest.mark.parametrize(
    "settings", [{"amax_history_length": 0}, {"amax_algorithm": "mean"}, {"margin": -1}, {"margin": 0.5}], ids=str
)
def test_bad_input(settings):
    with pytest.raises(ValueError, match="Received"):
        FP8Delayed(**settings)


def test_built_optimizers_cannot_learn_of_it():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="trainable variables"):
        quantize_model(model, "fp8_delayed")
