"""The contract of every schedule, on every backend. A new one joins by a `Case` in `schedule_cases`."""

import copy
import inspect
import json
import math
import pickle

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay

from keras_lrsched import schedules
from keras_lrsched._core import registry
from keras_lrsched.schedules import profiles
from tests.nightly import nightly, some

from .backends import BACKEND, JIT, JIT_WAYS, compiled_update, traced
from .schedule_cases import CASES

FLOAT32 = 3e-6
"""The relative error that is granted to float32; no absolute one, so the small values at the end count too."""

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
TYPICAL = [
    case
    for case in CASES
    if case.name
    in ("REXDecay 50-75", "WarmupStableDecay one_minus_sqrt", "OneCycle peak between steps", "Tabulated", "nested")
    or case.name in ("InverseSqrtDecay Levanter", "accumulated warmup of Keras' own", "LinearDecay warmup from above")
]
typical_case = pytest.mark.parametrize("case", TYPICAL, ids=lambda case: case.name)
FIRST = {type(case.build()): case.name for case in reversed(CASES)}
OF_EACH_CLASS = [case for case in CASES if case in TYPICAL or case.name in FIRST.values()]
"""Alone in what takes long and differs by the operations of a class, not by its numbers."""
of_each_class = pytest.mark.parametrize("case", some(CASES, chosen=OF_EACH_CLASS.__contains__), ids=lambda case: case.name)
every_name = pytest.mark.parametrize("name", schedules.names())
CLASSES = {name: getattr(schedules, name) for name in schedules.__all__ if inspect.isclass(getattr(schedules, name))}
BASES = ("PhasedSchedule", "Profile", "Schedule", "Segment")
for base in BASES:
    del CLASSES[base]


def assert_close(actual, expected, rtol=FLOAT32):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-12 * np.max(np.abs(expected)))


def interesting(case):
    """The steps whose value is known, and those about the end."""
    end = case.build().total_steps or 0
    return np.array(sorted({*case.values, *case.printed, *range(max(0, end - 2), end + 2)}))


def same(one, other, case):
    np.testing.assert_array_equal(one.values(interesting(case)), other.values(interesting(case)))


# The values


@every_case
def test_values(case):
    schedule = case.build()
    assert_close(schedule.values(np.array([*case.values])), [*case.values.values()], case.rtol)
    if case.printed:
        assert_close(schedule.values(np.array([*case.printed])), [*case.printed.values()], 5e-6)


@every_case
def test_first_values(case):
    schedule = case.build()
    steps = min(schedule.total_steps or 20, 20)
    values = schedule.values(steps)
    assert values.shape == (steps,)
    assert values.dtype == "float64"
    np.testing.assert_array_equal(values, schedule.values(np.arange(steps)))


@every_case
def test_last_value_stays(case):
    schedule = case.build()
    if schedule.total_steps:
        assert isinstance(schedule.total_steps, int)
        assert len(set(schedule.values(schedule.total_steps + np.array([7, 100, 2**33])))) == 1


def test_no_class_is_forgotten():
    assert {type(case.build()).__name__ for case in CASES} == set(CLASSES)


def test_every_name_and_class_has_a_case():
    budgets = {case.name for case in CASES if case.name.startswith("budget")}
    assert budgets == {f"budget {name}" for name in schedules.names()}
    entries = registry.entries("schedules")
    assert {entry.target.__name__ for entry in entries} == set(CLASSES)


def test_no_profile_is_forgotten():
    cases = [case.build() for case in CASES if case.name.startswith("ProfileDecay")]
    assert {schedule.profile.name for schedule in cases} == set(profiles.names())


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@every_case
def test_copies_and_pickles(case):
    """As KerasTuner, scikit-learn and Ray do."""
    schedule = case.build()
    schedule(3)
    for copied in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert copied.get_config() == schedule.get_config()
        same(copied, schedule, case)


# The ways to ask for a value


@every_case
def test_call_with_a_number(case):
    schedule = case.build()
    for step in interesting(case)[:12].tolist():
        expected = schedule.values(np.array([step]))[0]
        for given in (step, np.int32(step), np.int64(step)):
            value = schedule(given)
            assert keras.ops.is_tensor(value)
            assert value.shape == ()
            assert_close(value, expected)


