"""The contract of every optimizer where a part of the variables takes part in a step, and where weights come from outside.

A gradient that is missing is no gradient of zero: the variable is not in the step. It is the same whether the gradient is
`None` or the variable is not passed, as where a layer was frozen since the optimizer was built.
"""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import optimizers
from keras_lrsched.precision import LossScaleOptimizer, QuantizedState
from tests.nightly import nightly, some

from .backends import BACKEND
from .optimizer_cases import CASES
from .test_optimizers import SHAPES, assert_same, numbers

PARTS = ((1, 3), (0, 2), (1, 3), (0, 1, 2, 3), (2,), (0, 2), (0, 1, 2, 3), (1, 3))
"""The variables that take part in each step; the first step has a part of them only."""
SHARED = (
    "DAdaptAdam",
    "DAdaptLion",
    "DAdaptSGD",
    "DoG",
    "DoWG",
    "GradientGrouping",
    "Mechanic",
    "MoMo",
    "MoMoAdam",
    "NoiseAdaptive",
    "OASIS",
    "PolyakMomentum",
    "Prodigy",
)
"""Those whose step size comes from sums over all variables: each variable alone would have another."""
START_LATE = ("ADOPT", "SOAP")
"""Those that do not move a variable by its first gradient."""


def variant(build, name, by_day=True):
    return pytest.param(build, id=name, marks=() if by_day else nightly)


def of_case(case, **fixed):
    def build(**options):
        optimizer = case.build(**fixed, **options)
        if case.loss is None:
            return optimizer
        return told_of_loss(optimizer, case.loss)

    return build


def told_of_loss(optimizer, loss):
    apply = optimizer.apply

    def told(*given):
        optimizer.set_loss(loss)
        apply(*given)

    vars(optimizer)["apply"] = told
    return optimizer


def adamw(**options):
    return optimizers.AdamW(0.01, weight_decay=None, **options)


OTHERS = [
    variant(lambda: adamw(nonfinite="skip"), "skipping"),
    variant(lambda: adamw(clipnorm=0.1), "clipped"),
    variant(lambda: optimizers.Lookahead(keras.optimizers.Adam(0.01), sync_period=2), "Lookahead-Keras"),
    variant(lambda: optimizers.LayerwiseLearningRate(keras.optimizers.Adam(0.01), {"": 2.0}), "LayerwiseLearningRate-Keras"),
    variant(lambda: QuantizedState(adamw(), "coat", min_size=1), "QuantizedState"),
    variant(lambda: QuantizedState(keras.optimizers.Adam(0.01), "blockwise8", min_size=1), "QuantizedState-Keras"),
    variant(lambda: LossScaleOptimizer(adamw(), initial_scale=1.0), "LossScaleOptimizer"),
]
ALONE = [variant(of_case(case), case.name) for case in CASES if case.name not in SHARED] + OTHERS
ALL = [variant(of_case(case), case.name, case.by_day) for case in CASES] + OTHERS


def made(offset=0.0, dtype="float32"):
    return [keras.Variable(value + offset, dtype=dtype, name=name) for name, value in numbers().items()]


def state_of(optimizer, index):
    """The state that belongs to one variable: arrays by name."""
    state = {}
    while optimizer is not None:
        for name, entry in (optimizer._states[index] if hasattr(optimizer, "_states") else {}).items():
            for part, variable in getattr(entry, "parts", {"": entry}).items():
                state[f"{type(optimizer).__name__}.{name}{part}"] = variable
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return state


def shared_state(optimizer):
    """State that belongs to no variable, such as the counter of updates."""
    own = {id(variable) for index in range(len(SHAPES)) for variable in state_of(optimizer, index).values()}
    return [variable for variable in optimizer.variables if id(variable) not in own]


