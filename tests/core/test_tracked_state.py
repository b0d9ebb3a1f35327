"""State that hangs on objects of a program: what is found, saved when it changes, and put back."""

import collections
import io
import itertools
import random
from fractions import Fraction

import keras
import numpy as np
import pytest

from keras_lrsched._core import plain
from keras_lrsched._core.tracked_state import TrackedState
from tests.contract.backends import BACKEND

GENERATOR = np.random.default_rng(0)
CALLS = [0]
total = 0


class Program(keras.callbacks.Callback):
    """Holds state of every kind."""

    def __init__(self):
        super().__init__()
        self.patience, self.images = 3, np.zeros((300, 300))
        self.number, self.nothing = 0, None
        self.queue, self.names, self.table = collections.deque([1], maxlen=3), set(), {0: "zero"}
        self.array, self.nested = np.zeros(3), {"a": [1, {2: np.ones(2)}]}
        self.tensor = keras.ops.zeros((2,))
        self.variable = keras.Variable(0.0)
        self.seeds = keras.random.SeedGenerator(1)
        self.numpy, self.old, self.python = np.random.default_rng(1), np.random.RandomState(1), random.Random(1)
        self.count = itertools.count()
        self.part = Part()

    def on_train_batch_end(self, batch, logs=None):
        global total
        total += 1
        CALLS[0] += 1
        self.number, self.nothing = self.number + 1, [1.5]
        self.queue.append(batch)
        self.names.add(batch)
        self.table[batch] = "batch"
        self.array[0] += 1
        self.nested["a"][1][2] *= 2
        self.tensor = self.tensor + 1
        self.variable.assign_add(1.0)
        self.part.values.append(batch)
        self.new = "made later"

    def draws(self):
        numbers = [self.numpy.normal(), self.old.normal(), self.python.random(), next(self.count), GENERATOR.normal()]
        return [*numbers, float(keras.random.normal((), seed=self.seeds))]


class Part:
    def __init__(self):
        self.values = []


def seen(program):
    plainly = [
        program.number,
        program.nothing,
        program.queue,
        program.names,
        program.table,
        program.part.values,
        CALLS,
        total,
    ]
    arrays = [program.array, program.nested["a"][1][2], program.tensor, program.variable]
    return plain.copied([*plainly, CALLS, total]) + [np.array(keras.ops.convert_to_numpy(each)).tolist() for each in arrays]


@pytest.fixture
def changed():
    program = Program()
    tracked = TrackedState({"program": program})
    for batch in range(4):
        program.on_train_batch_end(batch)
    program.draws()
    return program, tracked


def test_another_process_gets_all_that_has_changed(changed):
    global total
    program, tracked = changed
    state = tracked.state()
    expected, expected_draws = seen(program), program.draws()
    CALLS[0] = total = 0
    other = Program()
    assert TrackedState({"program": other}).restore(state) == []
    assert seen(other) == expected
    assert other.new == "made later"
    assert other.draws() == expected_draws


def test_what_has_not_changed_is_not_saved(changed):
    _, tracked = changed
    assert not {"program.patience", "program.images"} & set(tracked.state())
    fresh = Program()
    values = TrackedState({"program": fresh}).state()
    assert set(values) == {f"program.{name}" for name in ("variable", "seeds.state", "numpy", "old", "python", "count")} | {
        "program.draws<GENERATOR>"
    }


def test_what_changed_before_the_restore_goes_back_to_what_it_was(changed):
    other = Program()
    tracked = TrackedState({"program": other})
    state = TrackedState({"program": Program()}).state()
    other.number = 7
    tracked.restore(state)
    assert other.number == 0


def test_held_arrays_and_containers_are_changed_in_place(changed):
    _, tracked = changed
    other = Program()
    held = other.array, other.queue, other.table
    TrackedState({"program": other}).restore(tracked.state())
    assert all(one is other for one, other in zip(held, (other.array, other.queue, other.table), strict=True))


def test_a_full_state_holds_what_has_not_changed_too():
    program = Program()
    tracked = TrackedState({"program": program})
    before, state = seen(program), tracked.full_state()
    program.on_train_batch_end(0)
    TrackedState({"program": program}).restore(state)
    assert seen(program) == before


def test_what_cannot_be_saved_is_named():
    program = Program()
    program.file, program.iterator, program.fraction = io.StringIO(), iter(zip([1], [2], strict=True)), Fraction(1, 2)
    program.path = "a"
    tracked = TrackedState({"program": program})
    assert set(tracked.unknown) == {"program.file", "program.iterator"}
    program.fraction = Fraction(1, 3)
    tracked.state()
    assert tracked.unknown["program.fraction"] == "an object of the class Fraction"


def test_a_path_given_to_the_constructor_is_never_restored():
    class Writes(keras.callbacks.Callback):
        def __init__(self, path):
            super().__init__()
            self.path = path

    one, other = Writes("one"), Writes("other")
    tracked = TrackedState({"writes": one})
    one.path = "changed"
    state = tracked.state()
    assert state == {}
    assert "writes.path" in tracked.unknown
    TrackedState({"writes": other}).restore({"writes.path": "elsewhere"})
    assert other.path == "other"


def test_states_of_recurrent_layers_and_further_optimizers():
    model = keras.Sequential([keras.layers.Input(batch_shape=(2, 3, 1)), keras.layers.GRU(2, stateful=True)])
    model.further = keras.optimizers.Adam(0.1)
    model.further.build(model.trainable_variables)
    tracked = TrackedState({"model": model}, model.variables, model.variables)
    model(np.ones((2, 3, 1)))
    model.further.apply([keras.ops.ones(v.shape) for v in model.trainable_variables])
    state = tracked.state()
    assert sum("states" in path for path in state) == 1
    other = keras.Sequential([keras.layers.Input(batch_shape=(2, 3, 1)), keras.layers.GRU(2, stateful=True)])
    other.further = keras.optimizers.Adam(0.1)
    assert TrackedState({"model": other}, other.variables, other.variables).restore(state) == []
    for one, two in zip(model.further.variables, other.further.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="needs TensorFlow")
def test_variables_and_generators_of_tensorflow_also_those_in_a_pipeline():
    import tensorflow as tf

    noise = keras.layers.GaussianNoise(0.5)
    data = tf.data.Dataset.range(3).map(lambda x: noise(tf.cast(x, "float32")[None], training=True)).batch(1)
    program = Program()
    program.tf_variable, program.tf_generator = tf.Variable([1.0]), tf.random.Generator.from_seed(1)
    tracked = TrackedState({"program": program, "data": data})
    list(data)
    program.tf_variable.assign([2.0])
    program.tf_generator.normal(())
    state = tracked.state()
    assert "program.tf_variable" in state
    after = [float(program.tf_generator.normal(())), np.array([each.numpy() for each in data]).tolist()]
    tracked.restore(state)
    assert [float(program.tf_generator.normal(())), np.array([each.numpy() for each in data]).tolist()] == after


@pytest.mark.skipif(BACKEND != "torch", reason="needs PyTorch")
def test_buffers_and_generators_of_pytorch():
    import torch

    program = Program()
    program.norm, program.torch_generator = torch.nn.BatchNorm1d(2), torch.Generator().manual_seed(1)
    tracked = TrackedState({"program": program})
    program.norm(torch.ones(3, 2))
    state = tracked.state()
    draw = torch.rand((), generator=program.torch_generator).item()
    mean = program.norm.running_mean.clone()
    program.norm(torch.zeros(3, 2))
    tracked.restore(state)
    assert torch.equal(program.norm.running_mean, mean)
    assert torch.rand((), generator=program.torch_generator).item() == draw
