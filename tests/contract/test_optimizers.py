"""The contract of every optimizer, on every backend. A new one joins by a `Case` in `optimizer_cases`."""

import copy
import functools
import inspect
import json
import pickle
import typing

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import optimizers
from keras_lrsched._core import backends, registry
from keras_lrsched.optimizers import Optimizer
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer
from keras_lrsched.schedules import LinearDecay
from tests.nightly import nightly, some

from .backends import BACKEND, JIT, compiled_update, quick_update
from .optimizer_cases import CASES
from .optimizer_problem import RUNS, gradients, variables

TRAJECTORIES = [(case, trajectory) for case in CASES for trajectory in case.trajectories]
every_trajectory = pytest.mark.parametrize(
    ("case", "trajectory"), TRAJECTORIES, ids=[f"{case.name}-{trajectory.run}" for case, trajectory in TRAJECTORIES]
)
PUBLIC = {name: getattr(optimizers, name) for name in optimizers.__all__}
CLASSES = {name: it for name, it in PUBLIC.items() if inspect.isclass(it) and issubclass(it, keras.optimizers.Optimizer)}
for each in ("Optimizer", "FusedOptimizer", "LossAwareOptimizer", "Wrapper"):  # to derive from
    del CLASSES[each]
ROWS = [entry for entry in registry.entries("optimizers") if entry.name]
OF_EACH_KIND = (
    "AdamW",
    "DAdaptAdam",
    "GaLore",
    "Lookahead",
    "Muon",
    "ScheduleFreeAdamW",
)
"""Alone in what the base class does alike for all and compilers take seconds for; the others among the slow tests."""
SHAPES = {"scalar": (), "vector": (5,), "matrix": (4, 3), "kernel": (3, 3, 2, 4)}


@pytest.fixture(params=some(CASES, chosen=lambda case: case.by_day), ids=lambda case: case.name)
def case(request, monkeypatch):
    """Each optimizer in turn; where its method differs by nature, its `Case` says why."""
    test, case = request.node.originalname, request.param
    if test in case.differs:
        pytest.skip(case.differs[test])
    if case.loss is not None and test != "test_fit":
        apply = case.optimizer.apply

        def told(self, *args, **kwargs):
            if self._next_loss is None:
                self.set_loss(case.loss)
            return apply(self, *args, **kwargs)

        monkeypatch.setattr(case.optimizer, "apply", told)
    return case


def test_copies_and_pickles(case):
    """As tuners and scikit-learn do before a run. (The state of one that was built has no variables to belong to.)"""
    optimizer = case.build(learning_rate=LinearDecay(0.1, 10))
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert copied.get_config() == optimizer.get_config()


of_each_kind = pytest.mark.parametrize(
    "case", some(CASES, chosen=lambda case: case.name in OF_EACH_KIND), ids=lambda case: case.name, indirect=True
)
"""For what takes long, and the base class does alike for all: the others at night."""


def in_ways(names, first, *others, is_long=False):
    """Parametrizes a test by optimizers and ways: all in the first way, one of each kind in the others; the rest is slow.

    What is long is so for one of each kind in the first way, and nightly for what else would not be slow.
    """

    def marks(case, way):
        is_of_each_kind = case.name in OF_EACH_KIND
        if not (way is first or is_of_each_kind or BACKEND == "torch"):
            return pytest.mark.slow
        by_day = way is first and is_of_each_kind if is_long else case.by_day
        return () if by_day else nightly

    def name(case, way):
        return "-".join([case.name, *(str(it) for it in way if not isinstance(it, dict))])

    pairs = [
        pytest.param(case, *way, marks=marks(case, way), id=name(case, way)) for case in CASES for way in (first, *others)
    ]
    return pytest.mark.parametrize(("case", *names), pairs, indirect=["case"])


