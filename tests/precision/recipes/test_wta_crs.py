import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import LayerContext, get_recipe
from keras_lrsched.precision.recipes import WtaCrs
from keras_lrsched.precision.recipes.wta_crs import SampledRows
from tests.nightly import nightly
from tests.precision.compiled import MODES, compiled, gradient
from tests.precision.recipes.life import batches, check_life, tiny_model

RULE = SampledRows(0.3, 10)
BACKEND = keras.backend.backend()


def problem(n=64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 5)) * rng.gamma(1, size=(n, 1))
    return x.astype("float32"), rng.standard_normal((5, 3), "float32"), rng.standard_normal((n, 3), "float32")


def sampler(rule, x):
    """A function of a seed: rows and weights, in NumPy."""
    x = ops.convert_to_tensor(x)

    sample = compiled(lambda seed: rule.sample(x, seed), MODES[min(1, len(MODES) - 1)])
    return lambda seed: [ops.convert_to_numpy(each) for each in sample(ops.convert_to_tensor(np.array([0, seed], "int32")))]


def test_name():
    assert type(get_recipe("wta_crs")) is WtaCrs


def test_unbiased_with_less_variance():
    """600 estimates: their mean within 4 sigma of the gradient, and their variance below that of sampling only."""
    x, _, dy = problem()
    sample, rng = sampler(RULE, x), np.random.default_rng(1)
    p = np.linalg.norm(x, axis=1) / np.linalg.norm(x, axis=1).sum()
    estimates, plain = [], []
    for seed in range(600):
        rows, weights = sample(seed)
        assert len(rows) == 19
        estimates.append((x[rows] * weights[:, None]).T @ dy[rows])
        rows = rng.choice(64, 19, p=p)
        plain.append((x[rows] / (19 * p[rows, None])).T @ dy[rows])
    estimates, plain, exact = np.array(estimates), np.array(plain), x.T @ dy
    sigma = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - exact) < 4 * sigma).all()
    assert estimates.var(axis=0).sum() < 0.9 * plain.var(axis=0).sum()


def test_winners_are_the_largest_rows():
    """19 of 64 rows; as many winners as make (1 - P_c) / (k - c) the smallest."""
    x, _, _ = problem()
    p = np.sort(np.linalg.norm(x, axis=1))[::-1]
    p /= p.sum()
    c = int(np.argmin([(1 - p[:c].sum()) / (19 - c) for c in range(19)]))
    assert c > 0
    rows, weights = sampler(RULE, x)(0)
    order = np.argsort(-np.linalg.norm(x, axis=1))
    np.testing.assert_array_equal(rows[:c], order[:c])
    np.testing.assert_array_equal(weights[:c], 1)
    assert not set(rows[c:]) & set(order[:c])
    p_of_row = dict(zip(order, p, strict=True))
    expected = [(1 - p[:c].sum()) / (p_of_row[row] * (19 - c)) for row in rows[c:]]
    np.testing.assert_allclose(weights[c:], expected, rtol=1e-4)


def test_gradient_by_inputs_and_outputs_are_exact():
    x, w, dy = problem()
    seed = np.array([0, 1], "int32")

    def product(x, w):
        return RULE(ops.convert_to_tensor(x), ops.convert_to_tensor(w), {}, ops.convert_to_tensor(seed), True)

    np.testing.assert_allclose(ops.convert_to_numpy(product(x, w)), x @ w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient(lambda x: product(x, w), x, dy), dy @ w.T, rtol=1e-5, atol=1e-5)
    rows, weights = sampler(RULE, x)(1)
    dw = gradient(lambda w: product(x, w), w, dy)
    np.testing.assert_allclose(dw, (x[rows] * weights[:, None]).T @ dy[rows], rtol=1e-5, atol=1e-5)
    assert np.abs(dw - x.T @ dy).max() > 0.1


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_all_rows(scale):
    """With all rows kept, the gradient is exact; rows of zeros do no harm."""
    x, _, dy = problem()
    x[10:30] = 0
    rows, weights = sampler(SampledRows(1.0, 10), x * scale)(0)
    np.testing.assert_allclose((x[rows] * weights[:, None] * scale).T @ dy[rows], x.T @ dy * scale, rtol=1e-5, atol=1e-5)


def test_few_rows():
    assert [RULE.rows(n) for n in (5, 10, 20, 100)] == [5, 10, 10, 30]


def test_inference_has_the_exact_gradient():
    x, w, dy = problem()
    product = gradient(lambda w: RULE(ops.convert_to_tensor(x), w, {}, None, False), w, dy)
    np.testing.assert_allclose(product, x.T @ dy, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="graphs do not tell what they keep")
def test_inputs_are_not_kept():
    """The residuals between the passes are the rows that are kept, not the 1000 rows of the inputs."""
    x, w, _ = problem(1000)
    seed, sizes = np.array([0, 1], "int32"), []
    if BACKEND == "torch":
        import torch

        x, w = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each: sizes.append(tuple(each.shape)) or each, lambda each: each
        ):
            y = RULE(x, w, {}, torch.tensor(seed), True)
        y.sum().backward()
        assert x.grad is not None
    else:
        import jax

        backward = jax.vjp(lambda x, w: RULE(x, w, {}, jax.numpy.asarray(seed), True), x, w)[1]
        sizes = [leaf.shape for leaf in jax.tree_util.tree_leaves(backward)]
    assert sizes
    assert not [size for size in sizes if size == (1000, 5)]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has unknown sizes")
@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_unknown_number_of_rows(xla):
    import tensorflow as tf

    x, w, dy = map(tf.constant, problem())
    seed = tf.constant([0, 1])

    def wgrad(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = RULE(x, w, {}, seed, True)
        return tape.gradient(y, w, output_gradients=dy)

    specification = [tf.TensorSpec((None, size)) for size in (5, 3)]
    in_graph = tf.function(wgrad, specification, jit_compile=xla)
    for n in (64, 40, 7):
        np.testing.assert_allclose(in_graph(x[:n], dy[:n]), wgrad(x[:n], dy[:n]), rtol=1e-4, atol=1e-5)


def test_roles():
    assert WtaCrs().rule(LayerContext("linear")) == SampledRows(0.3, 10)
    assert WtaCrs().rule(LayerContext("head")) is None
    assert WtaCrs(roles=("attention",)).rule(LayerContext("linear")) is None


def test_samples_change_from_step_to_step():
    model = tiny_model(WtaCrs(), keras.optimizers.SGD(0.0))
    product = model.layers[0].gemm
    for batch in batches(2):
        model.train_on_batch(*batch)
    assert int(product.calls) == 2


@nightly
def test_life(tmp_path):
    check_life(WtaCrs(), tmp_path)


@pytest.mark.parametrize("settings", [{"ratio": 0}, {"ratio": 1.1}, {"minimal_rows": 0}, {"roles": ("tail",)}], ids=str)
def test_bad_input(settings):
    with pytest.raises(ValueError, match="Received"):
        WtaCrs(**settings)
