"""Optimizers with moments in 8 bits."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import kernels, optimizers
from keras_lrsched.precision import LossScaleOptimizer, QuantizedState
from keras_lrsched.precision._dynamic_map import dequantize_blockwise, quantize_blockwise
from keras_lrsched.precision._range_expansion import dequantize_expanded, quantize_expanded
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND, JIT_WAYS, compiled_update, quick_update
from tests.nightly import nightly, some

SHAPE = (70, 90)
KINDS = ("blockwise8", "coat")
BYTES = {"blockwise8": 1 + 4 * 25 / 6300, "coat": 1 + 5 * 50 / 6300}
INNER = {
    "Keras Adam": (keras.optimizers.Adam, 2),
    "Keras Adam, amsgrad": (lambda *given, **options: keras.optimizers.Adam(*given, amsgrad=True, **options), 3),
    "Keras AdamW": (keras.optimizers.AdamW, 2),
    "Keras Adamax": (keras.optimizers.Adamax, 2),
    "Keras Lion": (keras.optimizers.Lion, 1),
    "AdaBound": (optimizers.AdaBound, 2),
    "AdamAtan2": (optimizers.AdamAtan2, 2),
    "AdaMomentum": (optimizers.AdaMomentum, 2),
    "AdamW": (optimizers.AdamW, 2),
    "Lamb": (optimizers.Lamb, 2),
    "Lion": (optimizers.Lion, 1),
    "RectifiedAdam": (optimizers.RectifiedAdam, 2),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
of_keras_and_ours = pytest.mark.parametrize("inner", [keras.optimizers.AdamW, optimizers.AdamW])


def made(dtype="float32", seed=0, name="kernel", shape=SHAPE):
    value = np.random.default_rng(seed).standard_normal(shape)
    return keras.Variable(value.astype("float32"), dtype=dtype, name=name)


def gradient(t, shape=SHAPE, dtype="float32"):
    """Of very different sizes, around a mean."""
    rng = np.random.default_rng([7, t])
    return ops.convert_to_tensor((rng.standard_normal(shape) + 0.5) * np.exp(rng.standard_normal(shape)), dtype)


def values(tensors):
    return [np.array(ops.convert_to_numpy(ops.cast(tensor, "float32"))) for tensor in tensors]


def assert_same(one, other):
    for mine, yours in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(mine, yours)


# The formula


def stored(x, kind, signed):
    """The values of a moment after it was stored and read back."""
    x = ops.convert_to_tensor(x, "float32")
    if kind == "blockwise8":
        return ops.convert_to_numpy(dequantize_blockwise(*quantize_blockwise(x, signed), signed))
    return ops.convert_to_numpy(dequantize_expanded(*quantize_expanded(x, compact=True)))


@every_kind
@pytest.mark.parametrize("inner", [keras.optimizers.Adam, optimizers.AdamW])
def test_updates_by_hand(inner, kind):
    """Each uses moments in float32; only what is carried over to the next is in 8 bits."""
    w, epsilon = made(), 1e-6
    options = {"weight_decay": None} if inner is optimizers.AdamW else {}
    optimizer = QuantizedState(inner(0.01, epsilon=epsilon, **options), kind)
    expected, m, v = w.numpy().astype("float64"), np.zeros(SHAPE), np.zeros(SHAPE)
    for t in range(1, 6):
        g = gradient(t)
        optimizer.apply([g], [w])
        g = ops.convert_to_numpy(g).astype("float64")
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        if inner is optimizers.AdamW:
            expected -= 0.01 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
        else:
            expected -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + epsilon)
        m, v = stored(m, kind, True), stored(v, kind, False)
        # A moment whose rounding falls to the other side differs by a step of its code.
        difference = np.abs(w.numpy() - expected)
        assert np.mean(difference > 1e-5) < 1e-3
        assert np.max(difference) < 1e-3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=nightly if kind == "coat" and name not in ("Keras Adam", "AdamW", "Lion") else ())
        for name, kind in itertools.product(INNER, KINDS)
    ],
)
def test_close_to_float32(name, kind):
    make, moments = INNER[name]
    w, plain = made(), made()
    start = w.numpy().copy()
    optimizer, reference = QuantizedState(make(0.01), kind), make(0.01)
    for t in range(10):
        optimizer.apply([gradient(t)], [w])
        reference.apply([gradient(t)], [plain])
    moved = np.mean(np.abs(plain.numpy() - start))
    assert 0 < np.mean(np.abs(w.numpy() - plain.numpy())) < 0.03 * moved
    assert optimizer.state_bytes_per_parameter() == pytest.approx(moments * BYTES[kind], abs=1e-6)


def test_adam_mini_has_its_first_moment_in_8_bits():
    w = made()
    optimizer = QuantizedState(optimizers.AdamMini(0.01), "blockwise8")
    optimizer.apply([gradient(0)], [w])
    assert 1 < optimizer.state_bytes_per_parameter() < 1.1


@pytest.mark.parametrize("jit", JIT_WAYS)
@every_kind
@pytest.mark.parametrize(
    "inner",
    some(
        [keras.optimizers.AdamW, keras.optimizers.Lion, optimizers.AdamW, optimizers.Lion],
        chosen=lambda inner: inner is not keras.optimizers.Lion,
    ),
)
def test_compiled_update_is_the_eager_one(inner, kind, jit):
    w, other = made(), made()
    eager, compiled = QuantizedState(inner(0.01), kind), QuantizedState(inner(0.01), kind)
    update = compiled_update(compiled, [other], jit)
    for t in range(4):
        eager.apply([gradient(t)], [w])
        update([gradient(t)])
    # A sum in another order may round a moment to the next code, and the sign of Lion the other way.
    assert np.mean(np.abs(w.numpy() - other.numpy()) > 1e-5) < 2e-3
    assert compiled.state_bytes_per_parameter() == pytest.approx(eager.state_bytes_per_parameter())


PAIRS = [
    (optimizers.AdamW, "blockwise8", "float32"),
    (optimizers.AdamW, "coat", "bfloat16"),
    (optimizers.Lion, "blockwise8", "bfloat16"),
    (optimizers.Lion, "coat", "float32"),
]
"""Any two settings go together in one of these."""


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize(
    ("inner", "kind", "dtype"),
    [
        pytest.param(*case, marks=() if case in PAIRS else nightly)
        for case in itertools.product([optimizers.AdamW, optimizers.Lion], KINDS, ["float32", "bfloat16"])
    ],
)
def test_compiled_code_does_the_same(inner, kind, dtype, jit):
    """Also where a small variable has float32 moments, and the last block is not full."""
    weights, others = ([made(dtype), made(dtype, 1, "small", (5, 3))] for _ in range(2))
    plain, compiled = (
        QuantizedState(inner(0.01, weight_decay=0.1, fused=fused, clipnorm=9.0), kind) for fused in (False, True)
    )
    updates = compiled_update(plain, weights, jit), compiled_update(compiled, others, jit)
    for t in range(5):
        gradients = [gradient(t, dtype=dtype), gradient(t, (5, 3), dtype)]
        for update in updates:
            update(gradients)
    for mine, yours in zip(values(weights), values(others), strict=True):
        assert np.mean(np.abs(mine - yours) > 1e-5) < 2e-3
    codes = [[v for v in each.variables if v.name.endswith("codes")] for each in (plain, compiled)]
    assert len(codes[0]) == len(codes[1]) == (2 if inner is optimizers.AdamW else 1)
    for mine, yours in zip(*codes, strict=True):
        assert np.mean(ops.convert_to_numpy(mine) != ops.convert_to_numpy(yours)) < 2e-3


def parts_of(optimizer):
    endings = ("codes", "scale", "center", "k", "absmax")
    return {v.name: np.array(values([v])[0]) for v in optimizer.variables if v.name.rpartition("_")[2] in endings}


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("inner", [optimizers.AdamW, optimizers.Lion])
def test_one_compiled_update_of_expanded_moments(inner, jit):
    """From the same state: other last bits of a logarithm or a power move few codes, by one, and nothing else."""
    weights = made(), made()
    plain, compiled = (QuantizedState(inner(0.01, weight_decay=0.1, fused=fused), "coat") for fused in (False, True))
    updates = compiled_update(plain, [weights[0]], jit), compiled_update(compiled, [weights[1]], jit)
    for t in range(4):
        for mine, yours in zip((weights[0], *plain.variables), (weights[1], *compiled.variables), strict=True):
            yours.assign(mine)
        before = values(weights[:1])[0]
        for update in updates:
            update([gradient(t)])
        mine, yours = values(weights)
        np.testing.assert_allclose(yours, mine, rtol=2e-6, atol=2e-6 * np.max(np.abs(mine - before)))
        for (name, mine), yours in zip(parts_of(plain).items(), parts_of(compiled).values(), strict=True):
            if name.endswith("codes"):
                assert np.mean(mine != yours) < 1e-3
                assert np.max(np.abs(mine - yours)) <= 1
            elif name.endswith("k"):
                np.testing.assert_array_equal(mine, yours)
            else:
                np.testing.assert_allclose(yours, mine, rtol=2**-7)
                assert np.mean(mine != yours) < 0.05


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("inner", [optimizers.AdamW, optimizers.Lion])
def test_compiled_code_keeps_what_is_not_finite_in_its_group(inner, bad):
    weights = made(), made()
    g = np.array(ops.convert_to_numpy(gradient(0)))
    g.reshape(-1)[300], g.reshape(-1)[512:640], g.reshape(-1)[700] = bad, 0, 1e-30
    for w, fused in zip(weights, (False, True), strict=True):
        optimizer = QuantizedState(inner(0.01, fused=fused), "coat")
        for _ in range(3):
            optimizer.apply([ops.convert_to_tensor(g)], [w])
    one, other = (each.reshape(-1) for each in values(weights))
    np.testing.assert_allclose(other, one, atol=1e-4)
    assert np.all(np.isnan(other[256:384]))
    assert np.all(np.isfinite(other[:256]))
    assert np.all(np.isfinite(other[384:]))


def test_where_there_is_no_compiled_code(monkeypatch):
    for kind in KINDS:
        assert QuantizedState(optimizers.AdamW(), kind).inner_optimizer.fused == "auto"
        assert QuantizedState(optimizers.Lamb(), kind).inner_optimizer.fused is False
        assert QuantizedState(optimizers.AdamW(), kind, 96).inner_optimizer.fused is False
        with pytest.raises(ValueError, match="does not go with fused=True here"):
            QuantizedState(optimizers.AdamW(fused=True), kind, 96)
    monkeypatch.setattr("keras_lrsched.kernels._loading.has_gpu", lambda: True)
    assert not any(kernels.takes_codes("adamw", kind, 256) for kind in KINDS)


# State


@every_kind
def test_two_moments_take_two_bytes(kind):
    """2.0 to 2.1 for each parameter, with all scales; and there is nothing else."""
    variables = [made(shape=(256, 512)), made(shape=(64, 128), name="small")]
    for inner in (keras.optimizers.AdamW, optimizers.AdamW):
        optimizer = QuantizedState(inner(0.01), kind)
        optimizer.build(variables)
        expected = {"blockwise8": 2 + 2 * 4 / 256, "coat": 2 + 2 * 5 / 128}[kind]
        assert optimizer.state_bytes_per_parameter() == expected
        assert 2.0 <= expected <= 2.1
        sizes = {"uint8": 1, "bfloat16": 2, "float32": 4}
        by_hand = sum(sizes[v.dtype] * int(np.prod(v.shape)) for v in optimizer.variables if v.ndim)
        assert by_hand == optimizer.state_bytes()


def test_small_and_excluded_variables_have_float32_moments():
    variables = [
        made(shape=(64, 64), name="kernel"),
        made(shape=(65, 64), name="embeddings"),
        made(shape=(64, 63), name="small"),
    ]
    optimizer = QuantizedState(optimizers.AdamW(0.01), "blockwise8", exclude_from_quantization=["embed"])
    optimizer.build(variables)
    in_float32 = {v.name for v in optimizer.variables if v.dtype == "float32" and v.ndim and "absmax" not in v.name}
    assert in_float32 == {"embeddings_m", "embeddings_v", "small_m", "small_v"}
    optimizer = QuantizedState(keras.optimizers.Lion(0.01), "coat", min_size=1)
    optimizer.build(variables)
    assert not {v.name for v in optimizer.variables if v.dtype == "float32" and v.ndim}


def test_excluded_variables_are_updated_as_without():
    w, plain = made(), made()
    optimizer, reference = (
        QuantizedState(optimizers.AdamW(0.01, fused=False), "coat", min_size=6301),
        optimizers.AdamW(0.01, fused=False),
    )
    for t in range(3):
        optimizer.apply([gradient(t)], [w])
        reference.apply([gradient(t)], [plain])
    assert_same([w], [plain])


def test_block_size():
    optimizer = QuantizedState(keras.optimizers.Lion(0.01), "blockwise8", block_size=2048)
    optimizer.build([made(shape=(64, 128))])
    assert optimizer.state_bytes() == 64 * 128 + 4 * 4


@pytest.mark.parametrize(("inner", "moments"), [(keras.optimizers.Lion, 1), (optimizers.AdamW, 2)])
@every_kind
def test_low_precision_variables(inner, moments, kind):
    w = made("bfloat16")
    before = values([w])[0]
    optimizer = QuantizedState(inner(0.1), kind)
    for t in range(5):
        optimizer.apply([gradient(t, dtype="bfloat16")], [w])
    after = values([w])[0]
    assert np.all(np.isfinite(after))
    assert np.mean(after != before) > 0.9
    assert optimizer.state_bytes_per_parameter() == pytest.approx(moments * BYTES[kind], abs=1e-6)


def test_master_weights():
    low, high = made("bfloat16"), keras.Variable(ops.cast(made("bfloat16"), "float32"), name="kernel")
    one = QuantizedState(optimizers.AdamW(1e-4, master_weights=True), "coat")
    two = QuantizedState(optimizers.AdamW(1e-4, fused=False), "coat")
    for t in range(5):
        g = gradient(t, dtype="bfloat16")
        one.apply([g], [low])
        two.apply([ops.cast(g, "float32")], [high])
    assert_same([low], [ops.cast(high, "bfloat16")])


@every_kind
def test_a_gradient_of_zero_makes_no_large_step(kind):
    """Where a second moment is small in its block, and the gradient 0 for once, the first is divided by its root alone."""
    w = keras.Variable(np.zeros(4096, "float32"), name="w")
    optimizer = QuantizedState(optimizers.AdamW(1.0, weight_decay=None), kind)
    g = np.full(4096, 1e-4, "float32")
    g[::100] = 1
    optimizer.apply([ops.convert_to_tensor(g)], [w])
    before = w.numpy().copy()
    optimizer.apply([ops.zeros(4096)], [w])
    assert np.max(np.abs(w.numpy() - before)) < 2


# Settings are the inner optimizer's


@of_keras_and_ours
@pytest.mark.parametrize("options", [{"clipnorm": 0.1}, {"clipvalue": 0.1}, {"global_clipnorm": 0.1}])
def test_clipping(inner, options):
    w, other = made(), made()
    clipped, plain = QuantizedState(inner(0.01, **options), "blockwise8"), QuantizedState(inner(0.01), "blockwise8")
    (name, limit), g = *options.items(), gradient(0)
    length = ops.sqrt(ops.sum(g * g))
    clipped.apply([g], [w])
    plain.apply([ops.clip(g, -limit, limit) if name == "clipvalue" else g * limit / length], [other])
    np.testing.assert_allclose(w.numpy(), other.numpy(), atol=1e-5)


@of_keras_and_ours
@pytest.mark.parametrize("jit", JIT_WAYS)
def test_accumulated_gradients_count_as_one_update(inner, jit):
    options = {"learning_rate": LinearDecay(1e-2, 40)}
    big, small = made(), made()
    one = compiled_update(QuantizedState(inner(**options), "blockwise8"), [big], jit)
    optimizer = QuantizedState(inner(**options, gradient_accumulation_steps=2), "blockwise8")
    two = compiled_update(optimizer, [small], jit)
    codes = [v for v in optimizer.variables if v.dtype == "uint8"]
    for t in range(3):
        one([gradient(t)])
        before = values([small, *codes])
        two([gradient(t) * 0.5])
        for old, new in zip(before, values([small, *codes]), strict=True):
            np.testing.assert_array_equal(old, new)
        two([gradient(t) * 1.5])
    if inner is optimizers.AdamW:  # Keras asks the schedule at each micro-step
        assert np.mean(np.abs(big.numpy() - small.numpy()) > 1e-5) < 2e-3


@of_keras_and_ours
def test_schedules_and_weight_decay(inner):
    w, other = made(), made()
    scheduled = QuantizedState(inner(LinearDecay(1e-2, 4), weight_decay=0.5), "coat")
    by_hand = QuantizedState(inner(1.0, weight_decay=0.5), "coat")
    undecayed, third = QuantizedState(inner(LinearDecay(1e-2, 4), weight_decay=0.0), "coat"), made()
    for t in range(3):
        by_hand.learning_rate = float(LinearDecay(1e-2, 4)(t))
        for optimizer, variable in ((scheduled, w), (by_hand, other), (undecayed, third)):
            optimizer.apply([gradient(t)], [variable])
        assert float(scheduled.learning_rate) == pytest.approx(float(LinearDecay(1e-2, 4)(t + 1)))
    np.testing.assert_allclose(w.numpy(), other.numpy(), atol=1e-5)
    assert np.mean(np.abs(w.numpy()) < np.abs(third.numpy())) > 0.95


@of_keras_and_ours
def test_moving_average_of_weights(inner):
    w = made()
    optimizer = QuantizedState(inner(0.1, use_ema=True, ema_momentum=0.9), "blockwise8")
    mean = None
    for t in range(3):
        optimizer.apply([gradient(t)], [w])
        mean = w.numpy().copy() if mean is None else 0.9 * mean + 0.1 * w.numpy()
    optimizer.finalize_variable_values([w])
    np.testing.assert_allclose(w.numpy(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", JIT_WAYS)
@every_kind
def test_nonfinite_gradients_are_skipped(kind, jit):
    """The state stays as it is, bit for bit."""
    w = made()
    optimizer = QuantizedState(optimizers.AdamW(0.01, nonfinite="skip"), kind)
    update = compiled_update(optimizer, [w], jit)
    update([gradient(0)])
    state = [v for v in optimizer.variables if v is not optimizer.inner_optimizer.skipped_updates]
    before = values([w, *state])
    update([gradient(1) * np.float32("inf")])
    for old, new in zip(before, values([w, *state]), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(optimizer.inner_optimizer.skipped_updates) == 1
    update([gradient(1)])
    assert np.any(w.numpy() != before[0])


@of_keras_and_ours
@every_kind
def test_nonfinite_gradients_propagate(inner, kind):
    w = made()
    optimizer = QuantizedState(inner(0.01), kind)
    optimizer.apply([gradient(0) * np.float32("nan")], [w])
    assert np.all(np.isnan(w.numpy()))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has IndexedSlices")
@of_keras_and_ours
def test_sparse_gradients(inner):
    """As the inner optimizer has them: Keras' own does not add up rows that occur twice before it squares them."""
    import tensorflow as tf

    slices = tf.IndexedSlices(gradient(0, (3, 90)), tf.constant([4, 1, 4]), tf.constant(SHAPE))
    w, other = made(), made()
    QuantizedState(inner(0.01), "blockwise8").apply([slices], [w])
    inner(0.01).apply([slices], [other])
    np.testing.assert_allclose(w.numpy(), other.numpy(), rtol=1e-6)