def numbers(shapes=SHAPES, seed=0, dtype="float32"):
    """Random tensors of a size of about 1, by name."""
    rng = np.random.default_rng(seed)
    return {name: ops.convert_to_tensor(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def made(shapes=SHAPES, dtype="float32"):
    return [keras.Variable(value, dtype=dtype, name=name) for name, value in numbers(shapes).items()]


def values(tensors):
    """Copies in NumPy, in float32."""
    return [np.array(ops.convert_to_numpy(ops.cast(tensor, "float32"))) for tensor in tensors]


def train(optimizer, weights, steps=5, scale=1.0, dtype="float32", shapes=SHAPES):
    """Updates with random gradients, the same for each call; the weights after each."""
    history = []
    for t in range(steps):
        grads = [scale * g for g in numbers(shapes, seed=100 + t, dtype=dtype).values()]
        optimizer.apply(grads, weights)
        history.append(values(weights))
    return history


def default_rate(case):
    return float(ops.convert_to_numpy(case.build().learning_rate))


def assert_same(one, other, rtol=0.0, atol=0.0):
    for mine, yours in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=rtol, atol=atol)


def assert_same_history(one, other, rtol=0.0, atol=0.0):
    assert len(one) == len(other)
    for mine, yours in zip(one, other, strict=True):
        assert_same(mine, yours, rtol, atol)


# The formula


def run_trajectory(case, trajectory, update=None):
    """The weights of a reference run as they come out here, and as they should."""
    run, weights = RUNS[trajectory.run], variables()
    if trajectory.transposed:
        weights["kernel"] = keras.Variable(ops.transpose(weights["kernel"]), name="kernel")
    weights = {name: weights[name] for name in trajectory.variables}
    optimizer = case.optimizer(**trajectory.options)
    update = update(optimizer, [*weights.values()]) if update else lambda grads: optimizer.apply(grads, [*weights.values()])
    for t, expected in enumerate(run["traj"], start=1):
        grads = dict(zip(("kernel", "bias"), gradients(t), strict=True))
        if trajectory.transposed:
            grads["kernel"] = ops.transpose(grads["kernel"])
        optimizer.build([*weights.values()])
        trajectory.before_update(optimizer, t, run)
        update([grads[name] for name in weights])
        for name, variable in weights.items():
            actual = ops.convert_to_numpy(ops.transpose(variable) if trajectory.transposed else variable)
            yield actual.ravel(), np.array(expected["W" if name == "kernel" else "b"])


@every_trajectory
def test_reference_trajectory(case, trajectory):
    for actual, expected in run_trajectory(case, trajectory):
        np.testing.assert_allclose(actual, expected, rtol=trajectory.rtol, atol=0.1 * trajectory.rtol)


@in_ways(("jit",), *[(jit,) for jit in JIT], is_long=True)
def test_reference_trajectory_compiled(case, jit):
    if BACKEND == "torch":
        pytest.skip("this backend does not compile the update")
    for trajectory in case.trajectories[:1]:
        for actual, expected in run_trajectory(case, trajectory, lambda *given: compiled_update(*given, jit)):
            np.testing.assert_allclose(actual, expected, rtol=3 * trajectory.rtol, atol=0.1 * trajectory.rtol)


@of_each_kind
def test_minimum_of_a_quadratic(case):
    """0.5 sum h (w - c)^2, with a learning rate that falls to zero."""
    curvature, center = np.array([1.0, 5.0, 0.5], "float32"), np.array([0.5, -0.25, 2.0], "float32")
    w = keras.Variable([1.0, -1.0, 0.5], name="w")
    schedule = LinearDecay(case.quadratic_rate, 300)
    update = compiled_update(case.build(learning_rate=schedule, weight_decay=None), [w])

    def loss():
        return 0.5 * np.sum(curvature * (ops.convert_to_numpy(w) - center) ** 2)

    before = loss()
    for _ in range(300):
        update([ops.convert_to_tensor(curvature * (ops.convert_to_numpy(w) - center))])
    assert loss() < 1e-2 * before


# State


def test_state_has_the_size_it_should(case):
    optimizer = case.build()
    optimizer.build([keras.Variable(np.zeros((64, 32)), dtype="float32", name="kernel")])
    assert optimizer.state_bytes_per_parameter() == pytest.approx(case.state_bytes, abs=0.02)


def multipliers(case, rules):
    """The argument, where the method takes it."""
    return {"learning_rate_multipliers": rules} if getattr(case.optimizer, "takes_multipliers", True) else {}


def test_config(case):
    optimizer = case.build(
        weight_decay=LinearDecay(0.1, 10), exclude_from_weight_decay=["vector"], **multipliers(case, {"matrix": 2.0})
    )
    config = json.loads(json.dumps(optimizer.get_config()))
    names = {name for name in inspect.signature(case.optimizer).parameters if name != "options"}
    assert names | {"exclude_from_weight_decay", "learning_rate_multipliers", "nonfinite", "clipnorm"} <= set(config)
    again = case.optimizer.from_config(config)
    assert again.get_config() == optimizer.get_config()
    assert_same_history(train(again, made()), train(optimizer, made()))


def test_found_by_its_registered_name(case):
    name = keras.saving.get_registered_name(case.optimizer)
    assert name == f"keras_lrsched>{case.name}"
    assert type(keras.optimizers.get(name)) is case.optimizer
    saved = json.loads(json.dumps(keras.optimizers.serialize(case.build())))
    for again in (keras.optimizers.deserialize(saved), keras.optimizers.get(saved)):
        assert type(again) is case.optimizer
        assert again.get_config() == case.build(name=again.name).get_config()


@of_each_kind
def test_saved_model_goes_on_training(case, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="out")])
    optimizer = case.build(
        learning_rate=LinearDecay(default_rate(case), 20),
        exclude_from_weight_decay=["bias"],
        **multipliers(case, {"hidden": 0.5}),
        gradient_accumulation_steps=2,
        nonfinite="skip",
    )
    model.compile(optimizer, "mse")
    update = quick_update(model.optimizer, model.trainable_variables)
    batches = [[*numbers({v.path: v.shape for v in model.trainable_variables}, seed=t).values()] for t in range(9)]
    for grads in batches[:5]:
        update(grads)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(values(again.optimizer.variables), values(model.optimizer.variables))
    update_again = quick_update(again.optimizer, again.trainable_variables)
    for grads in batches[5:]:
        update(grads)
        update_again(grads)
        assert_same(values(again.trainable_variables), values(model.trainable_variables))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.train.Checkpoint")
