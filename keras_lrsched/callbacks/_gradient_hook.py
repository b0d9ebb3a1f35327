"""Computations of callbacks with gradients as part of the compiled step, around the optimizer's `apply`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private
from keras_lrsched._core.backends import after
from keras_lrsched._core.training_loop import inner_optimizer, step_hooks


def add(model: keras.Model, hook: Any) -> None:
    """Call `hook.before_apply` and `hook.after_apply` around each `apply` of the model's optimizer, traced or run.

    A hook that makes variables calls `step_hooks.make_step(model)` when it has them.
    """
    optimizer = inner_optimizer(model.optimizer)
    step_hooks.add_hook(model, hook)
    if not step_hooks.is_patched(model, optimizer, "apply"):
        step_hooks.patch(model, optimizer, "apply", _hooked(model, optimizer))
        for each in wrappers(model.optimizer):
            for method in ("save_own_variables", "load_own_variables"):
                step_hooks.patch(model, each, method, _without_ours(optimizer, getattr(each, method)))
    step_hooks.make_step(model)


def remove(model: keras.Model, hook: Any, variables: list[keras.Variable]) -> None:
    """Undo `add`, and remove the hook's variables from the optimizer."""
    if hook not in step_hooks.hooks(model):
        return
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
    step_hooks.remove_hook(model, hook)
    optimizer = inner_optimizer(model.optimizer)
    keras_private.remove_optimizer_variables(optimizer, variables)


def _hooked(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Callable:
    original = optimizer.apply

    def apply(grads: Any, trainable_variables: Any = None) -> None:
        grads = list(grads)
        variables = keras_private.trained_by(optimizer) if trainable_variables is None else list(trainable_variables)
        if not optimizer.built:
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(variables)
        with after(grads):  # so does Keras' counter, which would run without a batch at the end of data of unknown length
            pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None and not _is_overwritten(v)]
            gradients = backends.sum_over_replicas(optimizer, [_dense(optimizer, g, v) for g, v in pairs])
            present = [v for _, v in pairs]
            hooks = [hook for hook in step_hooks.hooks(model) if hasattr(hook, "before_apply")]
            for hook in hooks:
                hook.is_in_step = True
                hook.before_apply(gradients, present)
            original(grads, variables)
            for hook in hooks:
                hook.after_apply(gradients, present)

    return apply


def _is_overwritten(variable: keras.Variable) -> bool:
    """Whether it has no gradient, but gets a new value in the place of one (the scales of float8)."""
    return getattr(variable, "overwrite_with_gradient", False)


def _dense(optimizer: keras.optimizers.Optimizer, gradient: Any, variable: keras.Variable) -> Any:
    """A gradient as a plain tensor of at least float32, without the constant factor that the optimizer takes off."""
    gradient = backends.dense(gradient, variable)
    gradient = ops.cast(gradient, keras.backend.result_type(gradient.dtype, "float32"))
    scale = optimizer.loss_scale_factor
    return gradient if scale is None else gradient / scale


def wrappers(optimizer: keras.optimizers.Optimizer) -> Iterator[keras.optimizers.Optimizer]:
    """An optimizer, and the one that it is wrapped around."""
    yield optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
        yield optimizer


def _without_ours(optimizer: keras.optimizers.Optimizer, method: Any) -> Callable:
    """A method that saves or loads the optimizer's variables, as if the callbacks had none among them."""

    def call(store: Any) -> None:
        with _hidden(optimizer):
            method(store)

    return call


@contextlib.contextmanager
def _hidden(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    everything = keras_private.own_optimizer_variables(optimizer)
    ours = [each for each in everything if getattr(each, "of_callback", False)]
    keras_private.remove_optimizer_variables(optimizer, ours)
    try:
        yield
    finally:
        keras_private.set_optimizer_variables(optimizer, everything)
