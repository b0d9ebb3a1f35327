"""Each number that an optimizer is constructed with follows a schedule, or is refused by name."""

import inspect

import keras
import pytest
from keras import ops

from keras_lrsched.callbacks._settings import StandIn
from keras_lrsched.schedules import LinearDecay
from tests.nightly import some

from .backends import BACKEND
from .optimizer_cases import CASES
from .test_optimizers import OF_EACH_KIND, assert_same, made, numbers, values

OF_ALL = (
    *("clipnorm", "clipvalue", "global_clipnorm", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor"),
    *("gradient_accumulation_steps", "seed"),
)
FOLLOW = ("learning_rate", "weight_decay", "adam_weight_decay")
FOLLOW_IN = (("LocalUpdates", "period"), ("ScheduleFreeWrapper", "beta_1"))
every_case = pytest.mark.parametrize("case", some(CASES, chosen=lambda case: case.by_day), ids=lambda case: case.name)
one_of_each_kind = pytest.mark.parametrize(
    "case", some(CASES, chosen=lambda case: case.name in OF_EACH_KIND), ids=lambda case: case.name
)


def own_arguments(case):
    """Those whose default is a number, or none."""
    parameters = inspect.signature(case.optimizer).parameters.values()
    no_numbers = ("optimizer", "name", "blocks", "master_weights")
    kinds = (type(None), int, float)
    return [each.name for each in parameters if type(each.default) in kinds and each.name not in no_numbers]


@every_case
def test_a_schedule_as_an_argument_works_or_is_refused(case):
    schedule = LinearDecay(0.5, 10)
    for name in dict.fromkeys((*own_arguments(case), *OF_ALL, "learning_rate", "weight_decay")):
        if name in FOLLOW or (case.name, name) in FOLLOW_IN:
            optimizer, weights = case.build(**{name: schedule}), made()
            if case.loss is None:
                optimizer.apply([*numbers(seed=0).values()], weights)
        else:
            with pytest.raises(ValueError, match=f"`{name}`"):
                case.build(**{name: schedule})


def settings(optimizer):
    """The optimizer that has the formula, and its numbers that `ScheduleHyperparameter` would set."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    names = {name for name in optimizer._argument_names() if isinstance(vars(optimizer).get(name), float)}
    return optimizer, {name for name in names if vars(optimizer)[name] or name not in optimizer.state_settings}


def stand_ins(optimizer):
    """For each of these numbers what a step has in its place, with the number."""
    owner, names = settings(optimizer)
    pairs = {name: (StandIn(), vars(owner)[name]) for name in names}
    return owner, pairs


def set_to_tensors(owner, pairs, scale=1.0):
    """As in a step that is compiled, where a schedule has no value yet."""
    for name, (stand_in, number) in pairs.items():
        stand_in.hold(ops.convert_to_tensor(number, "float32") * scale)
        vars(owner)[name] = stand_in


@pytest.mark.skipif(BACKEND == "jax", reason="takes long, and all is Keras operations")
@one_of_each_kind
def test_tensors_in_the_place_of_numbers(case):
    """They give what the numbers give."""
    histories = []
    for as_tensors in (False, True):
        optimizer, weights = case.build(), made()
        optimizer.build(weights)
        if as_tensors:
            set_to_tensors(*stand_ins(optimizer))
        for t in range(3):
            if case.loss is not None:
                optimizer.set_loss(case.loss)
            optimizer.apply([*numbers(seed=t).values()], weights)
        histories.append(values(weights))
    assert_same(*histories, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="compiles nothing")
@one_of_each_kind
def test_numbers_that_are_known_when_a_step_runs(case):
    """No formula takes a setting for a Python number while it is traced."""
    optimizer, weights = case.build(), made()
    optimizer.build(weights)
    owner, pairs = stand_ins(optimizer)

    def update(gradients, scale):
        set_to_tensors(owner, pairs, scale)
        if case.loss is not None:
            optimizer.set_loss(case.loss)
        optimizer.apply(gradients)

    gradients, one = [*numbers(seed=0).values()], ops.convert_to_tensor(1.0)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.function(update, autograph=False).get_concrete_function(gradients, one)
    else:
        import jax

        def stateless(gradients, scale, variables):
            with keras.StatelessScope([*zip([*weights, *optimizer.variables], variables, strict=True)]):
                update(gradients, scale)

        jax.eval_shape(stateless, gradients, one, [v.value for v in (*weights, *optimizer.variables)])
