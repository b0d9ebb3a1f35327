"""How a callback's computation with gradients is put into the compiled step: it surrounds the optimizer's `apply`."""

import contextlib

import keras
from keras import ops

from keras_lrsched.callbacks.host_values import inner_optimizer
from keras_lrsched.optimizers import native


def hooks_of(optimizer):
    """What is at work in an optimizer."""
    return [] if optimizer is None else getattr(vars(optimizer).get("apply"), "hooks", [])


def add(model, hook):
    """Lets `hook.before_apply` and `hook.after_apply` surround each `apply` of the model's optimizer, traced or run."""
    optimizer = inner_optimizer(model.optimizer)
    if not hooks_of(optimizer):
        vars(optimizer)["apply"] = _hooked(optimizer)
        for each in wrappers(model.optimizer):
            vars(each)["save_own_variables"] = _without_ours(optimizer, each.save_own_variables)
            vars(each)["load_own_variables"] = _without_ours(optimizer, each.load_own_variables)
    hooks_of(optimizer).append(hook)
    model.make_train_function(force=True)


def remove(model, hook, variables):
    """Undoes `add`, and takes from the optimizer the variables that the hook had there."""
    optimizer = inner_optimizer(model.optimizer)
    if hook not in hooks_of(optimizer):
        return  # the model has been compiled anew
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
    hooks_of(optimizer).remove(hook)
    for variable in variables:
        optimizer._untrack_variable(variable)
    if not hooks_of(optimizer):
        del vars(optimizer)["apply"]
        for each in wrappers(model.optimizer):
            del vars(each)["save_own_variables"], vars(each)["load_own_variables"]
    model.train_function = None


def _hooked(optimizer):
    original = optimizer.apply
    hooks: list = []

    def apply(grads, trainable_variables=None):
        variables = optimizer._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not optimizer.built:
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(variables)
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None and not _is_overwritten(v)]
        gradients = native.summed_over_replicas(optimizer, [_dense(optimizer, g, v) for g, v in pairs])
        present = [v for _, v in pairs]
        for hook in hooks:
            hook.before_apply(gradients, present)
        original(grads, trainable_variables)
        for hook in hooks:
            hook.after_apply(gradients, present)

    vars(apply).update(hooks=hooks)
    return apply


def _is_overwritten(variable):
    """Whether it has no gradient, but gets a new value in the place of one (the scales of float8)."""
    return getattr(variable, "overwrite_with_gradient", False)


def _dense(optimizer, gradient, variable):
    """A gradient as a plain tensor of at least float32, without the constant factor that the optimizer takes off."""
    gradient = native.dense(gradient, variable)
    gradient = ops.cast(gradient, keras.backend.result_type(gradient.dtype, "float32"))
    scale = optimizer.loss_scale_factor
    return gradient if scale is None else gradient / scale


def wrappers(optimizer):
    """An optimizer, and the one that it is wrapped around."""
    yield optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
        yield optimizer


def _without_ours(optimizer, method):
    """A method that saves or loads the optimizer's variables, as if the callbacks had none among them."""

    def call(store):
        with _hidden(optimizer):
            method(store)

    return call


@contextlib.contextmanager
def _hidden(optimizer):
    everything = optimizer.variables
    _set_variables(optimizer, [each for each in everything if not getattr(each, "of_callback", False)])
    try:
        yield
    finally:
        _set_variables(optimizer, everything)


def _set_variables(optimizer, variables):
    for each in optimizer.variables:
        optimizer._untrack_variable(each)
    for each in variables:
        optimizer._track_variable(each)