@pytest.mark.parametrize("floatx", some(["float32", "bfloat16"]))
def test_checkpoint_of_tensorflow(case, floatx, tmp_path):
    import tensorflow as tf

    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        optimizer, again, weights = case.build(), case.build(), made()
    finally:
        keras.config.set_floatx(before)
    train(optimizer, weights, 1)
    again.build(weights)
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(optimizer=again).read(path).assert_consumed()
    assert_same(values(again.variables), values(optimizer.variables))


# Variables


def test_variables_of_all_shapes_move(case):
    weights = made()
    before = values(weights)
    optimizer = case.build()
    train(optimizer, weights, 2)
    for weight, old in zip(weights, before, strict=True):
        new = ops.convert_to_numpy(weight)
        assert new.shape == old.shape
        assert np.all(np.isfinite(new))
        assert np.any(new != old)


def test_variables_without_a_gradient_stay(case):
    weights, optimizer = made(), case.build()
    before = values(weights)
    grads = [*numbers(seed=100).values()]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([grads[0], None, grads[2], None], weights)
    moved = [bool(np.any(new != old)) for new, old in zip(values(weights), before, strict=True)]
    assert moved == [True, False, True, False]


@functools.cache
def gradients_of(dtype):
    return [[*numbers(seed=t, dtype=dtype).values()] for t in range(200)]


