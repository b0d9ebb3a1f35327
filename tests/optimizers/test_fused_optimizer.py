"""The compiled update does what `step` says, wherever it is called from."""

import functools

import keras
import numpy as np
import pytest

from keras_lrsched import kernels, optimizers
from keras_lrsched.schedules import LinearDecay
from tests.nightly import some

SHAPES = ((3, 5), (1,), (), (257, 129), (0, 4), (16,), (70_001,))
OPTIMIZERS = {
    "SGD": (optimizers.SGD, {"momentum": 0.9}),
    "SGD, Nesterov": (optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "Lion": (optimizers.Lion, {}),
    "AdamW": (optimizers.AdamW, {}),
    "AdamMini": (optimizers.AdamMini, {"blocks": {"w_4": "entry"}}),  # there is no mean of nothing
    "AdamMini, blocks": (
        optimizers.AdamMini,
        {"blocks": {"w_0": [0], "w_1": "entry", "w_2": [], "w_3": 3, "w_4": [0], "w_5": "entry", "w_6": []}},
    ),
    "Lars": (optimizers.Lars, {"learning_rate": 0.1}),
    "Lars, all options": (
        optimizers.Lars,
        {
            "learning_rate": 0.1,
            "nesterov": True,
            "trust_clip": True,
            "learning_rate_in_momentum": True,
            "exclude_from_layer_adaptation": ["w_3"],
        },
    ),
    "Lamb": (optimizers.Lamb, {}),
    "Lamb, outside": (optimizers.Lamb, {"decay_placement": "outside", "always_adapt": False, "bias_correction": False}),
    "Lamb, gradient": (
        optimizers.Lamb,
        {"decay_placement": "gradient", "trust_clip": True, "max_grad_norm": 1.0, "grad_averaging": False},
    ),
}
UPDATES = 40
"""So that each kind of gradients comes, and ordinary ones after it."""
COMMON = {
    "weight_decay": 0.1,
    "exclude_from_weight_decay": ["w_1$"],
    "learning_rate_multipliers": {"w_0": 0.5},
}


def variables(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    return [keras.Variable(value, dtype=dtype, name=f"w_{i}") for i, value in enumerate(values)]


@functools.cache
def gradients(t):
    """Ordinary ones, with spikes, zeros, and numbers so small that their square is 0."""
    rng = np.random.default_rng(t)
    scale = (1.0, 1e4, 0.0, 1e-25)[t % 4 if t % 7 == 0 else 0]
    return [np.asarray(scale * rng.normal(size=shape), "float32") for shape in SHAPES]


def train(optimizer, variables, updates):
    optimizer.build(variables)
    apply = compiled(optimizer, variables)
    for t in range(updates):
        apply([keras.ops.convert_to_tensor(g) for g in gradients(t)])
    state = [value for value in optimizer.variables if "iterations" not in value.path]
    return [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))) for v in [*variables, *state]]


