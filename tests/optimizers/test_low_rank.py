"""GaLore, APOLLO and Fira: projections, ranks, what is a matrix."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import AdamW, Apollo, ApolloMini, Fira, GaLore
from keras_lrsched.optimizers._low_rank import (
    limited,
    random_directions,
    randomized_singular_vectors,
    seed_for,
    singular_vectors,
)
from tests.contract.backends import BACKEND, JIT_WAYS, compiled_update
from tests.nightly import some

METHODS = (GaLore, Apollo, ApolloMini, Fira)
every_method = pytest.mark.parametrize("method", METHODS)
every_jit = pytest.mark.parametrize("jit", JIT_WAYS)


def variable(shape, name="kernel", dtype="float32", seed=0):
    return keras.Variable(np.random.default_rng(seed).normal(size=shape), dtype=dtype, name=name)


def gradient(shape, t, dtype="float32"):
    return ops.convert_to_tensor(np.random.default_rng(100 + t).normal(size=shape), dtype)


def number(x):
    return np.array(ops.convert_to_numpy(x))


def train(optimizer, weights, steps=5, start=0, jit=None):
    update = optimizer.apply if jit is None else compiled_update(optimizer, weights, jit)
    optimizer.build(weights)
    for t in range(start, start + steps):
        update([gradient(w.shape, t) for w in weights])
        yield [number(w) for w in weights]


def shapes(optimizer):
    return [{name: tuple(v.shape) for name, v in state.items()} for state in optimizer._states]


# What is a matrix


@pytest.mark.parametrize(
    ("shape", "name", "options", "matrix"),
    [
        ((64, 32), "kernel", {}, (32, 8, 64)),
        ((32, 64), "kernel", {}, (32, 8, 64)),
        ((5, 9), "kernel", {}, (5, 2, 9)),
        ((6, 1), "kernel", {}, (1, 1, 6)),
        ((50, 8), "embeddings", {}, (8, 2, 50)),
        ((64, 32), "kernel", {"rank": 32}, (32, 32, 64)),
        ((64, 32), "kernel", {"exclude_from_projection": ["kern"]}, None),
        ((64,), "kernel", {}, None),
        ((), "kernel", {}, None),
        ((4, 8), "bias", {}, None),
        ((4, 8), "bias", {"input_axes": {"bias": 1}}, (4, 1, 8)),
        ((3, 3, 2, 8), "kernel", {}, None),
        ((3, 3, 2, 8), "kernel", {"input_axes": {"kernel": 3}}, (8, 2, 18)),
        ((3, 3, 2, 8), "kernel", {"input_axes": {"kernel": 3}, "exclude_from_projection": ["^kernel$"]}, None),
    ],
)
def test_what_is_a_matrix(shape, name, options, matrix):
    optimizer = Fira(**options)
    optimizer.build([variable(shape, name)])
    if matrix is None:
        assert shapes(optimizer) == [{"m": shape, "v": shape}]
    else:
        rows, rank, columns = matrix
        moments = {"m": (rank, columns), "v": (rank, columns)}
        assert shapes(optimizer) == [{**moments, "length": (), "projection": (rows, rank)}]


def test_kernels_of_attention():
    attention = keras.layers.MultiHeadAttention(4, 8)
    attention.build((None, 9, 16), (None, 9, 16))
    optimizer = Apollo()
    optimizer.build(attention.trainable_variables)
    assert {state["m"] for state in shapes(optimizer) if "length" in state} == {(4, 32)}
    assert sum("length" in state for state in shapes(optimizer)) == 4


@every_method
def test_a_matrix_of_more_axes_is_updated_as_its_matrix(method):
    rule = {"input_axes": {"kernel": 2}}
    cube, matrix = variable((3, 2, 4)), keras.Variable(number(variable((3, 2, 4))).reshape(6, 4), name="kernel")
    for one, other in zip(train(method(**rule), [cube]), _reshaped_run(method, matrix, (3, 2, 4)), strict=True):
        np.testing.assert_array_equal(one[0].reshape(6, 4), other)


def _reshaped_run(method, matrix, shape):
    optimizer = method()
    for t in range(5):
        optimizer.apply([ops.reshape(gradient(shape, t), matrix.shape)], [matrix])
        yield number(matrix)


@every_method
def test_the_shorter_side_is_projected(method):
    """So a matrix and its transpose are updated alike."""
    one, other = variable((3, 5)), keras.Variable(number(variable((3, 5))).T, name="kernel")
    optimizers = method(rank=1, update_proj_gap=2), method(rank=1, update_proj_gap=2)
    for t in range(5):
        optimizers[0].apply([gradient((3, 5), t)], [one])
        optimizers[1].apply([ops.transpose(gradient((3, 5), t))], [other])
        np.testing.assert_allclose(number(one), number(other).T, rtol=1e-6)


def test_of_a_square_matrix_the_inputs_are_projected():
    w, optimizer = variable((4, 4)), GaLore(rank=1)
    optimizer.apply([ops.outer(ops.array([1.0, 0, 0, 0]), ops.ones(4))], [w])
    np.testing.assert_allclose(number(optimizer._states[0]["projection"]), np.eye(4)[:, :1], atol=1e-6)


@every_method
def test_the_rest_is_updated_as_by_adam(method):
    options = {"weight_decay": None, "learning_rate": 0.01, "epsilon": 0.0}
    weights = [variable((5,)), variable((3, 4), "excluded")]
    others = [variable((5,)), variable((3, 4), "excluded")]
    ours, adam = method(exclude_from_projection=["excluded"], **options), AdamW(**options)
    for mine, yours in zip(train(ours, weights), train(adam, others), strict=True):
        for a, b in zip(mine, yours, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


# Ranks


@every_method
def test_rank_above_the_shorter_side(method):
    weights = [variable((8, 9), "first"), variable((8, 4), "second"), variable((3, 9), "third"), variable((2,), "last")]
    with pytest.raises(ValueError, match="`rank` must be at most") as error:
        method(rank=5).build(weights)
    assert str(error.value).endswith("rank=5, for second of shape (8, 4), third of shape (3, 9)")
    method(rank=5, exclude_from_projection=["second", "third"]).build(weights)
    method(rank=3).build(weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_axes": {"kernel": 0}}, "`input_axes` must be a positive integer. Received: input_axes=0"),
        ({"input_axes": {"kernel": 2}}, r"`input_axes` must leave .* 2 for kernel of shape \(3, 4\)"),
        ({"input_axes": {"dense": 1}}, "`input_axes`: 'dense' is found in none of the 1 paths; the nearest are kernel"),
        (
            {"exclude_from_projection": ["dense"]},
            "`exclude_from_projection`: 'dense' is found in none of the 1 paths; the nearest are kernel",
        ),
    ],
)
def test_rules_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        GaLore(**options).build([variable((3, 4))])


# Projections


def slowly_falling(k, n, dtype="float32"):
    """A matrix with singular values 1, 1/2, 1/3, ..., and its left singular vectors."""
    rng = np.random.default_rng(0)
    u, v = np.linalg.qr(rng.normal(size=(k, k)))[0], np.linalg.qr(rng.normal(size=(n, k)))[0]
    return (u / np.arange(1, k + 1)) @ v.T, u


@every_jit
@pytest.mark.parametrize(("k", "n", "rank"), [(3, 4, 2), (32, 64, 8), (64, 64, 16), (5, 5, 5)])
def test_singular_vectors(k, n, rank, jit):
    g, u = slowly_falling(k, n)
    p = number(compiled(lambda x: singular_vectors(x, rank), jit)(ops.convert_to_tensor(g, "float32")))
    np.testing.assert_allclose(p.T @ p, np.eye(rank), atol=3e-6)
    largest = u[np.abs(u).argmax(axis=0), range(k)]
    np.testing.assert_allclose(p, (u * np.sign(largest))[:, :rank], atol=1e-5)


@every_jit
def test_randomized_singular_vectors(jit):
    g, _ = slowly_falling(64, 128)
    vectors = compiled(lambda x: randomized_singular_vectors(x, 16, seed_for(0, 0, 0)), jit)
    p = number(vectors(ops.convert_to_tensor(g, "float32")))
    np.testing.assert_allclose(p.T @ p, np.eye(16), atol=3e-6)
    best = np.sum(1 / np.arange(1.0, 17) ** 2)
    assert 0.999 * best < np.sum((p.T @ g) ** 2) <= best * (1 + 1e-6)
    assert np.all(p.max(axis=0) >= -p.min(axis=0))


def test_randomized_singular_vectors_are_exact_where_all_fit():
    g, _ = slowly_falling(6, 9)
    g = ops.convert_to_tensor(g, "float32")
    p, q = singular_vectors(g, 4), randomized_singular_vectors(g, 4, seed_for(0, 0, 0))
    np.testing.assert_allclose(number(p), number(q), atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30, 1e30, 1e38, np.nan, np.inf])
def test_singular_vectors_of_extreme_gradients(scale):
    g = np.array(slowly_falling(6, 9)[0], "float32")
    g[2, 3] *= scale
    g = g if np.isnan(scale) or np.isinf(scale) else scale * np.array(slowly_falling(6, 9)[0], "float32")
    for p in (singular_vectors(ops.convert_to_tensor(g), 3), randomized_singular_vectors(g, 3, seed_for(0, 0, 0))):
        np.testing.assert_allclose(number(p).T @ number(p), np.eye(3), atol=1e-5)


def test_random_directions():
    def directions(*seed):
        return number(random_directions(200, 50, seed_for(*seed), "float32"))

    p = directions(0, 0, 0)
    np.testing.assert_array_equal(directions(0, 0, 0), p)
    assert p.shape == (200, 50)
    assert abs(p.mean()) < 0.01
    assert 50 * p.var() == pytest.approx(1, abs=0.05)
    others = [directions(1, 0, 0), directions(0, 1, 0), directions(0, 0, 1), directions(0, 0, 2), directions(0, 2, 0)]
    for i, one in enumerate(others):
        for other in (p, *others[:i]):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05


@every_jit
def test_random_directions_of_a_compiled_update(jit):
    """XLA draws other numbers on TensorFlow, but always the same."""
    draw = compiled(lambda x: random_directions(4, 3, seed_for(5, 2, x), "float32"), jit)
    first, again, other = (number(draw(ops.convert_to_tensor(refresh, "int32"))) for refresh in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)
    if not (BACKEND == "tensorflow" and jit):
        np.testing.assert_allclose(first, number(random_directions(4, 3, seed_for(5, 2, 7), "float32")), rtol=1e-5)


def compiled(function, jit):
    match BACKEND:
        case "tensorflow":
            import tensorflow as tf

            return tf.function(function, jit_compile=jit)
        case "jax":
            import jax

            return jax.jit(function)
    return function


# Gaps


@every_jit
@pytest.mark.parametrize("options", [{}, {"proj": "randomized_svd"}], ids=str)
@pytest.mark.parametrize("method", [GaLore, Fira])
def test_projection_is_new_once_a_gap(method, options, jit):
    w, optimizer = variable((4, 3)), method(rank=2, update_proj_gap=3, **options)
    last, new = 0.0, []
    for _ in train(optimizer, [w], 8, jit=jit):
        projection = number(optimizer._states[0]["projection"])
        np.testing.assert_allclose(projection.T @ projection, np.eye(2), atol=1e-6)
        new.append(bool(np.any(projection != last)))
        last = projection
    assert new == [True, False, False, True, False, False, True, False]


def test_singular_vectors_are_not_computed_in_between(monkeypatch):
    optimizer, calls = GaLore(update_proj_gap=3), []
    plain = optimizer.new_projection
    monkeypatch.setattr(optimizer, "new_projection", lambda g, ctx: calls.append(int(ctx.iterations)) or plain(g, ctx))
    list(train(optimizer, [variable((4, 3))], 8))
    assert calls == [0, 3, 6]


def test_random_projection_is_new_once_a_gap_and_not_stored(monkeypatch):
    optimizer, drawn = Apollo(rank=2, update_proj_gap=3), []
    plain = optimizer.new_projection
    monkeypatch.setattr(optimizer, "new_projection", lambda g, ctx: drawn.append(number(plain(g, ctx))) or drawn[-1])
    list(train(optimizer, [variable((4, 3))], 6))
    same = [bool(np.all(new == old)) for new, old in zip(drawn[1:], drawn, strict=False)]
    assert same == [True, True, False, True, True]
    assert "projection" not in optimizer._states[0]


def test_moments_go_on_with_a_new_projection():
    w, optimizer = variable((4, 3)), GaLore(rank=2, update_proj_gap=2)
    list(train(optimizer, [w], 2))
    m = number(optimizer._states[0]["m"])
    optimizer.apply([ops.zeros((4, 3))], [w])
    np.testing.assert_allclose(number(optimizer._states[0]["m"]), 0.9 * m, rtol=1e-6)


def test_variable_without_a_gradient_when_its_projection_was_due():
    first, second = variable((4, 3), "first"), variable((4, 3), "second")
    optimizer = GaLore(learning_rate=0.1)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([gradient((4, 3), 0), None], [first, second])
    before = number(second)
    optimizer.apply([gradient((4, 3), 1), gradient((4, 3), 2)], [first, second])
    assert np.any(number(second) != before)


@pytest.mark.parametrize("options", some([{}, {"proj": "randomized_svd"}]), ids=str)
@every_method
def test_saved_within_a_gap(method, options, tmp_path):
    """And run on over the next one, as if there had been no pause."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(3)])
    model.compile(method(update_proj_gap=3, seed=7, **options), "mse", jit_compile=False)
    list(train(model.optimizer, model.trainable_variables, 5))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    both = (train(each.optimizer, each.trainable_variables, 5, start=5) for each in (model, again))
    for one, other in zip(*both, strict=True):
        for mine, yours in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, yours)


