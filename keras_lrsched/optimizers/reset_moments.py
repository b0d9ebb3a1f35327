"""The state of an optimizer as it was at first."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import keras_private, path_rules
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Variable
from keras_lrsched.optimizers.optimizer import Optimizer
from keras_lrsched.optimizers.wrapper import Wrapper

KEPT = ("master", "radius")
"""State of one variable that does not come from gradients."""


@register(
    title="reset of momenta and second moments",
    checked="memory",
    against="no source under this name; low-rank methods that merge and restart do so",
    kind="restart",
)
def reset_moments(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[Variable] | None = None,
    reset_iterations: bool = False,
) -> None:
    """Set the state of an optimizer to what it was before the first update, outside of the training step.

    The learning rate stays, and the number of updates, so that schedules go on. Adam's corrections of the bias go on, too:
    with them near 1, the first step after a reset is (1 - beta_1) / sqrt(1 - beta_2) times that of a new Adam, 3.2 times at
    its defaults. So lower the learning rate for some updates, or reset the number of updates as well.

    Args:
        optimizer: An optimizer that is built; one around others is reset with them.
        variables: The variables whose state is reset; of an optimizer of this package only. Defaults to `None`: all, with
            what they share, such as the distance of `Prodigy`.
        reset_iterations: Whether the number of updates is 0 again. Defaults to `False`.

    Raises:
        ValueError: If the optimizer is not built; if `variables` are given with an optimizer of Keras, or some of them are
            not known to it.

    Reference:
        From memory: no source was found under this name.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = keras.optimizers.SGD(1.0, momentum=0.5)
    >>> optimizer.apply([keras.ops.array([1.0])], [w])
    >>> reset_moments(optimizer)
    >>> optimizer.apply([keras.ops.array([0.0])], [w])
    >>> w.numpy()
    array([0.], dtype=float32)
    """
    if not optimizer.built:
        raise ValueError("`optimizer` has no state yet: build it first, or train. Received: an optimizer that is not built")
    known = keras_private.trained_by(optimizer)
    first = type(optimizer).from_config(optimizer.get_config())
    first.build(known)
    if variables is None:
        kept = {id(keras_private.iterations(optimizer)), *_rates(optimizer), *_kept_state(optimizer)}
        for variable, value in zip(optimizer.variables, first.variables, strict=True):
            if id(variable) not in kept:
                variable.assign(ops.convert_to_tensor(value))
    else:
        for variable in variables:
            _reset_one(optimizer, first, variable, known)
    if reset_iterations:
        counter = keras_private.iterations(optimizer)
        counter.assign(ops.zeros_like(ops.convert_to_tensor(counter)))


def _reset_one(optimizer: Any, first: Any, variable: Variable, known: Sequence[Variable]) -> None:
    index = next((i for i, each in enumerate(known) if each is variable), None)
    if index is None:
        raise ValueError(f"The optimizer was not built with this variable. Received: {path_rules.path(variable)}")
    for mine, new in zip(_chain(optimizer), _chain(first), strict=True):
        if not isinstance(mine, (Optimizer, Wrapper)):
            raise ValueError(f"The state of one variable is known of this package's only. Received: optimizer={mine!r}")
        for name, state in mine._states[index].items():
            if name not in KEPT:
                state.assign(ops.convert_to_tensor(new._states[index][name]))


def _chain(optimizer: Any) -> list[Any]:
    """An optimizer and those inside of it."""
    found = [optimizer]
    while hasattr(found[-1], "inner_optimizer"):
        found.append(found[-1].inner_optimizer)
    return [each for each in found if not isinstance(each, keras.optimizers.LossScaleOptimizer)]


def _rates(optimizer: Any) -> set[int]:
    return {id(keras_private.learning_rate_setting(each)) for each in _chain(optimizer)}


def _kept_state(optimizer: Any) -> set[int]:
    ours = [each for each in _chain(optimizer) if isinstance(each, Optimizer)]
    return {id(state) for each in ours for states in each._states for name, state in states.items() if name in KEPT}