@in_ways(("dtype",), ("bfloat16",), ("float16",), is_long=True)
def test_low_precision_moves_and_stays_finite(case, dtype):
    start, batches = values(made(dtype=dtype)), gradients_of(dtype)
    for options in ({}, {"master_weights": True}) + (
        ({"stochastic_rounding": True, "seed": 1},) if dtype == "bfloat16" else ()
    ):
        weights, optimizer = made(dtype=dtype), case.build(**options)
        update = compiled_update(optimizer, weights)
        for grads in batches:
            update(grads)
        for new, old in zip(values(weights), start, strict=True):
            assert np.all(np.isfinite(new))
            assert np.any(new != old)
        assert all(v.dtype != dtype for v in optimizer.variables)


@of_each_kind
def test_master_weights_are_those_of_float32(case):
    """The variables are the float32 ones, rounded, also after they were set from outside."""
    grads = [[ops.cast(g, "bfloat16") for g in numbers(seed=t).values()] for t in range(10)]
    low = made(dtype="bfloat16")
    start = values(low)
    high = [keras.Variable(value, name=v.name) for value, v in zip(start, low, strict=True)]
    low_optimizer, high_optimizer = case.build(master_weights=True), case.build()
    for t, each in enumerate(grads):
        low_optimizer.apply(each, low)
        high_optimizer.apply([ops.cast(g, "float32") for g in each], high)
        assert_same(values(low), values([ops.cast(v, "bfloat16") for v in high]))
        if t == 5:
            for variable in (*low, *high):
                variable.assign(np.full(variable.shape, 4.0))


# Odd gradients


def test_gradients_of_zero(case):
    """At first, on their own, and between others."""
    weights, optimizer = made(), case.build()
    for scale in (0.0, 0.0, 1.0, 0.0, 1.0):
        train(optimizer, weights, 1, scale)
        assert all(np.all(np.isfinite(value)) for value in values([*weights, *optimizer.variables]))
    assert all(np.any(new != old) for new, old in zip(values(weights), values(made()), strict=True))


@pytest.mark.parametrize("scale", some([1e15, 1e-30]))
def test_gradients_of_extreme_size(case, scale):
    weights, optimizer = made(), case.build()
    train(optimizer, weights, 3)
    train(optimizer, weights, 3, scale)
    train(optimizer, weights, 3)
    assert all(np.all(np.isfinite(value)) for value in values([*weights, *optimizer.variables]))


@in_ways(("bad",), (np.nan,), (np.inf,), (-np.inf,), is_long=True)
def test_nonfinite_gradients_are_skipped(case, bad):
    """As if they had not been: neither the state nor the counter moves."""
    schedule = LinearDecay(1e-2, 10)
    disturbed, undisturbed = made(), made()
    optimizer, other = (case.build(nonfinite="skip", learning_rate=schedule) for _ in range(2))
    train(optimizer, disturbed, 2)
    grads = [*numbers(seed=1).values()]
    grads[1] = bad * grads[1]
    before = values([*disturbed, *optimizer.variables])
    optimizer.apply(grads, disturbed)
    after = values([*disturbed, *optimizer.variables])
    assert sum(np.any(new != old) for new, old in zip(after, before, strict=True)) == 1  # the counter of skipped updates
    assert int(optimizer.skipped_updates) == 1
    train(other, undisturbed, 2)
    assert_same_history(train(optimizer, disturbed, 3), train(other, undisturbed, 3))


def test_nonfinite_gradients_raise(case):
    weights, optimizer = made(), case.build(nonfinite="raise")
    train(optimizer, weights, 2)
    before = values([*weights, *optimizer.variables])
    grads = [*numbers(seed=1).values()]
    grads[1] = np.nan * grads[1]
    with pytest.raises(FloatingPointError, match="The gradient of vector is not finite"):
        optimizer.apply(grads, weights)
    assert_same(values([*weights, *optimizer.variables]), before)


def test_nonfinite_gradients_propagate(case):
    weights, optimizer = made(), case.build()
    grads = [*numbers(seed=1).values()]
    optimizer.apply([np.nan * g for g in grads], weights)
    assert all(np.all(np.isnan(value)) for value in values(weights))