# Formulas


def test_limited():
    state = type("OptimizerState", (), {"length": ops.zeros(())})
    norms = []
    for length in (1.0, 100.0, 0.5, 0.504, 0.0, 3.0, 3.5):
        x = limited(ops.array([0.6 * length, 0.8 * length]), state)
        norms.append(float(ops.norm(x)))
        assert float(state.length) == pytest.approx(norms[-1], rel=1e-6)
    assert norms == pytest.approx([1.0, 1.01, 0.5, 0.504, 0.0, 3.0, 3.03], rel=1e-6)


def test_fira_of_full_rank_is_galore():
    """There is no rest."""
    one, other = ([variable((5, 8))] for _ in range(2))
    fira, galore = Fira(rank=5, update_proj_gap=2), GaLore(rank=5, update_proj_gap=2, scale=1.0)
    for mine, yours in zip(train(fira, one), train(galore, other), strict=True):
        np.testing.assert_allclose(mine[0], yours[0], atol=1e-5)


def test_apollo_mini_is_apollo():
    one, other = ([variable((5, 8))] for _ in range(2))
    full = Apollo(rank=1, scale=128, scale_type="tensor")
    for mine, yours in zip(train(ApolloMini(), one), train(full, other), strict=True):
        np.testing.assert_array_equal(mine[0], yours[0])


