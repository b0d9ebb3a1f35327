"""Plans for models of several kinds; that they are applied exactly; what is refused."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lrsched import transfer
from keras_lrsched.optimizers import ADOPT, SGD, AdamW, LayerwiseLearningRate, Lion, Muon, Prodigy, roles
from keras_lrsched.schedules import LinearDecay
from keras_lrsched.study.workloads.characters import transformer
from tests.nightly import nightly


def mlp(width, outputs=5):
    parts = [
        layers.Dense(width, "relu", name="in"),
        layers.Dense(width, "relu", name="w"),
        layers.Dense(outputs, name="out"),
    ]
    return keras.Sequential([keras.Input((10,)), *parts])


def decoder(width, depth=2, heads=2):
    return transformer(4, 7, 7, depth, width, heads, causal=True)


class Block(layers.Layer):
    """A residual branch that no graph shows."""

    def __init__(self, width):
        super().__init__()
        self.lower, self.upper = layers.Dense(2 * width, "gelu", name="lower"), layers.Dense(width, name="upper")

    def call(self, x):
        return x + self.upper(self.lower(x))


class Subclassed(keras.Model):
    def __init__(self, width):
        super().__init__(name="net")
        self.inner = [layers.Dense(width, name="in"), Block(width), Block(width), layers.Dense(2, name="out")]

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


def subclassed(width):
    model = Subclassed(width)
    model(np.ones((1, 10)))
    return model


def factors(plan, name):
    return [(each.path.partition("/")[2], getattr(each, name)) for each in plan.variables]


def rms(variable):
    return np.sqrt(np.mean(keras.ops.convert_to_numpy(variable).astype("float64") ** 2))


@pytest.mark.parametrize(
    ("optimizer", "rates", "decays"),
    [
        # microsoft/mup with its multiplier of 1/4 outside of the kernel: Adam 1 and 1, SGD 4 and 1/4 for the output kernel
        (AdamW(1.0, weight_decay=1.0), [1, 1, 0.25, 1, 0.25, 1], [1, 1, 4, 1, 4, 1]),
        (SGD(1.0, weight_decay=1.0), [4, 4, 1, 4, 0.25, 1], [0.25, 0.25, 1, 0.25, 4, 1]),
    ],
)
def test_reference_numbers(optimizer, rates, decays):
    plan = transfer.apply(mlp(256), mlp(64), optimizer=optimizer)
    assert [each.learning_rate for each in plan.variables] == rates
    assert [each.weight_decay for each in plan.variables] == decays
    assert [each.initial for each in plan.variables] == [1, 1, 0.5, 1, 0.25, 1]
    assert plan.output_multiplier == 0.25


@pytest.mark.parametrize(
    ("optimizer", "rates", "decays"),
    [
        (AdamW(1.0, weight_decay=1.0), [1, 1, 0.25, 1, 1, 1], [1, 1, 4, 1, 1, 1]),
        (SGD(1.0, weight_decay=1.0), [4, 4, 1, 4, 4, 1], [0.25, 0.25, 1, 0.25, 0.25, 1]),
    ],
)
def test_reference_numbers_with_the_multiplier_in_the_model(optimizer, rates, decays):
    plan = transfer.apply(mlp(256), mlp(64), optimizer=optimizer, folded=False)
    assert [each.learning_rate for each in plan.variables] == rates
    assert [each.weight_decay for each in plan.variables] == decays
    assert [each.initial for each in plan.variables] == [1, 1, 0.5, 1, 1, 1]


def test_initial_values():
    model, base = mlp(256), mlp(64)
    bias = model.layers[0].bias
    bias.assign(np.full(256, 0.5))
    transfer.apply(model, base)
    for layer, old, factor in zip(model.layers, base.layers, (1, 0.5, 0.25), strict=True):
        assert rms(layer.kernel) == pytest.approx(factor * rms(old.kernel), rel=1e-5)
    assert rms(bias) == 0.5
    before = [keras.ops.convert_to_numpy(v) for v in base.variables]
    transfer.apply(base, mlp(64))
    assert all(np.array_equal(old, keras.ops.convert_to_numpy(new)) for old, new in zip(before, base.variables, strict=True))


def test_dry_run_and_check():
    model, base = mlp(256), mlp(64)
    before = keras.ops.convert_to_numpy(model.layers[2].kernel)
    plan = transfer.apply(model, base, dry_run=True)
    assert np.array_equal(before, keras.ops.convert_to_numpy(model.layers[2].kernel))
    model.compile("sgd", "mse")
    findings = transfer.check(model, plan, base)
    assert [each.partition(":")[0].rpartition("/")[0].rpartition("/")[2] for each in findings[:-1]] == ["in", "out"]
    assert findings[-1] == "The model is not compiled with the optimizer of the plan."
    plan = transfer.apply(model, base)
    model.compile(plan.optimizer, "mse")
    assert transfer.check(model, plan, base) == []


@pytest.mark.parametrize(
    "make_optimizer", [lambda: AdamW(0.01, epsilon=1e-20), lambda: SGD(0.1), lambda: Muon(0.02, epsilon=1e-20)]
)
def test_multiplier_in_the_kernel_is_the_same(make_optimizer):
    """Steps are those of a model with a layer that multiplies the logits."""
    x = np.random.default_rng(0).normal(size=(16, 10)).astype("float32")
    y = np.argmax(x[:, :5], 1)

    def make(width, scaled):
        keras.utils.set_random_seed(0)
        parts = [layers.Dense(width, "relu", name="in"), layers.Dense(width, "relu", name="w")]
        parts += [layers.Dense(5, use_bias=False, name="out"), *([layers.Rescaling(1 / 4)] if scaled else [])]
        return keras.Sequential([keras.Input((10,)), *parts])

    losses = []
    for folded in (True, False):
        model, base = make(32, not folded), make(8, False)
        plan = transfer.apply(model, base, optimizer=make_optimizer(), folded=folded)
        model.compile(plan.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        losses.append([float(model.train_on_batch(x, y)) for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


def test_transformer_in_width_and_depth():
    """4 times the width in heads of 4 times the size, 8 times the depth."""
    model, base = decoder(32, depth=8), decoder(8, depth=8)
    plan = transfer.apply(model, base, optimizer=AdamW(0.01, weight_decay=0.1, epsilon=1e-12), depth=(1, 8))
    rates = dict(factors(plan, "learning_rate")[:17])
    assert {key: rates[key] for key in ("embeddings", "gamma", "value/kernel", "key/bias")} == {
        "embeddings": 1,
        "gamma": 1,
        "value/kernel": 0.25,
        "key/bias": 1,
    }
    assert rates["query/kernel"] == 0.25 * 0.5
    assert rates["attention_output/kernel"] == 0.25 / 8
    assert rates["attention_output/bias"] == 1 / 8
    assert dict(factors(plan, "weight_decay"))["value/kernel"] == 4
    assert plan.branch_multiplier == 0.125
    inner = plan.optimizer.inner_optimizer
    assert inner.epsilon == pytest.approx(3.125e-14)
    ends = [each.path for each in plan.variables if each.kind == "hidden" and each.initial == 0.5 / 8]
    assert len(ends) == 16  # attention and feed-forward layers
    root = transfer.apply(model, base, optimizer=AdamW(0.01, epsilon=1e-12), depth=(1, 8), depth_power=0.5, dry_run=True)
    rates = dict(factors(root, "learning_rate")[:17])
    assert rates["value/kernel"] == pytest.approx(0.0883883476)
    assert rates["value/bias"] == pytest.approx(0.353553391)
    assert root.variables[0].learning_rate == root.variables[-1].learning_rate == 1
    assert root.optimizer.inner_optimizer.epsilon == pytest.approx(8.83883476e-14)


def test_more_heads_have_no_multiplier():
    plan = transfer.apply(decoder(32, heads=8), decoder(8, heads=2))
    assert plan.attention_multiplier == 1
    assert dict(factors(plan, "learning_rate"))["query/kernel"] == 0.25


def test_residual_multipliers():
    plan = transfer.apply(decoder(8), decoder(8), residual_multiplier=0.5, residual_attention_ratio=2.0)
    ends = {each.path: each.initial for each in plan.variables if each.initial != 1}
    feed_forward = 0.5 * np.sqrt(2 / 5)
    assert sorted(ends.values()) == pytest.approx([feed_forward] * 4 + [2 * feed_forward] * 4)


def test_attention_below_a_normalization():
    def make(width):
        inputs = keras.Input((4, width))
        branch = layers.MultiHeadAttention(2, width // 2, name="attention")(inputs, inputs)
        return keras.Model(inputs, inputs + layers.LayerNormalization(name="norm")(branch))

    plan = transfer.apply(make(8), make(8), residual_multiplier=0.5)
    assert (plan["norm/gamma"].initial, plan["attention/attention_output/kernel"].initial) == (0.5, 1)
    with pytest.raises(ValueError, match=r"`residual_attention_ratio` must be 1 where branches end in a normalization"):
        transfer.apply(make(8), make(8), residual_attention_ratio=2.0)


@nightly
@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam(1e-4, epsilon=1e-12), keras.optimizers.SGD(1e-2)])
def test_depth_does_not_change_how_fast_a_model_learns(optimizer):
    """One update, of branches that are small beside the stream."""
    x = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")
    y = np.argmax(x[:, :5], axis=1)

    def make(depth):
        inputs = keras.Input((10,))
        hidden = layers.Dense(32, trainable=False)(inputs)
        for _ in range(depth):
            hidden += layers.Dense(32)(layers.Dense(64, "relu")(hidden))
        return keras.Model(inputs, layers.Dense(5, trainable=False)(hidden))

    def change(depth, ratio):
        keras.utils.set_random_seed(0)
        model = make(depth)
        plan = transfer.apply(model, make(depth), optimizer=optimizer, depth=ratio, residual_multiplier=0.1)
        model.compile(plan.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        before = model(x)
        model.train_on_batch(x, y)
        return rms(model(x) - before)

    assert change(16, (2, 16)) == pytest.approx(change(2, (2, 2)), rel=0.3)
    assert change(16, (2, 2)) > 4 * change(2, (2, 2))


def test_subclassed_model():
    rules = {"branches": ["lower|upper"], "branch_outputs": ["upper"]}
    plan = transfer.apply(subclassed(32), subclassed(8), depth=(1, 2), **rules)
    kernels = [each for each in plan.variables if each.path.endswith("kernel")]
    found = sorted((each.path.split("/")[-2], each.kind, each.initial, each.learning_rate) for each in kernels)
    assert found == [
        ("in", "input", 1, 1),
        *[("lower", "hidden", 0.5, 0.25)] * 2,
        ("out", "output", 0.25, 0.25),
        *[("upper", "hidden", 0.25, 0.125)] * 2,
    ]
    with pytest.raises(ValueError, match=r"shows no residual branches: list the variables in them as `branches`"):
        transfer.apply(subclassed(32), subclassed(8), depth=(1, 2))
    with pytest.raises(ValueError, match=r"'top' is found in none of"):
        transfer.apply(subclassed(32), subclassed(8), depth=(1, 2), branches=["lower"], branch_outputs=["top"])


def test_optimizer_of_a_plan():
    """Batch size and tokens: 4 and 16 times as many, so 4 times the updates."""
    given = AdamW(LinearDecay(0.01, 100), weight_decay=0.1, beta_2=0.9)
    plan = transfer.apply(mlp(64), mlp(64), optimizer=given, batch_size=(8, 32), tokens=(1e6, 16e6))
    inner, rate = plan.optimizer.inner_optimizer, 2 * 16**-0.32
    assert plan.steps == 4
    assert float(inner.learning_rate) == pytest.approx(0.01 * rate)
    assert inner.weight_decay == pytest.approx(0.1 / (rate * 4))
    assert inner.beta_2 == pytest.approx(0.9**4)
    assert (given.weight_decay, given.beta_2) == (0.1, 0.9)
    plan = transfer.apply(mlp(64), mlp(64), optimizer=SGD(0.1), batch_size=(8, 32), token_power=0)
    assert float(plan.optimizer.learning_rate) == pytest.approx(0.4)


def test_saved_model(tmp_path):
    model = mlp(16)
    plan = transfer.apply(model, mlp(8), optimizer=AdamW(0.01, weight_decay=0.1))
    model.compile(plan.optimizer, "mse")
    model.fit(np.ones((4, 10)), np.ones((4, 5)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, LayerwiseLearningRate)
    for name in ("multipliers", "weight_decay_multipliers"):
        assert getattr(loaded.optimizer, name) == getattr(plan.optimizer, name) != {}


def test_layers_of_one_name_in_sequential_models():
    def twins(width):
        bodies = [keras.Sequential([layers.Dense(n, name="a")], name=name) for n, name in ((width, "b"), (2, "c"))]
        inputs = keras.Input((3,))
        return keras.Model(inputs, bodies[1](bodies[0](inputs)))

    with pytest.raises(ValueError, match=r"which is one path in a saved model: c/a/kernel"):
        transfer.apply(twins(32), twins(8))


def test_corrected_roles():
    model = mlp(32)
    table = roles(model)
    table.correct("out/kernel", kind="embedding", head=False, inputs=(1,), outputs=(0,))
    plan = transfer.apply(model, mlp(8), roles=table)
    assert [each.kind for each in plan.variables if each.path.endswith("kernel")] == ["input", "hidden", "input"]


def test_print():
    text = str(transfer.apply(mlp(32), mlp(8)))
    assert text.splitlines()[0].split() == ["path", "kind", "initial", "learning_rate", "weight_decay"]
    assert "output_multiplier: 0.25" in text


def test_tied_embeddings():
    def tied(width):
        inputs = keras.Input((4,), dtype="int32")
        table = layers.ReversibleEmbedding(7, width, name="table")
        return keras.Model(inputs, table(layers.Dense(width)(table(inputs)), reverse=True))

    if not hasattr(layers, "ReversibleEmbedding"):
        pytest.skip("this version of Keras has no ReversibleEmbedding")
    with pytest.raises(ValueError, match=r"let the model multiply its logits by 0.25, and give `folded=False`"):
        transfer.apply(tied(32), tied(8))
    plan = transfer.apply(tied(32), tied(8), folded=False)
    assert (plan.variables[0].learning_rate, plan.output_multiplier) == (1, 0.25)


def test_lion_is_like_adam():
    assert transfer.apply(mlp(32), mlp(8), optimizer=Lion(1e-3)).family == "adam"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "sp"}, "`rule` must be one of 'mup'"),
        ({"alignment": "half"}, "`alignment` must be one of"),
        ({"family": "lion"}, "`family` must be one of"),
        ({"family": "muon"}, "The family 'muon' is for Muon of keras_lrsched"),
        ({"optimizer": Prodigy()}, "`family` must be given for this optimizer"),
        ({"depth": (2, 0)}, "`depth` must be a positive number. Received: depth=0"),
        ({"depth": (2, 4)}, "shows no residual branches"),
        ({"batch_size": (0, 4)}, "`batch_size` must be a positive number"),
        ({"weight_decay_power": -1}, "`weight_decay_power` must be a non-negative number"),
        ({"residual_multiplier": 0}, "`residual_multiplier` must be a positive number"),
        ({"optimizer": SGD(0.1, weight_decay=0.1, independent_weight_decay=True)}, "must multiply its weight decay by the"),
        ({"optimizer": ADOPT(0.1, weight_decay=0.1, decoupled_weight_decay=False)}, "must multiply its weight decay by the"),
        ({"optimizer": keras.optimizers.AdamW()}, "`weight_decay_multipliers` need an optimizer of keras_lrsched"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        transfer.apply(mlp(32), mlp(8), **arguments)


def test_models_that_do_not_correspond():
    with pytest.raises(ValueError, match=r"`base_model` must have the variables of `model`, in other widths"):
        transfer.apply(decoder(8, depth=2), decoder(8, depth=1))
    with pytest.raises(ValueError, match=r"out/kernel has other outputs"):
        transfer.apply(mlp(32, outputs=6), mlp(8))
    base = mlp(8)
    base.layers[1].kernel.assign(np.zeros((8, 8)))
    with pytest.raises(ValueError, match=r"must have the same initializers"):
        transfer.apply(mlp(32), base)


def test_trained_model():
    model = mlp(32)
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((4, 10)), np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"`model` must not be trained. Received: a model after 1 updates"):
        transfer.apply(model, mlp(8))
    with pytest.raises(ValueError, match=r"`optimizer` must be new. Received: one that has made 1 updates"):
        transfer.apply(mlp(32), mlp(8), optimizer=model.optimizer)


def test_head_size():
    def attention(width):
        inputs = keras.Input((4, 8))
        parts = [layers.Dense(width, name=name)(layers.Dense(width)(inputs)) for name in ("query", "key")]
        return keras.Model(inputs, layers.Dense(2)(layers.Multiply()(parts)))

    with pytest.raises(ValueError, match=r"`head_size` must be given as \(base, new\): query/kernel of shape \(32, 32\)"):
        transfer.apply(attention(32), attention(8))
    plan = transfer.apply(attention(32), attention(8), head_size=(8, 32))
    assert (plan.attention_multiplier, plan["query/kernel"].learning_rate, plan["key/kernel"].learning_rate) == (
        0.5,
        0.125,
        0.25,
    )


def test_muon():
    plan = transfer.apply(mlp(64), mlp(16), optimizer=Muon(0.02, weight_decay=None, adam_weight_decay=None))
    assert [each.learning_rate for each in plan.variables if each.path.endswith("kernel")] == pytest.approx([1, 0.5, 0.25])
    plan = transfer.apply(mlp(64), mlp(16), optimizer=Muon(0.02, adjust_lr="spectral_norm"))
    assert [each.learning_rate for each in plan.variables if each.path.endswith("kernel")] == pytest.approx([1, 1, 0.25])


def test_muon_with_a_head_that_no_graph_shows():
    plan = transfer.apply(subclassed(32), subclassed(8), optimizer=Muon(0.02, exclude_layers=["out/"]))
    assert [each.learning_rate for each in plan.variables if each.path.endswith("out/kernel")] == [0.25]
