"""Pruned weights: how many, which, that they stay 0, and that nothing else is in the way."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import LearningRateLogger, MagnitudePruning, TrainingState
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import LearningRateRewinding, LinearDecay, PiecewiseConstant, SparsityRamp
from tests.contract.backends import JIT, JIT_WAYS
from tests.nightly import nightly

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(40, 6)), RANDOM.normal(size=(40, 1))
RAMP = SparsityRamp(0.0, 0.8, begin_step=5, end_step=15)


def network(optimizer="adam", jit=JIT[0]):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(9, "tanh"), keras.layers.Dense(1, name="last")])
    model.compile(optimizer, loss="mse", jit_compile=jit)
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def kernels(model):
    return [ops.convert_to_numpy(layer.kernel) for layer in model.layers]


def zeros(model):
    return [int(np.sum(each == 0)) for each in kernels(model)]


class Zeros(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen, self.masks = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(zeros(self.model))
        self.masks.append(kernels(self.model)[0] == 0)


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_sparsity_after_each_update(jit):
    model = network(keras.optimizers.Adam(0.01), jit)
    history = fit(model, MagnitudePruning(RAMP), look := Zeros())
    expected = [[round(54 * s), round(9 * s)] for s in RAMP.values(20)]
    assert look.seen == expected
    assert expected[-1] == [43, 7]
    assert history.history["sparsity"] == pytest.approx([RAMP.values([9])[0], 0.8])
    assert all(np.all(ops.convert_to_numpy(layer.bias) != 0) for layer in model.layers)


def test_the_smallest_are_pruned():
    model = network(keras.optimizers.SGD(0.0))
    before = kernels(model)
    fit(model, MagnitudePruning(0.5), epochs=1)
    for old, new in zip(before, kernels(model), strict=True):
        limit = np.sort(np.abs(old), axis=None)[round(0.5 * old.size)]
        np.testing.assert_array_equal(new, np.where(np.abs(old) >= limit, old, 0))


def test_global_ranking():
    model = network(keras.optimizers.SGD(0.0))
    before = kernels(model)
    fit(model, MagnitudePruning(0.5, scope="global"), epochs=1)
    limit = np.sort(np.abs(np.concatenate([each.ravel() for each in before])))[round(0.5 * 63)]
    for old, new in zip(before, kernels(model), strict=True):
        np.testing.assert_array_equal(new, np.where(np.abs(old) >= limit, old, 0))
    assert sum(zeros(model)) == round(0.5 * 63)


def test_what_is_pruned_stays_pruned():
    model = network(keras.optimizers.Adam(0.05))
    ramp = SparsityRamp(0.0, 0.8, begin_step=2, end_step=18, frequency=4)
    fit(model, MagnitudePruning(ramp), look := Zeros())
    for before, after in itertools.pairwise(look.masks):
        assert np.all(after[before])
    counts = [int(mask.sum()) for mask in look.masks]
    assert counts == [0] * 6 + [25] * 4 + [38] * 4 + [43] * 6  # of 54: 0.4625, 0.7, 0.7875, 0.8


def test_excluded_layers():
    model = network()
    fit(model, MagnitudePruning(0.5, exclude_from_pruning=["last"]))
    assert zeros(model) == [27, 0]


def test_accumulated_updates_count():
    model = network(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
    fit(model, MagnitudePruning(PiecewiseConstant([3], [0.0, 0.5])), look := Zeros(), epochs=1)
    assert [first for first, _ in look.seen] == [0] * 6 + [27] * 4


def test_learning_rate_rewinding():
    """Trains for ten updates, then prunes twice and replays the last five rates each time."""
    rates = LearningRateRewinding(LinearDecay(0.1, 10), 10, rewind_steps=5, cycles=2)
    model = network(keras.optimizers.SGD(rates))
    sparsity = PiecewiseConstant([10, 15], [0.0, 0.5, 0.75])
    logger = LearningRateLogger()
    history = fit(model, MagnitudePruning(sparsity, scope="global"), look := Zeros(), logger)
    assert [sum(each) for each in look.seen] == [0] * 10 + [32] * 5 + [47] * 5
    assert history.history["learning_rate"] == pytest.approx([0.01, 0.01])


def test_saved_on_the_way_and_trained_further(tmp_path):
    model = network(keras.optimizers.Adam(0.01))
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(model, MagnitudePruning(RAMP), save)
    half = keras.models.load_model(tmp_path / "1.keras")
    fit(half, MagnitudePruning(RAMP), epochs=1)
    for one, other in zip(kernels(half), kernels(model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@nightly
def test_resumed_within_an_epoch(tmp_path):
    def run(folder, stop_at=None):
        def stop(batch, logs):
            if batch == stop_at:
                raise InterruptedError

        model = network(keras.optimizers.Adam(0.01))
        end = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        state = TrainingState(tmp_path / folder, every=3)
        model.fit(ScheduledBatches(X, Y, batch_size=2), verbose=0, callbacks=[MagnitudePruning(RAMP), end, state])
        return kernels(model)

    with pytest.raises(InterruptedError):
        run("state", stop_at=10)
    for one, other in zip(run("state"), run("other"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": "high"}, "Received: sparsity='high'"),
        ({"sparsity": 0.5, "scope": "row"}, "must be one of 'layer', 'global'. Received: scope='row'"),
        ({"sparsity": 0.5, "exclude_from_pruning": "last"}, "Received: exclude_from_pruning='last'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        MagnitudePruning(**options)


def test_what_cannot_be_pruned():
    with pytest.raises(ValueError, match=r"Received: sparsity=1.5"):
        fit(network(), MagnitudePruning(1.5))
    with pytest.raises(ValueError, match="'nowhere' is found in none of the"):
        fit(network(), MagnitudePruning(0.5, exclude_from_pruning=["nowhere"]))
    with pytest.raises(ValueError, match="no kernels to prune"):
        fit(network(), MagnitudePruning(0.5, exclude_from_pruning=["kernel"]))