# Configuration and files


@every_kind
def test_config(kind):
    optimizer = QuantizedState(
        optimizers.Lion(LinearDecay(0.1, 10), beta_2=0.98), kind, 64, min_size=10, exclude_from_quantization=["embed"]
    )
    saved = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    assert saved["registered_name"] == "keras_lrsched>QuantizedState"
    for again in (keras.optimizers.deserialize(saved), keras.optimizers.get(saved)):
        assert type(again) is QuantizedState
        assert again.get_config() == optimizer.get_config()
    assert type(keras.optimizers.get(saved).inner_optimizer) is optimizers.Lion


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(70), keras.layers.Dense(3)]
    )


@of_keras_and_ours
@every_kind
def test_saved_model_goes_on_training(inner, kind, tmp_path):
    """The next updates are equal, bit for bit."""
    one = model()
    one.compile(QuantizedState(inner(LinearDecay(1e-2, 20)), kind, min_size=1000), "mse")
    update = quick_update(one.optimizer, one.trainable_variables)

    def grads(t):
        return [gradient(t, tuple(v.shape)) for v in one.trainable_variables]

    for t in range(3):
        update(grads(t))
    one.save(tmp_path / "model.keras")
    two = keras.saving.load_model(tmp_path / "model.keras")
    assert type(two.optimizer) is QuantizedState
    assert [v.dtype for v in two.optimizer.variables] == [v.dtype for v in one.optimizer.variables]
    assert_same(two.optimizer.variables, one.optimizer.variables)
    again = quick_update(two.optimizer, two.trainable_variables)
    for t in range(3, 6):
        update(grads(t))
        again(grads(t))
        assert_same(two.trainable_variables, one.trainable_variables)
        assert_same(two.optimizer.variables, one.optimizer.variables)


