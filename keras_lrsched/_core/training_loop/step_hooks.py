"""Hooks in the training step: what is to be run in each step of `fit` is traced with it, once for many fits.

A hook is any object; while it is at work, methods that the step calls are patched. It may have a `step_key`, which equals
that of another hook if both make the same step and is `None` otherwise, and `step_variables`, a dictionary by name of those
that the compiled step has for it. A method `in_step` gets the arguments of `train_step`, and returns a context in which each
step is run or traced; `after_step` gets what the step returns. Its method `leave_step` calls `remove_hook`.

No other module patches a training step.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any

import keras

from keras_lrsched._core import keras_private
from keras_lrsched._core.backends import after


def hooks(model: keras.Model) -> list:
    """The hooks that are at work in the training step of a model, in the order in which they were added."""
    record = vars(model).get(_HOOKS)
    return [] if record is None else list(record.hooks)


def add_hook(model: keras.Model, hook: Any) -> None:
    """Let a hook be at work in the training step of a model; `make_step` has to follow."""
    if _HOOKS not in vars(model):
        vars(model)[_HOOKS] = _Hooks(model)
        patch(model, model, "train_step", _step_with_hooks(model))
    vars(model)[_HOOKS].hooks.append(hook)


def is_patched(model: keras.Model, owner: Any, name: str) -> bool:
    """Return `True` if `patch` has been called for a method since the first hook was added."""
    return any(each is owner and method == name for each, method, _ in vars(model)[_HOOKS].patches)


def patch(model: keras.Model, owner: Any, name: str, function: Callable) -> None:
    """Put a function in the place of a method, until the last hook is removed."""
    vars(model)[_HOOKS].patches.append((owner, name, vars(owner).get(name)))
    vars(owner)[name] = function


def variables_to_reuse(model: keras.Model, hook: Any) -> dict:
    """The variables, by name, that an equal hook had in the last `fit`, whose compiled step may be used again."""
    record = vars(model)[_HOOKS]
    place = record.hooks.index(hook)
    keys = record.reusable.keys if record.reusable is not None else []
    return record.reusable.variables[place] if place < len(keys) and keys[place] == _key(hook) else {}


def make_step(model: keras.Model) -> None:
    """Let Keras make the compiled step anew, or use that of the last `fit` if its hooks were equal.

    To be called when a hook has been added and has its variables: on JAX with several devices a step is compiled for the
    variables that the optimizer has by then.
    """
    record = vars(model)[_HOOKS]
    if model.train_function is not record.function:  # other code has let it be made anew
        record.reusable = None
    record.keys = [_key(hook) for hook in record.hooks]
    if record.reusable is not None and record.reusable.keys == record.keys:
        model.train_function = record.reusable.function
    else:
        model.make_train_function(force=True)
    record.function = model.train_function


def is_step_reused(model: keras.Model) -> bool:
    """Return `True` if the compiled step is that of the last `fit`, in which hooks are not called again."""
    record = vars(model)[_HOOKS]
    return record.reusable is not None and model.train_function is record.reusable.function


def remove_hook(model: keras.Model, hook: Any) -> None:
    """Undo `add_hook`, and with the last hook all of `patch`."""
    record = vars(model).get(_HOOKS)
    if record is None or hook not in record.hooks:
        return
    if record.step is None:
        record.step = _reusable_step(model, record)
    record.hooks.remove(hook)
    if record.hooks:
        return
    for owner, name, previous in reversed(record.patches):
        if previous is None:
            del vars(owner)[name]
        else:
            vars(owner)[name] = previous
    del vars(model)[_HOOKS]
    model.train_function = record.step


def remove_left_hooks(model: keras.Model) -> None:
    """Remove the hooks of a `fit` that did not end; to be called in `set_model`."""
    for hook in hooks(model):
        hook.leave_step()


def models_with_reusable_steps() -> list:
    """The models that a compiled step with hooks has been kept for."""
    return list(_with_reusable_steps)


_HOOKS = "_hooks_of_step"
_with_reusable_steps: weakref.WeakSet = weakref.WeakSet()


class _Hooks:
    """The hooks of a model while `fit` runs, and what was patched for them."""

    def __init__(self, model: keras.Model) -> None:
        self.hooks: list = []
        self.patches: list[tuple] = []
        self.function = model.train_function
        self.keys: list = []
        self.reusable = self.function if isinstance(self.function, _ReusableStep) else None
        self.step = None
        """The compiled step, or `None`, that the model gets back; set when the first hook is removed."""


class _ReusableStep:
    """The `train_function` of a model after a `fit` with hooks.

    Called as the step, by a `fit` without hooks, it lets Keras make its own. For the next `fit` with equal hooks it holds
    theirs, which need not be traced once more. Whatever makes Keras trace anew, such as `compile`, drops it.
    """

    def __init__(self, model: keras.Model, function: Callable, keys: list, variables: list[dict]) -> None:
        self.model, self.function, self.keys, self.variables = model, function, keys, variables
        _with_reusable_steps.add(model)

    def __call__(self, *args: Any) -> Any:
        self.model.make_train_function(force=True)
        return self.model.train_function(*args)


def _step_with_hooks(model: keras.Model) -> Callable:
    original = model.train_step

    @functools.wraps(original)
    def train_step(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            # Where something is waited for, variables cannot be made.
            if (model.optimizer is None or model.optimizer.built) and keras_private.is_compiled_part_built(model):
                stack.enter_context(after(args))
            for hook in hooks(model):
                if hasattr(hook, "in_step"):
                    stack.enter_context(hook.in_step(args))
            result = original(*args, **kwargs)
        for hook in hooks(model):
            if hasattr(hook, "after_step"):
                hook.after_step(result)
        return result

    return train_step


def _reusable_step(model: keras.Model, record: "_Hooks") -> "_ReusableStep | None":
    """`None` where nothing is compiled, where it was for other hooks, or where it cannot be made in the middle of `fit`."""
    if keras.backend.backend() == "torch" or keras.distribution.distribution() is not None:
        return None
    if model.train_function is not record.function or None in record.keys or len(record.keys) != len(record.hooks):
        return None
    variables = [dict(getattr(hook, "step_variables", {})) for hook in record.hooks]
    return _ReusableStep(model, record.function, record.keys, variables)


def _key(hook: Any) -> Any:
    return getattr(hook, "step_key", None)
