"""Learning rates by layer: the same update whoever computes it, and patterns for real models."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import optimizers
from keras_lrsched._core import registry
from keras_lrsched.optimizers import AdamW, LayerwiseLearningRate, Lion, Lookahead
from tests.contract.backends import JIT_WAYS, compiled_update
from tests.nightly import nightly


def variables(dtype="float32"):
    shapes = {"first/kernel": (3, 2), "first/bias": (2,), "last/kernel": (2, 2)}
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=name.replace("/", "_")) for name, shape in shapes.items()
    ]


def trained(optimizer, steps=4, jit=None):
    weights = variables()
    update = optimizer.apply if jit is None else compiled_update(optimizer, weights, jit)
    for t in range(steps):
        rng = np.random.default_rng(t)
        grads = [ops.convert_to_tensor(rng.normal(size=w.shape), "float32") for w in weights]
        update(grads) if optimizer.built else update(grads, weights)
    return [ops.convert_to_numpy(w) for w in weights]


OF_KERAS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda rate: keras.optimizers.Adam(rate, clipnorm=0.1),
    "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1),
    "lion": lambda rate: keras.optimizers.Lion(rate, weight_decay=0.1),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate, gradient_accumulation_steps=2),
    "lamb": lambda rate: keras.optimizers.Lamb(rate),
}


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("make", OF_KERAS.values(), ids=OF_KERAS)
def test_a_scaled_update_is_that_of_a_scaled_rate(make, jit):
    """Weight decay included; variables do not see each other in these methods."""
    mine = trained(LayerwiseLearningRate(make(0.01), {"first_k": 3.0, "last": 0.0}), jit=jit)
    for value, rate, i in zip(mine, (0.03, 0.01, 0.0), range(3), strict=True):
        np.testing.assert_allclose(value, trained(make(rate), jit=jit)[i], rtol=2e-6, atol=1e-7)


def test_ours_and_those_of_keras_agree():
    rates = {"kernel": 2.0, "bias": 0.5}
    ours, theirs = Lion(0.01, weight_decay=0.1), keras.optimizers.Lion(0.01, weight_decay=0.1)
    for mine, yours in zip(*(trained(LayerwiseLearningRate(each, rates)) for each in (ours, theirs)), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-6)


def test_multipliers_of_the_inner_optimizer_count_too():
    inner = AdamW(0.01, learning_rate_multipliers={"first": 2.0})
    mine = trained(LayerwiseLearningRate(inner, {"kernel": 3.0}))
    expected = trained(AdamW(0.01, learning_rate_multipliers={"first_k": 6.0, "first": 2.0, "last": 3.0}))
    for value, other in zip(mine, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6)


def test_weight_decay_multipliers():
    mine = trained(LayerwiseLearningRate(AdamW(0.01, weight_decay=0.1), {"last": 0.5}, {"last": 4.0, "bias": 0.0}))
    for value, options, i in zip(
        mine,
        ({"weight_decay": 0.1}, {"weight_decay": None}, {"weight_decay": 0.4, "learning_rate_multipliers": {"last": 0.5}}),
        range(3),
        strict=True,
    ):
        np.testing.assert_allclose(value, trained(AdamW(0.01, **options))[i], rtol=1e-6)


def test_first_pattern_counts():
    one = trained(LayerwiseLearningRate(keras.optimizers.SGD(0.1), {"first_bias": 2.0, "bias": 5.0}))
    two = trained(LayerwiseLearningRate(keras.optimizers.SGD(0.1), {"first_bias": 2.0}))
    for mine, yours in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, yours)


@pytest.mark.parametrize("argument", ["multipliers", "weight_decay_multipliers"])
def test_pattern_that_is_found_nowhere(argument):
    optimizer = LayerwiseLearningRate(AdamW(), **{argument: {"heads": 2.0}})
    for _ in range(2):
        with pytest.raises(ValueError, match=f"`{argument}`: 'heads' is found in none of the "):
            optimizer.build(variables())
    assert not optimizer.inner_optimizer.built


@pytest.mark.parametrize("bad", [{"bias": -1}, {"bias": None}, {"(": 1.0}, ["bias"], {"bias": float("nan")}], ids=str)
@pytest.mark.parametrize("argument", ["multipliers", "weight_decay_multipliers"])
def test_bad_multipliers(argument, bad):
    with pytest.raises(ValueError, match="must"):
        LayerwiseLearningRate("sgd", **{argument: bad})


@pytest.mark.parametrize(
    "inner",
    [
        keras.optimizers.Ftrl(),
        keras.optimizers.ScheduleFreeAdamW(),
        keras.optimizers.Adam(use_ema=True),
        keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.Ftrl())),
    ],
)
def test_optimizers_with_weights_in_their_state_are_refused(inner):
    with pytest.raises(ValueError, match=r"keeps weights in its state. Received: optimizer=<"):
        LayerwiseLearningRate(inner, {"bias": 2.0})


def test_other_refusals():
    with pytest.raises(ValueError, match="belongs inside other wrappers"):
        LayerwiseLearningRate(Lookahead("sgd"))
    with pytest.raises(ValueError, match="`weight_decay_multipliers` need an optimizer of keras_lrsched"):
        LayerwiseLearningRate(keras.optimizers.AdamW(), weight_decay_multipliers={"bias": 0.0})


def test_several_optimizers_of_keras():
    both = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {"first_bias": keras.optimizers.SGD(0.2)})
    mine = trained(LayerwiseLearningRate(keras.optimizers.MultiOptimizer(both), {"bias": 2.0, "last": 3.0}))
    for value, rate, i in zip(mine, (0.1, 0.4, 0.3), range(3), strict=True):
        np.testing.assert_allclose(value, trained(keras.optimizers.SGD(rate))[i], rtol=1e-6)


@nightly
def test_every_optimizer_of_ours_takes_it():
    """They move only what has a rate."""
    for row in registry.entries("optimizers", kind="optimizer"):
        if row.name == "conditional_gradient":
            with pytest.raises(ValueError, match="whose learning rate is the length of its steps"):
                LayerwiseLearningRate(optimizers.get(row.name), {"last": 0.0})
        elif not getattr(optimizers.get(row.name), "needs_loss", False):
            optimizer = LayerwiseLearningRate(optimizers.get(row.name), {"last": 0.0})
            start, end = variables(), trained(optimizer, 2)
            atol = 1e-4 if row.name == "madgrad" else 0.0  # its epsilon is added to the learning rate, as by its authors
            np.testing.assert_allclose(end[2], ops.convert_to_numpy(start[2]), rtol=0, atol=atol, err_msg=row.name)


# Ready-made patterns


def transformer(width=8, heads=2):
    x = inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(16, width, name="tokens")(x)
    x = x + keras.layers.MultiHeadAttention(heads, width // heads, name="attention")(x, x)
    x = keras.layers.LayerNormalization(name="first_norm")(x)
    x = keras.layers.Dense(2 * width, "relu", name="feedforward_inner")(x)
    x = keras.layers.Dense(width, name="feedforward_outer")(x)
    return keras.Model(inputs, keras.layers.Dense(16, name="head")(x))


def rates_of(optimizer, model):
    optimizer.build(model.trainable_variables)
    return dict(zip([v.path for v in model.trainable_variables], optimizer.inner_optimizer._multipliers, strict=True))


def test_blockwise():
    model = transformer()
    rates = rates_of(LayerwiseLearningRate.blockwise(AdamW()), model)
    blocks = {"query": 8, "key": 8, "value": 4, "attention_output": 4, "feedforward": 6, "norm": 1, "tokens": 10, "head": 1}
    for path, rate in rates.items():
        assert rate == next(number for part, number in blocks.items() if part in path.removeprefix("attention/")), path
    with pytest.raises(ValueError, match=r"none of 1 variables is what 'role:query_key' is for; there are other. Leave the"):
        LayerwiseLearningRate.blockwise(AdamW()).build([keras.Variable([1.0], name="w")])
    rates = rates_of(
        LayerwiseLearningRate.blockwise(AdamW(), norm=None, embedding=3.0, patterns={"embedding": "head"}), model
    )
    assert (rates["head/kernel"], rates["tokens/embeddings"]) == (3, 1)


def test_lora_plus():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.layers[0].enable_lora(2)
    rates = rates_of(LayerwiseLearningRate.lora_plus(AdamW(), ratio=8), model)
    assert {path.split("/")[-1]: rate for path, rate in rates.items()} == {
        "bias": 1,
        "lora_kernel_a": 1,
        "lora_kernel_b": 8,
    }
    b = next(v for v in model.trainable_variables if v.path.endswith("_b"))
    assert not np.any(ops.convert_to_numpy(b))  # it is the one that starts from zero


def test_layer_decay_of_a_model_and_of_patterns():
    model = transformer()
    by_model = rates_of(LayerwiseLearningRate.layer_decay(AdamW(), 0.5, model), model)
    names = ["tokens", "attention", "first_norm", "feedforward_inner", "feedforward_outer", "head"]
    by_pattern = rates_of(LayerwiseLearningRate.layer_decay(AdamW(), 0.5, [f"^{name}/" for name in names]), model)
    assert by_model == by_pattern
    assert [by_model[path] for path in ("tokens/embeddings", "head/bias")] == [0.5**5, 1]


def test_discriminative():
    rates = rates_of(LayerwiseLearningRate.discriminative(AdamW(), ["tokens", "head"]), transformer())
    assert rates["tokens/embeddings"] == pytest.approx(1 / 2.6)
    assert rates["head/kernel"] == 1


def test_mup_of_models():
    """Four times as wide, with heads of the same size: four times as many."""
    base, target = transformer(8, 2), transformer(32, 8)
    inner = AdamW(weight_decay=0.1)
    rates = rates_of(LayerwiseLearningRate.mup(inner, base, target), target)
    hidden = {
        path
        for path in rates
        if path.endswith("kernel") and path != "head/kernel"  # the head has one wide axis
    }
    assert rates == {path: 0.25 if path in hidden else 1 for path in rates}
    assert inner._decay_multipliers == [4 if path in hidden else 1 for path in rates]
    sgd = rates_of(LayerwiseLearningRate.mup(optimizers.Lion(), base, target, rule="sgd"), target)
    assert sgd == {path: 1 if path in hidden or path == "head/bias" else 4 for path in sgd}


def test_mup_around_an_optimizer_of_keras():
    shapes = {"first_kernel": (3, 1), "first_bias": (1,), "last_kernel": (1, 1)}
    target = {"first_kernel": (3, 2), "first_bias": (2,), "last_kernel": (2, 2)}
    mine = trained(LayerwiseLearningRate.mup(keras.optimizers.Adam(0.01), shapes, target))
    np.testing.assert_allclose(mine[2], trained(keras.optimizers.Adam(0.005))[2], rtol=1e-6)
    with pytest.raises(ValueError, match="need an optimizer of keras_lrsched"):
        LayerwiseLearningRate.mup(keras.optimizers.AdamW(0.01), shapes, target)


def test_two_time_scales():
    slow, fast = LayerwiseLearningRate.two_time_scale(keras.optimizers.Adam(0.01, beta_1=0.5), 4)
    for mine, yours in zip(trained(fast), trained(keras.optimizers.Adam(0.04, beta_1=0.5)), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-5)
    for mine, yours in zip(trained(slow), trained(keras.optimizers.Adam(0.01, beta_1=0.5)), strict=True):
        np.testing.assert_array_equal(mine, yours)