def compiled(optimizer, variables):
    """`optimizer.apply`, on TensorFlow in a graph, where many small operations take less time.

    Not so on JAX: compiled by XLA, `step` itself is another one. It contracts multiplications with additions, and takes the
    root of the square of a single number for its absolute value.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda g: optimizer.apply(g, variables))
    return lambda g: optimizer.apply(g, variables)


def assert_close(actual, expected, rtol=2e-6):
    """Each entry to `rtol` of the largest of its tensor: where terms cancel, an entry has fewer digits than these."""
    for a, b in zip(actual, expected, strict=True):
        if b.size:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_agrees_with_step(name):
    make, options = OPTIMIZERS[name]
    runs = [train(make(**{**COMMON, **options, "fused": fused}), variables(), UPDATES) for fused in (True, False)]
    assert_close(*runs)


@pytest.mark.parametrize("name", ["SGD", "Lion", "AdamW", "Lars", "Lamb", "AdamMini"])
def test_bfloat16_variables(name):
    """A last bit of float32 may decide how a variable is rounded: by one unit of bfloat16, in few entries."""
    make, options = OPTIMIZERS[name]
    runs = [train(make(**{**COMMON, **options, "fused": fused}), variables("bfloat16"), 20) for fused in (True, False)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2**-7, atol=1e-30 if not b.size else 2**-7 * np.abs(b).max())
    different = sum(np.sum(a != b) for a, b in zip(*(run[: len(SHAPES)] for run in runs), strict=True))
    assert different < 1e-3 * sum(a.size for a in runs[0])


@pytest.mark.parametrize("name", ["Lion", "Lamb"])
def test_bfloat16_gradients_are_read_as_they_are(name):
    make, options = OPTIMIZERS[name]
    narrow = [keras.ops.cast(g, "bfloat16") for g in gradients(0)]
    results = []
    for given in (narrow, [keras.ops.cast(g, "float32") for g in narrow]):
        own = variables()
        optimizer = make(**{**COMMON, **options, "fused": True})
        optimizer.build(own)
        optimizer.apply(given, own)
        results.append([keras.ops.convert_to_numpy(v) for v in own])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fused", ["auto", True])
@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_gradients_of_other_dtypes(dtype, fused):
    """They are cast as Keras does it."""
    results = []
    for given in (dtype, "float32"):
        w = keras.Variable(np.ones(4, "float32"))
        optimizer = optimizers.AdamW(0.1, fused=fused)
        optimizer.apply([keras.ops.cast(keras.ops.array([1.0, -2.0, 0.0, 3.0]), given)], [w])
        results.append(keras.ops.convert_to_numpy(w))
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0], np.ones(4))


def test_one_variable_without_a_kernel_for_all():
    """Then gradients in bfloat16 become float32 for the others, too, as `step` wants them."""
    results = []
    for dtype in ("bfloat16", "float32"):
        own = [keras.Variable(np.ones(4), dtype=kind) for kind in ("float32", "float16")]
        optimizer = optimizers.AdamW(0.1)
        for _ in range(2):
            optimizer.apply([keras.ops.cast(keras.ops.array([1.0, -2.0, 0.5, 3.0]), dtype)] * 2, own)
        results.append(keras.ops.convert_to_numpy(own[0]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["Lion", "AdamW", "Lamb"])
def test_same_bits_in_every_run(name):
    make, options = OPTIMIZERS[name]
    first, second = (train(make(**{**COMMON, **options, "fused": True}), variables(), 5) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stochastic_rounding_is_right_on_average():
    """A step of a tenth of the distance to the next number in bfloat16 happens at every tenth entry."""
    w = keras.Variable(np.ones(200_000, "float32"), dtype="bfloat16")
    optimizer = optimizers.SGD(2.0**-8 / 10, momentum=0.0, stochastic_rounding=True, seed=1, fused=True)
    optimizer.build([w])
    gradient = keras.ops.ones(w.shape, "float32")
    moved = []
    for _ in range(2):
        before = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(w, "float32")))
        optimizer.apply([gradient], [w])
        after = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(w, "float32")))
        moved.append((before == 1) & (after < 1))
    assert moved[0].mean() == pytest.approx(0.1, abs=0.003)
    assert moved[1].sum() / (~moved[0]).sum() == pytest.approx(0.1, abs=0.003)  # others, the second time
    neighbors = np.corrcoef(moved[0][:-1], moved[0][1:])[0, 1]
    assert abs(neighbors) < 0.01


def test_nan_and_infinity_go_where_the_formula_puts_them():
    g = np.array([np.nan, np.inf, -np.inf, 1.0], "float32")
    for name, (make, options) in OPTIMIZERS.items():
        results = []
        for fused in (True, False):
            w = keras.Variable(np.ones(4, "float32"), name="w_0")
            no_paths = {key: options[key] for key in options.keys() - {"blocks", "exclude_from_layer_adaptation"}}
            optimizer = make(**no_paths, fused=fused)
            optimizer.build([w])
            optimizer.apply([keras.ops.convert_to_tensor(g)], [w])
            results.append(keras.ops.convert_to_numpy(w))
        np.testing.assert_allclose(*results, rtol=2e-6, err_msg=name)


def model(optimizer, **options):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((20,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    built = keras.Sequential(layers)
    built.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return built


@pytest.mark.parametrize("jit", some([False, True]))
@pytest.mark.parametrize(
    "name", some(["SGD", "Lion", "AdamW", "Lars", "Lamb", "AdamMini"], chosen=lambda name: name == "AdamW")
)
def test_fit(name, jit):
    """With a schedule, gradient clipping and accumulation, in what the backend makes of a training step."""
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch.compile is not a matter of the update")
    if not jit and keras.backend.backend() == "jax":
        pytest.skip("takes long, and `test_agrees_with_step` has shown it")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 20)).astype("float32"), rng.integers(0, 10, 256)
    make, _ = OPTIMIZERS[name]
    weights = []
    for fused in (True, False):
        optimizer = make(
            **{
                "learning_rate": LinearDecay(0.01, 10),
                "weight_decay": 0.1,
                "global_clipnorm": 0.1,
                "gradient_accumulation_steps": 2,
                "fused": fused,
            }
        )
        trained = model(optimizer, jit_compile=jit)
        optimizer.build(trained.trainable_variables)
        trained.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        weights.append(trained.get_weights())
    assert_close(*weights, rtol=1e-4)  # Lion's sign turns where rounding does


def test_a_gradient_of_another_shape_changes_nothing():
    w = keras.Variable(np.ones(4, "float32"))
    optimizer = optimizers.Lion(0.1, fused=True)
    optimizer.build([w])
    with pytest.raises(Exception, match="shape"):
        optimizer.apply([keras.ops.ones(5)], [w])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(w), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonfinite": "skip"}, "nonfinite='skip'"),
        ({"master_weights": True}, "master_weights=True"),
        ({"lazy_embeddings": True}, "lazy_embeddings=True"),
    ],
)
def test_true_says_why_it_cannot_be(options, message):
    w = keras.Variable(np.ones(4, "float32"))
    optimizer = optimizers.Lion(0.1, fused=True, **options)
    optimizer.build([w])
    with pytest.raises(RuntimeError, match=message):
        optimizer.apply([keras.ops.ones(4)], [w])
    plain = optimizers.Lion(0.1, **options)  # "auto" goes without
    plain.build([w])
    plain.apply([keras.ops.ones(4)], [w])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(w), 0.9, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="about PyTorch's views")
def test_a_transposed_view_goes_without():
    import torch

    w = keras.Variable(np.ones((2, 3), "float32"))
    w._value.data = torch.ones(3, 2).T
    optimizer = optimizers.Lion(0.1)
    optimizer.build([w])
    optimizer.apply([keras.ops.ones((2, 3))], [w])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(w), 0.9, rtol=1e-6)
    with pytest.raises(RuntimeError, match="contiguous"):
        optimizers.Lion(0.1, fused=True).apply([keras.ops.ones((2, 3))], [w])


def test_a_subclass_with_a_formula_of_its_own_goes_without():
    class Still(optimizers.Lion):
        def step(self, w, g, state, ctx):
            return w

    class Slow(optimizers.Lion):
        def __init__(self, **options):
            super().__init__(learning_rate=1e-6, **options)

    w = keras.Variable(np.ones(4, "float32"))
    Still(0.1).apply([keras.ops.ones(4)], [w])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(w), 1)
    with pytest.raises(RuntimeError, match="what Still changes: step"):
        Still(0.1, fused=True).apply([keras.ops.ones(4)], [w])
    Slow(fused=True).apply([keras.ops.ones(4)], [w])


def test_other_dtypes_have_no_kernel():
    w = keras.Variable(np.ones(4), dtype="float64")
    optimizer = optimizers.Lion(0.1, fused=True)
    optimizer.build([w])
    with pytest.raises(RuntimeError, match="float64"):
        optimizer.apply([keras.ops.ones(4, "float64")], [w])


def test_bad_choice():
    with pytest.raises(ValueError, match="fused"):
        optimizers.Lion(fused="yes")


def test_the_environment_decides(monkeypatch):
    w = keras.Variable(np.ones(4, "float32"))
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0")
    assert kernels.reason_against([w]) == "KERAS_LRSCHED_FUSED is 0."
    optimizer = optimizers.Lion(0.1)
    optimizer.build([w])
    monkeypatch.setattr(kernels, "update", None)
    optimizer.apply([keras.ops.ones(4)], [w])
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "perhaps")
    with pytest.raises(ValueError, match="perhaps"):
        kernels.mode()
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    optimizer = optimizers.Lion(0.1, nonfinite="skip")
    optimizer.build([w])
    with pytest.raises(RuntimeError, match="nonfinite"):
        optimizer.apply([keras.ops.ones(4)], [w])


def test_gradients_that_the_kernel_cannot_read():
    """Nothing is called with the address of something else."""
    w = keras.Variable(np.ones(4, "float32"))
    narrow = keras.ops.ones(4, "float16")
    with pytest.raises(ValueError, match="Gradients must be in float32 or bfloat16"):
        kernels.update("sgd", [w], [[w]], [narrow], None, None, None)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="elsewhere the framework checks it")
def test_a_gradient_on_another_device():
    import torch

    w = keras.Variable(np.ones(4, "float32"))
    with pytest.raises(ValueError, match="must be on one device"):
        optimizers.Lion(0.1).apply([torch.ones(4, device="meta")], [w])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(w), 1)