@pytest.mark.parametrize(
    ("inner", "kind", "policy"),
    [
        pytest.param(keras.optimizers.AdamW, "blockwise8", "float32", marks=nightly),
        (optimizers.AdamW, "coat", "mixed_float16"),
    ],
)
def test_fit(inner, kind, policy):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    one = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, "relu", dtype=policy),
            keras.layers.Dense(10, dtype=policy),
        ]
    )
    one.dtype_policy = keras.DTypePolicy(policy)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    one.compile(QuantizedState(inner(3e-3), kind), loss, metrics=["accuracy"])
    assert isinstance(one.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    one.fit(x / 16, y, batch_size=64, epochs=4, verbose=0)
    assert one.evaluate(x / 16, y, verbose=0)[1] > 0.9


def test_inside_another_wrapper():
    w, other = made(), made()
    ahead = optimizers.Lookahead(QuantizedState(optimizers.AdamW(0.01), "coat"), sync_period=2, slow_step_size=1.0)
    plain = QuantizedState(optimizers.AdamW(0.01), "coat")
    for t in range(4):
        ahead.apply([gradient(t)], [w])
        plain.apply([gradient(t)], [other])
    np.testing.assert_allclose(w.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: QuantizedState(optimizers.AdamW(), "int8"),
            "`kind` must be one of 'blockwise8', 'coat'. Received: kind='int8'",
        ),
        (
            lambda: QuantizedState(optimizers.AdamW(), "coat", 0),
            "`block_size` must be a positive integer. Received: block_size=0",
        ),
        (lambda: QuantizedState(optimizers.AdamW(), "coat", min_size=-1), "`min_size`"),
        (
            lambda: QuantizedState(optimizers.AdamW(), "coat", exclude_from_quantization="bias"),
            "`exclude_from_quantization`",
        ),
        (lambda: QuantizedState(keras.optimizers.SGD(), "coat"), "one whose moments are known: AdaBound, AdaMomentum, Adam"),
        (lambda: QuantizedState(optimizers.Muon(), "coat"), "one whose moments are known"),
        (lambda: QuantizedState(QuantizedState(optimizers.AdamW(), "coat"), "coat"), "quantized already"),
        (lambda: QuantizedState(optimizers.Lookahead(optimizers.AdamW()), "coat"), "belongs inside Lookahead"),
        (lambda: QuantizedState(keras.optimizers.LossScaleOptimizer(optimizers.AdamW()), "coat"), "around QuantizedState"),
        (lambda: QuantizedState(LossScaleOptimizer(optimizers.AdamW()), "coat"), "around QuantizedState"),
        (lambda: QuantizedState(optimizers.Lamb(fused=True), "coat"), "fused=True"),
        (lambda: QuantizedState(optimizers.AdamW(lazy_embeddings=True), "coat"), "lazy_embeddings=True"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_uses():
    built = optimizers.AdamW()
    built.build([made()])
    with pytest.raises(ValueError, match="must not be built"):
        QuantizedState(built, "coat")
    optimizer = QuantizedState(optimizers.AdamW(), "coat", exclude_from_quantization=["embed"])
    with pytest.raises(
        ValueError, match="`exclude_from_quantization`: 'embed' is found in none of the 1 paths; the nearest are kernel"
    ):
        optimizer.build([made()])
    with pytest.raises(ValueError, match="no state yet"):
        optimizer.state_bytes()


def test_variables_of_one_name():
    """Each is coded, or not, by its own size."""
    large, small = (keras.Variable(np.ones(shape, "float32"), name="same") for shape in ((64, 64), (3,)))
    optimizer = QuantizedState(optimizers.AdamW(0.1), "coat")
    optimizer.build([large, small])
    assert [v.shape for v in optimizer.variables if "same_m" in v.path and "codes" not in v.path][-1] == (3,)
    assert sum("codes" in v.path for v in optimizer.variables) == 2


def test_a_state_of_other_blocks_is_refused():
    def saved(block_size, store):
        optimizer = QuantizedState(keras.optimizers.Adam(), "blockwise8", block_size=block_size, min_size=1)
        optimizer.build([keras.Variable(np.ones((16, 32), "float32"))])
        (optimizer.load_own_variables if store else optimizer.save_own_variables)(store)
        return store

    store = saved(256, {})
    saved(256, store)
    with pytest.raises(ValueError, match=r"another `kind`, `block_size` or `min_size`. Received: .*block_size=128"):
        saved(128, store)