def step(optimizer, weights, part, t, as_none):
    """One update of a part, by gradients that are missing or variables that are not passed."""
    gradients = [*numbers(seed=100 + t).values()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist")
        if as_none:
            optimizer.apply([g if i in part else None for i, g in enumerate(gradients)], weights)
        else:
            optimizer.apply([gradients[i] for i in part], [weights[i] for i in part])


def arrays(variables):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


@pytest.mark.parametrize("build", ALL)
def test_what_is_not_in_a_step_is_what_it_was(build):
    optimizer, weights = build(), made()
    optimizer.build(weights)
    for t, part in enumerate(PARTS):
        others = [i for i in range(len(weights)) if i not in part]
        kept = [v for i in others for v in (weights[i], *state_of(optimizer, i).values())]
        before, moving = arrays(kept), arrays(weights[i] for i in part)
        step(optimizer, weights, part, t, as_none=t % 2)
        assert_same(arrays(kept), before)
        for i, old in zip(part, moving, strict=True):
            new = ops.convert_to_numpy(weights[i])
            is_first = not any(i in earlier for earlier in PARTS[:t])
            assert np.any(new != old) != (is_first and type(optimizer).__name__ in START_LATE)
            assert np.max(np.abs(new - old)) < 0.5  # no more than a step, also of what was not in the first ones


NARROW = [
    variant(lambda: adamw(master_weights=True), "copies"),
    variant(lambda: adamw(stochastic_rounding=True, seed=1), "rounded"),
    variant(lambda: optimizers.Lookahead(adamw(master_weights=True), sync_period=2), "Lookahead"),
    variant(lambda: optimizers.LayerwiseLearningRate(adamw(master_weights=True), {"": 2.0}), "LayerwiseLearningRate"),
    variant(lambda: optimizers.ScheduleFreeAdamW(0.01, master_weights=True), "ScheduleFreeAdamW"),
]


@pytest.mark.parametrize("build", NARROW)
def test_what_is_not_in_a_step_is_what_it_was_in_bfloat16(build):
    """And so it is for the average of Schedule-Free, between which and the weights an evaluation goes back and forth."""
    optimizer, weights = build(), made(dtype="bfloat16")
    optimizer.build(weights)
    for t, part in enumerate(PARTS[:4]):
        if t == 3 and hasattr(optimizer, "use_average"):
            optimizer.use_average()
        kept = [v for i in range(len(weights)) if i not in part for v in (weights[i], *state_of(optimizer, i).values())]
        before = arrays(kept)
        step(optimizer, weights, part, t, as_none=t % 2)
        assert_same(arrays(kept), before)


def test_an_average_of_what_stays_stays():
    """Also where the model is given the average, as at the end of each `fit`."""
    optimizer, weights = adamw(use_ema=True, ema_momentum=0.9), made()
    optimizer.build(weights)
    for t in range(3):
        step(optimizer, weights, (0, 1, 2, 3), t, as_none=False)
    optimizer.finalize_variable_values(weights)
    frozen = arrays(weights[:2])
    for t in range(3):
        step(optimizer, weights, (2, 3), t, as_none=False)
        optimizer.finalize_variable_values(weights)
        assert_same(arrays(weights[:2]), frozen)


@pytest.mark.parametrize("build", some(ALONE, 12))
def test_each_variable_goes_as_if_alone(build):
    """In the updates of the same numbers, which are those of the whole run."""
    together, alone, weights, others = build(), build(), made(), made()
    together.build(weights)
    alone.build(others)
    for t, part in enumerate(PARTS):
        shared = arrays(shared_state(together))
        step(together, weights, part, t, as_none=True)
        for i in part:
            for variable, value in zip(shared_state(alone), shared, strict=True):
                variable.assign(value)
            step(alone, others, (i,), t, as_none=False)
        assert_same(arrays(weights), arrays(others), rtol=1e-5, atol=1e-6)
        for i in range(len(weights)):
            mine, yours = (arrays(state_of(each, i).values()) for each in (together, alone))
            assert_same(mine, yours, rtol=1e-5, atol=1e-6)


IN_MICRO_STEPS = (((1, 3), (0, 1)), ((0, 2), (3,)), ((1,), (1, 2)), ((0,), (0, 1, 2, 3)))
"""Those of two micro-steps; in the first update the third variable has no gradient at all."""
ACCUMULATED = [
    variant(of_case(case), case.name)
    for case in CASES
    if case.name not in ("Grokfast", "Mechanic")  # which refuse accumulation
    and case.name != "GradientGrouping"  # whose median is then over all variables, also those without a gradient
    and (BACKEND != "jax" or case.name in SHARED[::2])
]


@pytest.mark.parametrize("build", some(ACCUMULATED, 8))
def test_gradients_of_earlier_micro_steps_count(build):
    """A variable takes part in an update if it has a gradient in one of its micro-steps, in the last or not."""
    small, big, weights, others = build(gradient_accumulation_steps=2), build(), made(), made()
    small.build(weights)
    big.build(others)
    for t, parts in enumerate(IN_MICRO_STEPS):
        gradients = [[*numbers(seed=10 * t + i).values()] for i in range(2)]
        before = arrays(weights)
        for part, each in zip(parts, gradients, strict=True):
            small.apply([each[i] for i in part], [weights[i] for i in part])
        union = sorted({*parts[0], *parts[1]})
        means = [sum(each[i] for part, each in zip(parts, gradients, strict=True) if i in part) / 2 for i in union]
        big.apply(means, [others[i] for i in union])
        assert_same(arrays(weights), arrays(others), rtol=1e-5, atol=1e-6)
        assert_same(
            [ops.convert_to_numpy(weights[i]) for i in range(4) if i not in union],
            [before[i] for i in range(4) if i not in union],
        )


UNLIMITED = {"d0": 1e-3, "growth_rate": None}
DISTANCES = {
    "DAdaptAdam": UNLIMITED,
    "DAdaptLion": {**UNLIMITED, "beta_1": 0.0},  # a gradient of zero has the sign of the momentum
    "DAdaptSGD": UNLIMITED,
    "Prodigy": UNLIMITED,
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in DISTANCES], ids=lambda case: case.name)
def test_a_missing_gradient_is_zero_in_the_sums_of_all(case):
    """The distance is that of a run with gradients of zero, whose weights and other state are put back."""
    missing, zero = (case.build(**DISTANCES[case.name]) for _ in range(2))
    weights, others = made(), made()
    missing.build(weights)
    zero.build(others)
    for part in PARTS:
        gradients = [w - 4.0 for w in arrays(weights)]
        missing.apply([ops.convert_to_tensor(gradients[i]) for i in part], [weights[i] for i in part])
        gone = [i for i in range(len(others)) if i not in part]
        kept = [v for i in gone for v in (others[i], *(entry for name, entry in zero._states[i].items() if name != "s"))]
        before = arrays(kept)
        zero.apply([ops.convert_to_tensor(g if i in part else 0.0 * g) for i, g in enumerate(gradients)], others)
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)
        np.testing.assert_allclose(missing.d, zero.d, rtol=1e-5)
        assert_same(arrays(weights), arrays(others), rtol=1e-4, atol=1e-5)
    assert float(ops.convert_to_numpy(missing.d)) > 2e-3