@every_case
def test_call_with_a_tensor(case):
    schedule = case.build()
    steps = interesting(case)
    for dtype in ("int8", "uint8", "int32", "int32" if BACKEND == "jax" else "int64"):
        fitting = steps[steps <= np.iinfo(dtype).max]
        for given in (fitting, fitting[-1]):
            value = schedule(keras.ops.convert_to_tensor(given, dtype))
            assert value.shape == given.shape
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
            assert_close(value, schedule.values(np.asarray(fitting))[-given.size :])


@every_case
def test_call_with_the_variable_of_an_optimizer(case):
    schedule = case.build()
    iterations = keras.Variable(0, dtype="int", trainable=False)
    for step in interesting(case)[:6].tolist():
        iterations.assign(step)
        assert_close(schedule(iterations), schedule.values(np.array([step]))[0])


def marks(case, jit):
    """One case of each class is traced, the others at night. Where compiling is one of two ways, typical cases are
    compiled, at night one of each class; the others are slow."""
    if case in TYPICAL:
        return ()
    if not jit or False not in JIT:
        return () if case in OF_EACH_CLASS else nightly
    return nightly if case in OF_EACH_CLASS else pytest.mark.slow


@pytest.mark.parametrize(
    ("case", "jit"),
    [pytest.param(case, jit, marks=marks(case, jit), id=f"{jit}-{case.name}") for jit in JIT for case in CASES],
)
def test_call_with_a_symbol(case, jit):
    schedule = case.build()
    values = traced(schedule, interesting(case), jit, autograph=True)
    assert values.dtype == "float32"
    assert_close(values, schedule.values(interesting(case)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere a narrow integer is no different inside a function")
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float32"])
def test_call_with_a_narrow_symbol(dtype):
    import tensorflow as tf

    line = schedules.LinearDecay(0.0, 900, warmup_target=1.0, warmup_steps=100)  # 1000 is no int8
    for schedule in (line, schedules.MultiplicativeCyclic(1.0, first_decay_steps=2)):
        assert_close(tf.function(schedule.__call__)(tf.constant([3, 120], dtype)), schedule.values(np.array([3, 120])))


@pytest.mark.parametrize(
    ("case", "floatx"),
    [
        pytest.param(
            case, floatx, marks=() if floatx != "bfloat16" and case in OF_EACH_CLASS else nightly, id=f"{floatx}-{case.name}"
        )
        for case in CASES
        for floatx in ("bfloat16", "float16", "float64")
    ],
)
def test_precision_of_the_model_does_not_matter(case, floatx):
    if floatx == "float64" and BACKEND == "jax":
        pytest.skip("JAX has float64 only behind a switch of its own")
    if case.rtol > 1e-9:
        pytest.skip("Keras' own schedules compute in floatx")
    schedule, steps, before = case.build(), interesting(case), keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        known, symbolic = schedule(steps), traced(schedule, steps)
    finally:
        keras.config.set_floatx(before)
    dtype, rtol = ("float64", 1e-9) if floatx == "float64" else ("float32", FLOAT32)
    assert keras.backend.standardize_dtype(known.dtype) == symbolic.dtype == dtype
    assert_close(known, schedule.values(steps), rtol)
    assert_close(symbolic, schedule.values(steps), rtol)


# Steps that float32 cannot count


@of_each_class
def test_late_start(case):
    schedule, start = case.build(), 2**24 + 1
    late = schedules.Chain([1.0, schedule], [start])
    steps = interesting(case)
    assert_close(traced(late, start + steps), schedule.values(steps))
    assert_close(late(start + steps), schedule.values(steps))


LONG, HALF = 2**26, 2**25
LONG_RUNS = {  # the schedule, its last step, and its value so many steps before
    "linear": (lambda: schedules.LinearDecay(1.0, LONG), LONG, lambda left: left / LONG),
    "linear after a warmup": (
        lambda: schedules.LinearDecay(0.0, HALF, warmup_target=1.0, warmup_steps=HALF + 1),
        LONG + 1,
        lambda left: left / HALF,
    ),
    "rex": (lambda: schedules.REXDecay(1.0, LONG), LONG, lambda left: 2 * left / (LONG + left)),
    "cosine": (
        lambda: schedules.ProfileDecay(1.0, LONG, profile="cosine"),
        LONG,
        lambda left: np.sin(math.pi / 2 * left / LONG) ** 2,
    ),
    "uba": (
        lambda: schedules.UnifiedBudgetAwareDecay(1.0, LONG, phi=0.5),
        LONG,
        lambda left: 4 * np.sin(math.pi / 2 * left / LONG) ** 2,
    ),
    "one minus sqrt": (
        lambda: schedules.WarmupStableDecay(1.0, 10, HALF, HALF),
        LONG + 10,
        lambda left: -np.expm1(0.5 * np.log1p(-left / HALF)),
    ),
    "short cooldown": (
        lambda: schedules.WarmupStableDecay(1.0, 0, LONG + 1, 200, cooldown="linear"),
        LONG + 201,
        lambda left: left / 200,
    ),
    "warmup": (lambda: schedules.Warmup(schedules.LinearDecay(1.0, HALF), HALF), LONG, lambda left: left / HALF),
    "cosines": (
        lambda: schedules.MultiplicativeCyclic(1.0, LONG // 4, warmup_steps=LONG // 4),
        LONG,
        lambda left: np.sin(math.pi * left / LONG) ** 2,
    ),
    "triangles": (
        lambda: schedules.TriangularCyclicalLearningRate(0.0, 1.0, LONG // 8),
        LONG,
        lambda left: 8 * left / LONG,
    ),
    "every second step": (
        lambda: schedules.PerUpdate(schedules.LinearDecay(1.0, HALF), 2),
        LONG,
        lambda left: np.ceil(left / 2) / HALF,
    ),
}


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("name", LONG_RUNS)
def test_long_run(name, jit):
    build, end, expected = LONG_RUNS[name]
    schedule = build()
    left = np.arange(100, 0, -1)
    assert_close(schedule.values(end - left), expected(left), 1e-9)
    values = traced(schedule, end - left, jit)
    assert_close(values, expected(left))
    assert len(set(values)) == (50 if name == "every second step" else 100)


def test_long_warmup_is_distinct_at_its_start():
    schedule = schedules.LinearDecay(0.0, 10, warmup_target=1.0, warmup_steps=LONG)
    assert_close(traced(schedule, np.arange(100)), np.arange(100) / LONG)


# Saving and loading


@every_case
def test_config(case):
    schedule = case.build()
    config = json.loads(json.dumps(schedule.get_config()))
    assert set(config) == set(inspect.signature(type(schedule)).parameters)
    again = type(schedule).from_config(config)
    assert again.get_config() == schedule.get_config()
    assert again.total_steps == schedule.total_steps
    same(again, schedule, case)


@every_case
def test_serialize(case):
    schedule = case.build()
    saved = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    same(keras.optimizers.schedules.deserialize(saved), schedule, case)
    saved = json.loads(json.dumps(keras.optimizers.serialize(keras.optimizers.SGD(schedule))))
    again = keras.optimizers.deserialize(saved)._learning_rate
    assert type(again) is type(schedule)
    same(again, schedule, case)


@every_case
def test_repr(case):
    schedule = case.build()
    text = repr(schedule)
    assert text.startswith(f"{type(schedule).__name__}(")
    if " object at 0x" not in text:  # the repr of Keras' own
        same(eval(text, {**vars(profiles), **vars(schedules)}), schedule, case)


@pytest.mark.parametrize("case", some(TYPICAL, 3), ids=lambda case: case.name)
def test_saved_model_goes_on_training(case, tmp_path):
    def fit(model):
        model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
        return model.get_weights()

    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    y = x @ np.array([[0.1], [-0.2], [0.3]], "float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05 * case.build(), momentum=0.5), "mse")
    fit(model)
    model.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    assert int(resumed.optimizer.iterations) == 5
    for undisturbed, loaded in zip(fit(model), fit(resumed), strict=True):
        assert np.all(np.isfinite(undisturbed))
        np.testing.assert_allclose(loaded, undisturbed, rtol=1e-6)


# Training


def assert_moves_by_its_sum(schedule, starts, jit):
    """The same in `fit`."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(schedule), loss=lambda y, prediction: prediction, jit_compile=jit)
    ones = np.ones((5, 1), "float32")
    for start in starts:
        model.set_weights([np.zeros((1, 1))])
        model.optimizer.iterations.assign(start)
        model.fit(ones, ones, batch_size=1, verbose=0)
        assert int(model.optimizer.iterations) == start + 5
        assert_close(-model.get_weights()[0].item(), schedule.values(start + np.arange(5)).sum())


def beginning_and_end(schedule):
    return 0, max(0, (schedule.total_steps or 10_000) - 3)


@of_each_class
def test_updates(case):
    """With a gradient of 1, plain SGD moves the weight by the sum of the values."""
    schedule, weight, one = case.build(), keras.Variable(0.0), keras.ops.convert_to_tensor(1.0)
    optimizer = keras.optimizers.SGD(schedule)
    update = compiled_update(optimizer, [weight])
    for start in beginning_and_end(schedule):
        weight.assign(0.0)
        optimizer.iterations.assign(start)
        for _ in range(5):
            update([one])
        assert int(optimizer.iterations) == start + 5
        assert_close(-float(weight.numpy()), schedule.values(start + np.arange(5)).sum())


@pytest.mark.parametrize("case", some(OF_EACH_CLASS, chosen=TYPICAL.__contains__), ids=lambda case: case.name)
def test_fit(case):
    schedule = case.build()
    assert_moves_by_its_sum(schedule, beginning_and_end(schedule), jit=False)


@pytest.mark.skipif(True not in JIT, reason="this backend does not compile the training step")
@typical_case
def test_fit_compiled(case):
    schedule = case.build()
    assert_moves_by_its_sum(schedule, beginning_and_end(schedule), jit=True)


# Bad arguments, and good ones of unusual types

BAD = (0, -1, math.nan, math.inf, -math.inf, "fast", None, True, [1], 1j)
ZERO_IS_FINE = {
    *("alpha", "warmup_start", "initial_learning_rate", "value"),  # from 0, to 0
    *("base_momentum", "max_momentum"),  # none
    *("warmup_steps", "stable_steps", "constant_steps", "annealing_steps", "warmup_tokens"),  # a phase that is left out
    *("drift", (schedules.Scale, "factor")),  # none
    *("initial_sparsity", "tau", "mid", "begin_step", "start_step"),  # none, at once
}
VALID = {}  # for each class and each of its numeric arguments, a construction that holds it
for case in CASES:
    schedule = case.build()
    for argument, number in schedule.arguments().items():
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            VALID.setdefault((type(schedule), argument), schedule.arguments())


def _may_be_none(cls, argument):
    """Not so a `warmup_target`, which a schedule with a warmup needs."""
    return inspect.signature(cls).parameters[argument].default is None and argument != "warmup_target"


BAD_NUMBERS = [
    pytest.param(cls, {**arguments, argument: bad}, bad, id=f"{cls.__name__} {argument}={bad!r}")
    for (cls, argument), arguments in VALID.items()
    for bad in ((*BAD, 2.5) if isinstance(arguments[argument], int) else BAD)
    if not (bad == 0 and {argument, (cls, argument)} & ZERO_IS_FINE) and not (bad is None and _may_be_none(cls, argument))
]


@pytest.mark.parametrize(("cls", "arguments", "bad"), BAD_NUMBERS)
def test_bad_number(cls, arguments, bad):
    with pytest.raises(ValueError, match="Received: ") as error:
        cls(**arguments)
    assert repr(bad) in str(error.value).split("Received: ")[1]


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [pytest.param(type(case.build()), bad, id=f"{case.name} {n}") for case in CASES for n, bad in enumerate(case.bad)],
)
def test_bad_arguments(cls, arguments):
    with pytest.raises(ValueError, match="Received: "):
        cls(**arguments)


FRACTIONS = (
    *("alpha", "warmup_start", "pct_start", "base_momentum", "max_momentum", "tau", "mid", "gamma"),
    *("initial_rate", "final_rate", "initial_sparsity", "final_sparsity"),
)


@pytest.mark.parametrize("argument", FRACTIONS)
def test_fractions_end_at_one(argument):
    for (cls, name), arguments in VALID.items():
        if name == argument and cls is not schedules.SynchronizationPeriod:  # whose alpha is a learning rate
            with pytest.raises(ValueError, match=r"Received: .*1\.01"):
                cls(**{**arguments, argument: 1.01})


@every_case
def test_numbers_of_other_types(case):
    def other(number):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return number
        if isinstance(number, int):
            return float(number) if number % 2 else np.int32(number)  # 1e4 is a number of steps
        exact = float(np.float32(number)) == number
        return int(number) if number.is_integer() else np.float32(number) if exact else np.float64(number)

    schedule = case.build()
    again = type(schedule)(**{name: other(value) for name, value in schedule.arguments().items()})
    assert json.dumps(again.get_config()) == json.dumps(schedule.get_config())
    same(again, schedule, case)


# By name, for a budget


@every_name
@pytest.mark.parametrize("warmup_steps", [0, 1, 12, 39])
def test_budget(name, warmup_steps):
    schedule = schedules.get(name, 0.3, 40, warmup_steps=warmup_steps)
    values = schedule.values(40)
    assert schedule.total_steps in (None, 40, warmup_steps)
    assert np.all(np.isfinite(values))
    assert np.min(values[1:]) > 0  # no update is wasted
    assert math.isclose(np.max(values), 0.3)
    assert_close(values[-1:], schedule.values(np.array([39])), 0)
    if warmup_steps:
        assert values[0] < 0.3
    else:
        assert values[-1] <= 0.3


@every_name
@pytest.mark.parametrize("warmup_steps", [40, 41, -1, 2.5, None, True])
def test_budget_refuses(name, warmup_steps):
    with pytest.raises(ValueError, match=f"Received: warmup_steps={warmup_steps}"):
        schedules.get(name, 0.3, 40, warmup_steps=warmup_steps)


@every_name
def test_budget_refuses_a_bad_budget(name):
    for total_steps in (0, -1, "all"):
        with pytest.raises(ValueError, match="Received: "):
            schedules.get(name, 0.3, total_steps)
    for peak in (-1.0, math.nan, "high", True):
        with pytest.raises(ValueError, match="Received: "):
            schedules.get(name, peak, 40)


# In place of Keras' CosineDecay


@pytest.mark.parametrize("name", ["LinearDecay", "REXDecay", "UnifiedBudgetAwareDecay", "ProfileDecay", "InverseSqrtDecay"])
def test_arguments_are_those_of_cosine_decay(name):
    theirs = inspect.signature(CosineDecay).parameters
    ours = inspect.signature(CLASSES[name]).parameters
    assert [*ours][: len(theirs)] == [*theirs]
    assert all(ours[key].default == theirs[key].default for key in theirs if key != "name")


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize(("warmup_steps", "decay_steps"), [(0, 10), (0, 1000), (10, 90), (100, 20)])
def test_cosine_profile_is_cosine_decay(warmup_steps, decay_steps, alpha):
    warmup = {"warmup_target": 0.3, "warmup_steps": warmup_steps} if warmup_steps else {}
    arguments = {"initial_learning_rate": 0.05 if warmup else 0.3, "decay_steps": decay_steps, "alpha": alpha, **warmup}
    ours, theirs = schedules.ProfileDecay(**arguments, profile="cosine"), CosineDecay(**arguments)
    for step in np.linspace(0, warmup_steps + decay_steps + 1, 15).astype(int).tolist():
        assert abs(float(ours(step)) - float(theirs(step))) <= 2e-6 * 0.3


@pytest.mark.skipif(BACKEND == "torch", reason="runs step by step, with the number of the step at hand")
@every_name
def test_a_budget_that_32_bits_do_not_count(name):
    """JAX has no other integers: a number that a formula cannot have there is refused."""
    if name == "distribution_shift":
        pytest.skip("has a table of all steps")
    schedule = schedules.get(name, 0.1, 10**11, 1000)
    steps = np.array([0, 500, 10**6, 2**31 - 200])
    if BACKEND == "jax" and name not in ("constant", "inverse_sqrt", "multiplicative_cyclic", "noam"):
        with pytest.raises(ValueError, match=r"JAX counts steps in 32 bits.* Received: \w+\("):
            traced(schedule, steps)
        return
    np.testing.assert_allclose(traced(schedule, steps), schedule.values(steps), rtol=1e-4, atol=1e-7)