def sparse_gradient(rows, indices, shape):
    """A sparse gradient of the backend; a row that occurs twice counts twice."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.IndexedSlices(rows, tf.constant(indices), tf.constant(shape))
    if BACKEND == "jax":
        from jax.experimental import sparse

        return sparse.BCOO((rows, keras.ops.array(indices)[:, None]), shape=shape)
    import torch

    return torch.sparse_coo_tensor(torch.tensor([indices]), rows, shape)


@pytest.mark.parametrize("options", some([{}, {"clipnorm": 0.1}, {"gradient_accumulation_steps": 2}, {"nonfinite": "skip"}]))
def test_sparse_gradients_are_like_dense_ones(case, options):
    if BACKEND == "jax" and case.name not in (("AdamW",) if options else OF_EACH_KIND):
        pytest.skip("takes long, and the base class does it alike for all")
    rows, indices = keras.ops.array(numbers({"rows": (3, 2)})["rows"]), [4, 1, 4]
    histories = []
    for makes_dense in (False, True):
        weight, optimizer = made({"table": (6, 2)}), case.build(**options)
        gradient = sparse_gradient(rows, indices, (6, 2))
        if makes_dense:
            gradient = backends.dense(gradient, weight[0])
            assert keras.ops.convert_to_numpy(gradient)[4, 0] == rows[0, 0] + rows[2, 0]
        for _ in range(4):
            optimizer.apply([gradient], weight)
        histories.append(values(weight))
    assert_same(*histories, rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has IndexedSlices")
@pytest.mark.parametrize("make", [lambda value: keras.Variable(value, name="table"), None], ids=["Keras", "TensorFlow"])
def test_rows_that_are_not_finite_have_a_name(make):
    import tensorflow as tf

    table = (make or (lambda value: tf.Variable(value, name="table")))(np.ones((4, 2), "float32"))
    gradient = tf.IndexedSlices(tf.constant([[1.0, np.nan]]), tf.constant([0]), tf.constant([4, 2]))
    optimizer = optimizers.AdamW(0.1, lazy_embeddings=True, nonfinite="raise")
    with pytest.raises(FloatingPointError, match="gradient of table"):
        optimizer.apply([gradient], [table])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has two kinds of variables")
@pytest.mark.parametrize(
    "options", some([{}, {"fused": False}, {"nonfinite": "skip"}]), ids=lambda options: next(iter(options), "")
)
def test_variables_of_tensorflow_itself(case, options):
    """As Sonnet has them."""
    import tensorflow as tf

    if "fused" in options and not issubclass(case.optimizer, FusedOptimizer):
        pytest.skip("has no compiled update")
    gradients = [numbers(seed=t) for t in range(2)]
    histories = []
    for weights in (made(), [tf.Variable(value, name=name) for name, value in numbers().items()]):
        optimizer = case.build(**options)
        for each in gradients:
            optimizer.apply_gradients(zip(map(tf.constant, each.values()), weights, strict=True))
        histories.append([tf.convert_to_tensor(weight).numpy() for weight in weights])
    assert_same(*histories, rtol=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere all shapes are known")
@of_each_kind
def test_gradients_of_unknown_shape(case):
    """In a graph a gradient may know its shape only when it runs, as with batches of unknown shape."""
    import tensorflow as tf

    (table,), (same,), optimizer, other = made({"table": (6, 2)}), made({"table": (6, 2)}), case.build(), case.build()
    gradient = numbers({"table": (6, 2)}, seed=1)["table"]
    optimizer.build([table])
    signature = [tf.TensorSpec((None, 2))]
    tf.function(lambda gradient: optimizer.apply([gradient], [table]), input_signature=signature)(gradient)
    other.apply([gradient], [same])
    assert_same(values([table]), values([same]), rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has IndexedSlices")
@in_ways(("jit",), *[(jit,) for jit in JIT])
def test_lazy_embeddings(case, jit):
    """The rows that occur are updated as if they were the whole table; the others stay."""
    import tensorflow as tf

    if not case.optimizer.elementwise:
        with pytest.raises(ValueError, match="lazy_embeddings=True"):
            case.build(lazy_embeddings=True)
        return
    options = {"weight_decay": 0.1, "clipnorm": 1.0, "nonfinite": "skip"}
    table = made({"table": (6, 2)})[0]
    before = table.numpy()
    part = keras.Variable(before[[1, 4]], name="table")
    update = compiled_update(case.build(lazy_embeddings=True, **options), [table], jit)
    update_part = compiled_update(case.build(**options), [part], jit)
    for t in range(3):
        rows = numbers({"rows": (3, 2)}, seed=t)["rows"]
        update([tf.IndexedSlices(rows, tf.constant([4, 1, 4]), tf.constant([6, 2]))])
        update_part([tf.stack([rows[1], rows[0] + rows[2]])])
    np.testing.assert_allclose(table.numpy()[[1, 4]], part.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(table.numpy()[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others fetch a batch before its step")
@in_ways(("accumulated",), (1,), (2,), is_long=True)
def test_the_end_of_the_data_is_no_update(case, accumulated):
    """TensorFlow finds it by running the step once more, without a batch; what does not wait for one is changed then."""
    import tensorflow as tf

    schedules = {"learning_rate": LinearDecay(1e-2, 4), "weight_decay": LinearDecay(0.1, 4)}
    optimizer = case.build(**schedules, gradient_accumulation_steps=accumulated if accumulated > 1 else None)
    weights, batches = made(), [tuple(numbers(seed=t).values()) for t in range(3)]
    optimizer.build(weights)
    one_step = tf.function(lambda grads: optimizer.apply(grads), autograph=False)
    step = tf.function(lambda iterator: one_step(iterator.get_next()), autograph=False)
    data = iter(tf.data.Dataset.from_tensor_slices(tuple(map(tf.stack, zip(*batches, strict=True)))))
    for _ in batches:
        step(data)
    before = values([*weights, *optimizer.variables])
    with pytest.raises(tf.errors.OutOfRangeError):
        step(data)
    assert_same(values([*weights, *optimizer.variables]), before)
    assert int(optimizer.iterations) == 3 // accumulated


# Settings


@in_ways(("jit",), *[(jit,) for jit in JIT], is_long=True)
def test_accumulated_gradients_count_as_one_update(case, jit):
    options = {"learning_rate": LinearDecay(1e-2, 4), "weight_decay": LinearDecay(0.1, 4)}
    one, four = case.build(**options), case.build(**options, gradient_accumulation_steps=4)
    big, small = made(), made()
    if jit or case.name in OF_EACH_KIND:
        update_big, update_small = compiled_update(one, big, jit), compiled_update(four, small, jit)
    else:
        update_big, update_small = quick_update(one, big), quick_update(four, small)
    for t in range(3):
        micro = [[*numbers(seed=10 * t + i).values()] for i in range(4)]
        update_big([sum(each) / 4 for each in zip(*micro, strict=True)])
        for i, grads in enumerate(micro):
            assert int(four.iterations) == t
            before = values(small)
            update_small(grads)
            if i < 3:
                assert_same(values(small), before)
        assert_same(values(small), values(big), rtol=1e-5, atol=1e-6)


@of_each_kind
def test_schedules_are_numbers_that_change(case):
    """A learning rate and a weight decay from schedules are what setting both before each update would give."""
    rate, decay = LinearDecay(1e-2, 5), LinearDecay(0.2, 5)
    scheduled, by_hand = case.build(learning_rate=rate, weight_decay=decay), case.build(learning_rate=1.0, weight_decay=1.0)
    weights, others = made(), made()
    for t in range(4):
        grads = [*numbers(seed=t).values()]
        scheduled.apply(grads, weights)
        by_hand.learning_rate, by_hand.weight_decay = float(rate(t)), float(decay(t))
        by_hand.apply(grads, others)
    assert_same(values(weights), values(others), rtol=1e-6)


def test_weight_decay_and_its_exclusion(case):
    options = {"exclude_from_weight_decay": ["^vector$", "kern"]}
    some, none, every = (
        train(case.build(weight_decay=decay, **more), made())[-1] for decay, more in ((0.5, options), (None, {}), (0.5, {}))
    )
    for name, mine, without, decayed in zip(SHAPES, some, none, every, strict=True):
        np.testing.assert_array_equal(mine, without if name in ("vector", "kernel") else decayed)
        assert np.any(without != decayed) or name == "scalar"  # which has a direction only, if steps have a fixed length


@of_each_kind
def test_exclusion_as_in_keras(case):
    by_method, by_argument = (
        case.build(weight_decay=0.5),
        case.build(weight_decay=0.5, exclude_from_weight_decay=["vector", "^matrix$"]),
    )
    weights = made()
    by_method.exclude_from_weight_decay(var_list=[weights[2]], var_names=["vector"])
    again = case.optimizer.from_config(by_method.get_config())
    expected = train(by_argument, made())
    assert_same_history(train(by_method, weights), expected)
    assert_same_history(train(again, made()), expected)


@of_each_kind
def test_learning_rate_multipliers(case):
    rate = default_rate(case)
    plain, double = (train(case.build(learning_rate=r), made()) for r in (rate, 2 * rate))
    for name, index in (("vector", 1), ("kernel", 3)):
        mine = train(case.build(learning_rate_multipliers={f"^{name}": 2.0, "e": 1.0}), made())
        for t in range(len(mine)):
            for i, value in enumerate(mine[t]):
                np.testing.assert_allclose(value, (double if i == index else plain)[t][i], rtol=1e-6)


@pytest.mark.parametrize(
    "argument", ["exclude_from_weight_decay", "learning_rate_multipliers", "exclude_from_layer_adaptation"]
)
def test_pattern_that_is_found_nowhere(case, argument):
    is_refused = "multi" in argument and not getattr(case.optimizer, "takes_multipliers", True)
    if is_refused or argument not in case.build().get_config():
        pytest.skip("has no such argument")
    optimizer = case.build(**{argument: {"bia": 1.0} if "multi" in argument else ["bia"]})
    for _ in range(2):
        with pytest.raises(ValueError, match=f"`{argument}`: 'bia' is found in none of the "):
            optimizer.build(made())


@in_ways(("name",), ("clipnorm",), ("clipvalue",), ("global_clipnorm",), is_long=True)
def test_clipping(case, name):
    limit, weights, others = 0.1, made(), made()
    clipped, plain = case.build(**{name: limit}), case.build()
    for t in range(3):
        grads = numbers(seed=t)
        clipped.apply([*grads.values()], weights)
        by_hand = {k: np.array(g) for k, g in grads.items()}
        total = np.sqrt(sum(np.sum(g**2) for g in by_hand.values()))
        for k, g in by_hand.items():
            length = {"clipnorm": np.linalg.norm(g), "global_clipnorm": total}.get(name)
            by_hand[k] = np.clip(g, -limit, limit) if length is None else g * min(1, limit / length)
        plain.apply([ops.convert_to_tensor(g, "float32") for g in by_hand.values()], others)
    assert_same(values(weights), values(others), rtol=1e-5, atol=1e-6)


@of_each_kind
def test_moving_average_of_weights(case):
    weights, optimizer = made(), case.build(use_ema=True, ema_momentum=0.9)
    means = None
    for history in train(optimizer, weights, 4):
        means = history if means is None else [0.9 * mean + 0.1 * value for mean, value in zip(means, history, strict=True)]
    optimizer.finalize_variable_values(weights)
    assert_same(values(weights), means, rtol=1e-6, atol=1e-7)


# A model


@functools.cache
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x[:1792] / 16).astype("float32"), y[:1792]  # whole batches: a batch of another size is compiled by itself


@in_ways(
    ("policy", "jit", "options"),
    *[("float32", jit, {}) for jit in JIT],
    ("mixed_bfloat16", JIT[0], {"use_ema": True, "clipnorm": 1.0}),
    ("mixed_float16", JIT[0], {"nonfinite": "raise"}),
    is_long=True,
)
def test_fit(case, policy, jit, options):
    if case.loss is not None and policy == "mixed_float16":
        pytest.skip("a LossScaleOptimizer does not pass the loss on")
    x, y = digits()
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, "relu", dtype=policy),
            keras.layers.BatchNormalization(dtype=policy),
            keras.layers.Dense(10, dtype=policy),
        ]
    )
    model.dtype_policy = keras.DTypePolicy(policy)
    schedule = LinearDecay(case.digits_rate, 3 * 56)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(case.build(learning_rate=schedule, **options), loss, jit_compile=jit)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    if case.name not in OF_EACH_KIND or jit != JIT[0]:  # built within the first step, TensorFlow traces the step twice
        model.optimizer.build(model.trainable_variables)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    assert np.mean(np.argmax(ops.convert_to_numpy(ops.cast(model(x), "float32")), axis=-1) == y) > 0.9
    assert int(model.optimizer.iterations) >= 3 * 56 - 15


# The room


def test_no_class_is_forgotten():
    assert {case.name for case in CASES} == set(CLASSES) == {row.target.__name__ for row in ROWS}
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", [*CLASSES, "Optimizer", "FusedOptimizer", "LossAwareOptimizer"])
def test_every_argument_is_in_the_signature(name):
    """Those that are handed on to the base, too, and type checkers know the same ones by a `TypedDict`."""
    kind = PUBLIC[name]
    parameters = inspect.signature(kind).parameters.values()
    assert all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters)
    assert all(each.annotation is not each.empty for each in parameters)
    if issubclass(kind, Optimizer):
        assert {*inspect.signature(Optimizer).parameters} <= {each.name for each in parameters}
        handed_on = typing.get_type_hints(kind.__init__).get("options")
        typed = set() if handed_on is None else set(typing.get_type_hints(*typing.get_args(handed_on)))
        assert typed == {each.name for each in parameters if each.kind == each.KEYWORD_ONLY}


def test_the_signature_of_a_users_own_class():
    class Mine(optimizers.Lion):
        def __init__(self, strength, beta_1=0.5, **kwargs):
            super().__init__(beta_1=beta_1, **kwargs)
            self.strength = strength

    names = list(inspect.signature(Mine).parameters)
    assert names[:2] == ["strength", "beta_1"]
    assert sorted(names[1:]) == sorted(inspect.signature(optimizers.Lion).parameters)
    config = Mine(3.0, learning_rate=0.5).get_config()
    assert (config["strength"], config["learning_rate"], config["beta_2"]) == (3.0, 0.5, 0.99)
    assert Mine.from_config(config).get_config() == config


def test_the_reasons_to_differ_belong_to_tests():
    tests = {name for name in globals() if name.startswith("test_")}
    assert {name for case in CASES for name in case.differs} <= tests


BAD = [(case, bad) for case in CASES for bad in case.bad]


@pytest.mark.parametrize(("case", "bad"), BAD, ids=[f"{case.name} {bad}" for case, bad in BAD])
def test_bad_arguments(case, bad):
    (name, value) = next(iter(bad.items()))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        case.build(**bad)
    assert f"`{name}`" in str(error.value)
    assert repr(value) in str(error.value) or repr(value[0]) in str(error.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": -1},
        {"learning_rate": "fast"},
        {"weight_decay": -0.1},
        {"weight_decay": True},
        {"exclude_from_weight_decay": "bias"},
        {"exclude_from_weight_decay": ["("]},
        {"learning_rate_multipliers": ["bias"]},
        {"learning_rate_multipliers": {"bias": -1}},
        {"nonfinite": "ignore"},
    ],
    ids=str,
)
def test_bad_arguments_of_the_base(case, bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        case.build(**bad)