def test_directions_depend_on_the_seed():
    runs = [next(train(Apollo(seed=seed), [variable((5, 8))]))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.any(runs[0] != runs[2])


@pytest.mark.skipif(BACKEND == "jax", reason="has no float64 by default")
@every_method
def test_float64(method):
    w, optimizer = variable((4, 3), dtype="float64"), method(beta_2=0.0, update_proj_gap=2)
    for t in range(3):
        optimizer.apply([gradient((4, 3), t, "float64")], [w])
    assert np.all(np.isfinite(number(w)))
    assert optimizer._states[0]["m"].dtype == "float64"


# Memory


@pytest.mark.parametrize(
    ("method", "options", "per_matrix"),
    [
        (GaLore, {"rank": 128}, 4 * 128 * (2 * 2048 + 512)),
        (Fira, {"rank": 128}, 4 * 128 * (2 * 2048 + 512) + 4),
        (Apollo, {}, 4 * 128 * 2 * 2048 + 4),
        (Apollo, {"proj": "svd"}, 4 * 128 * (2 * 2048 + 512) + 4),
        (ApolloMini, {}, 4 * 2 * 2048 + 4),
    ],
)
def test_state(method, options, per_matrix):
    optimizer = method(**options)
    optimizer.build([keras.Variable(ops.zeros((512, 2048)), name="up"), keras.Variable(ops.zeros((2048, 512)), name="down")])
    assert optimizer.state_bytes() == 2 * per_matrix
    if method is ApolloMini:
        assert optimizer.state_bytes_per_parameter() < 0.1