def test_a_missing_gradient_is_zero_in_the_model_of_the_loss():
    """MoMo in NumPy: d is the mean over all updates, and those that take part make the step."""
    optimizer, weights, loss, lr, beta = optimizers.MoMo(100.0), made(), 3.0, 100.0, 0.9
    optimizer.build(weights)
    w = arrays(weights)
    d, f, c = [np.zeros_like(each) for each in w], loss, 0.0
    for t, part in enumerate(PARTS):
        g = [each if i in part else 0.0 * each for i, each in enumerate(arrays(numbers(seed=100 + t).values()))]
        keep = beta if t else 0.0
        d = [keep * old + (1 - keep) * new for old, new in zip(d, g, strict=True)]
        f = keep * f + (1 - keep) * loss
        c = keep * c + (1 - keep) * sum(np.sum(a * b) for a, b in zip(g, w, strict=True))
        gap = max(f + sum(np.sum(a * b) for a, b in zip(d, w, strict=True)) - c, 0.0)
        tau = min(lr, gap / sum(np.sum(d[i] ** 2) for i in part))
        w = [each - tau * d[i] if i in part else each for i, each in enumerate(w)]
        optimizer.set_loss(loss)
        step(optimizer, weights, part, t, as_none=False)
        assert_same(arrays(weights), w, rtol=1e-3, atol=1e-4)


OFFSET = 2.0
DEPEND_ON_WEIGHTS = (
    *("AdaLomo", "Adafactor", "ConditionalGradient", "Lamb", "Lars", "Mechanic", "MoMo", "MoMoAdam"),
    "Scion",  # whose constrained weights decay
)


FREE = [variant(of_case(case, weight_decay=None), case.name) for case in CASES if case.name not in DEPEND_ON_WEIGHTS]


@pytest.mark.parametrize("build", some(FREE + OTHERS, 12))
def test_weights_that_are_set_from_outside_are_where_training_goes_on(build):
    """They move from there as they would have moved from where they were: no state remembers the old place."""
    one, other, weights, shifted = build(), build(), made(), made()
    one.build(weights)
    other.build(shifted)
    for t, part in enumerate(PARTS):
        step(one, weights, part, t, as_none=True)
        step(other, shifted, part, t, as_none=True)
        if t == 2:
            for variable in shifted:
                variable.assign(variable + OFFSET)
        expected = [value + (OFFSET if t >= 2 else 0.0) for value in arrays(weights)]
        assert_same(arrays(shifted), expected, rtol=1e-5, atol=1e-5)
