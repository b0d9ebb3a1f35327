"""The base of every optimizer: what it is to Keras, to a saved file and to a variable in low precision."""

import inspect
import math
import re
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import backends, keras_private, path_rules, validation
from keras_lrsched._core.backends import after
from keras_lrsched._core.roles import Roles, deferred
from keras_lrsched.optimizers._low_precision import bytes_of, stochastic_round, wide, wide_dtype
from keras_lrsched.optimizers._nonfinite import all_finite
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.schedules.per_update import refuse_per_update


class Optimizer(keras_private.OptimizerHooks):
    """An update rule whose state and arithmetic are float32, whatever the dtype of the variables.

    A subclass names its state in `state_names` and writes its formula once, in `step`. It stores each constructor argument
    under its own name: `get_config` reads them from there.

    Everything counts updates. Under `gradient_accumulation_steps`, Keras' own optimizers ask a schedule at each micro-step;
    these ask it at each update. With data of unknown length (`filter`, generators, TFRecords), TensorFlow finds their end by
    a step without a batch, unless XLA compiles the step. Keras' own optimizers count it, so that their schedules are one
    update further with each epoch; these do not, nor does any optimizer inside of `Lookahead` or `LayerwiseLearningRate`.

    A variable without a gradient takes no part in an update: it and its state stay what they are, bit for bit, as do those
    of a layer that was frozen since the optimizer was built. (On JAX, Keras makes gradients of zero, and an optimizer
    updates all variables that it was built with.) In sums over all variables, such as those behind the distance of
    `Prodigy`, its gradient is zero. Under `gradient_accumulation_steps`, a variable with a gradient in any micro-step takes
    part; Keras' own optimizers lose what came before a micro-step without one. t, in the formulas, counts updates of the
    optimizer.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments.
        weight_decay: A number, a `LearningRateSchedule`, or `None` for none. Defaults to `None`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in `keras.optimizers.Optimizer`.
        exclude_from_weight_decay: Regular expressions; a variable is not decayed if one is found in its path, such as
            `"dense_1/bias"`. `"bias"` and `"normalization"` may find nothing, and also find what is that by its layer; the
            second finds vectors called `gamma`, `beta` or `scale` as well. Any other expression must be found. `"role:"`
            and a kind of `Role`, such as `"role:embedding"`, finds all of this role. Defaults to `None`, for none.
        learning_rate_multipliers: A dictionary from regular expressions to numbers. The first that is found in the path of
            a variable multiplies its learning rate. Defaults to `None`, for none.
        master_weights: Whether to keep a float32 copy of each variable in lower precision, so that updates too small for
            that precision add up. Defaults to `None`: none are kept, with a warning where a variable is in lower precision
            and is not rounded at random. `False` keeps none without the warning.
        stochastic_rounding: Whether to round a bfloat16 variable up or down at random, so that small updates count on
            average. Defaults to `False`.
        lazy_embeddings: Whether a sparse gradient, which an `Embedding` has on TensorFlow, updates only the rows that occur
            in it. This is fast for large tables, but the momentum and the weight decay of other rows stand still. For
            methods that treat each entry by itself; not with gradient accumulation or several replicas, where gradients
            become dense. Defaults to `False`.
        seed: An int, for stochastic rounding. Defaults to `None`, for a random one.
        nonfinite: What to do about gradients that are infinite or NaN. `"propagate"`: nothing. `"skip"`: leave the whole
            update out, as if the batch had not been; `skipped_updates` counts them. `"raise"`: do so and raise
            `FloatingPointError`: at once in eager code, as `InvalidArgumentError` in a `tf.function`; at the end of `fit` if
            the step was compiled by XLA, which cannot raise. Defaults to `"propagate"`.
        roles: The table of roles that `roles(model)` returns, corrected. Defaults to `None`: each variable has its role from
            its layer, which is found as long as it lives.
        **options: Refused, but for `decay`, which Keras ignores with a warning.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a regular expression is found in no
            path, or `roles` is of another model. In the first update, if gradients are accumulated on several replicas of
            `tf.distribute`.
    """

    _learning_rate: Any  # Keras: a variable, a schedule or a function

    state_names: tuple[str, ...] = ()
    """Names of the state that each variable has in its own shape, at first zero."""

    state_settings: tuple[str, ...] = ("momentum",)
    """Names of numbers that must not be 0 when the optimizer is built, if they are to change: 0 may mean less state."""

    _waiting_places: Any = frozenset()  # in the list of variables, under accumulation

    elementwise = False
    """Whether each entry is updated from its own gradient and state alone, so that one row of a variable can be."""

    def __init__(
        self,
        learning_rate,
        weight_decay=None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        use_ema=False,
        ema_momentum=0.99,
        ema_overwrite_frequency=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        name=None,
        exclude_from_weight_decay=None,
        learning_rate_multipliers=None,
        master_weights=None,
        stochastic_rounding=False,
        lazy_embeddings=False,
        seed=None,
        nonfinite="propagate",
        roles=None,
        **options,
    ):
        _refuse_schedules(
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            seed=seed,
        )
        super().__init__(
            checked_rate("learning_rate", learning_rate),
            weight_decay=checked_rate("weight_decay", weight_decay),
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **options,
        )
        self._not_decayed = path_rules.patterns("exclude_from_weight_decay", exclude_from_weight_decay)
        self._given: dict[str, list[int]] = {}  # by path, the ids of variables that were given to a method
        self.learning_rate_multipliers = path_rules.multipliers("learning_rate_multipliers", learning_rate_multipliers)
        if master_weights and stochastic_rounding:
            raise ValueError("`master_weights` are exact, so `stochastic_rounding` cannot apply. Received: both as True")
        self.master_weights = master_weights
        self.stochastic_rounding = stochastic_rounding
        if lazy_embeddings and not self.elementwise:
            raise ValueError(
                f"{type(self).__name__} needs all rows for an update of one. Received: lazy_embeddings={lazy_embeddings!r}"
            )
        self.lazy_embeddings = lazy_embeddings
        self.seed = seed
        self.nonfinite = validation.one_of("nonfinite", nonfinite, ("propagate", "skip", "raise"))
        self.roles = path_rules.table(roles)
        if isinstance(keras_private.learning_rate_setting(self), keras.Variable):
            self._widen_learning_rate(learning_rate)

    # What a method defines

    def resolve_paths(self, variables, find_roles):
        """Turns rules by path and role into a list with an item for each variable, before anything is built.

        Args:
            variables: What is trained.
            find_roles: A function that returns a list of their roles, each a `keras_lrsched.optimizers.Role`.
        """
        self._refuse_shared_paths(variables)
        rules = path_rules.first_match("learning_rate_multipliers", self.learning_rate_multipliers, variables, find_roles)
        self._multipliers = [self.learning_rate_multipliers.get(rule, 1.0) for rule in rules]
        self._decayed = path_rules.included("exclude_from_weight_decay", self._not_decayed, variables, find_roles)
        self._decay_multipliers = [1.0] * len(variables)  # for a wrapper to set

    def make_state(self, variable):
        """The state of one variable: a dictionary of what `add_state` returns. Override it for other shapes than its own."""
        return {name: self.add_state(variable, name) for name in self.state_names}

    def make_scalars(self):
        """The state that all variables share: a dictionary of what `add_scalar` returns."""
        return {}

    def before_update(self, contexts):
        """What must be known of all variables before one is updated; `contexts` are their `UpdateContext`s.

        It may set their state and scalars. What it returns is their `shared`.
        """

    def step(self, w, g, state, ctx):
        """The formula: the new value of a variable.

        Args:
            w: Its value.
            g: Its gradient.
            state: Its state, to be read and set as attributes.
            ctx: Its `UpdateContext`, with `learning_rate`, `weight_decay`, `t`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `step(w, g, state, ctx)`.")

    # State

    def build(self, variables):
        if self.built or not variables:  # Keras loads .h5 files with none: rules by path wait for those of the model
            return
        path_rules.refuse_complex(variables)
        self.resolve_paths(variables, self._find_roles(variables))
        self._warn_of_lost_updates(variables)
        super().build(variables)
        self._states = [self._make_all_state(variable) for variable in variables]
        self._scalars = self.make_scalars()
        if self.nonfinite != "propagate":
            self.skipped_updates = self.add_scalar("skipped_updates", 0, dtype="int")
        if self.stochastic_rounding:
            self._rounding = keras.random.SeedGenerator(self.seed)
            keras_private.track_optimizer_variable(self, self._rounding.state)

    def _find_roles(self, variables):
        find = deferred(variables, self.roles)
        if self.roles is not None:
            find()  # a table of another model is an error also where no rule needs it
        return find

    def add_state(self, variable, name, shape=None, dtype=None, initializer="zeros"):
        """State of one variable, by default of its shape, float32 and zero."""
        own_shape = shape is None or tuple(shape) == tuple(variable.shape)
        return self.add_variable(
            shape=variable.shape if own_shape else shape,
            dtype=dtype or wide_dtype(variable.dtype),
            initializer=initializer,
            layout=keras_private.layout(variable) if own_shape else None,
            name=f"{path_rules.path(variable).replace('/', '_').replace(':', '_')}_{name}",
        )

    def add_scalar(self, name, value=0.0, dtype="float32", shape=()):
        """A number that all variables share, or several."""
        initializer = keras.initializers.Constant(value)
        return self.add_variable(shape, initializer, dtype, aggregation="only_first_replica", name=name)

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        """As Keras uses it for accumulated gradients and averages, but float32."""
        return self.add_state(reference_variable, name or "var", initializer=initializer)

    def state_bytes(self):
        """How many bytes the state takes: all but the counter of updates and the learning rate."""
        if not self.built:
            raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
        counter, rate = keras_private.iterations(self), keras_private.learning_rate_setting(self)
        return sum(bytes_of(v) for v in self.variables if v is not counter and v is not rate)

    def state_bytes_per_parameter(self):
        """The same for each number that is trained."""
        return self.state_bytes() / sum(math.prod(v.shape) for v in keras_private.trained_by(self))

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """As in Keras, before the optimizer is built; but it is saved."""
        if self.built:
            raise ValueError("`exclude_from_weight_decay()` must be called before the optimizer is built.")
        exact = [f"^{re.escape(path_rules.path(variable))}$" for variable in var_list or ()]
        for variable in var_list or ():
            self._given.setdefault(path_rules.path(variable), []).append(id(variable))
        self._not_decayed += path_rules.patterns("var_names", [*(var_names or ()), *exact])

    def _refuse_shared_paths(self, variables):
        """Raises an error where one variable was given, and another one has its path, by which it is saved."""
        for path, given in self._given.items():
            same = [variable for variable in variables if path_rules.path(variable) == path]
            if 0 < sum(id(variable) in given for variable in same) < len(same):
                shapes = ", ".join(str(tuple(variable.shape)) for variable in same)
                raise ValueError(
                    f"`exclude_from_weight_decay()` was given one of {len(same)} variables with the path {path!r}, of "
                    f"shapes {shapes}. Give their layers names of their own."
                )

    def _make_all_state(self, variable):
        if keras_private.is_overwritten_with_gradient(self, variable) or 0 in variable.shape:
            return {}
        state = self.make_state(variable)
        if self.master_weights and wide_dtype(variable.dtype) != variable.dtype:
            state["master"] = self.add_state(variable, "master")
        return state

    def _warn_of_lost_updates(self, variables):
        narrow = [v for v in variables if wide_dtype(v.dtype) != v.dtype]
        if narrow and self.master_weights is None and not self.stochastic_rounding:
            warnings.warn(
                f"Variables in {keras.backend.standardize_dtype(narrow[0].dtype)}, such as {path_rules.path(narrow[0])}, do "
                "not change by updates that are too small for their precision. Pass master_weights=True or "
                "stochastic_rounding=True, or master_weights=False to silence this warning.",
                stacklevel=2,
            )

    def _widen_learning_rate(self, value):
        """Keras keeps it in `floatx`: in two or three digits, if that has 16 bits."""
        narrow = keras_private.learning_rate_setting(self)
        if wide_dtype(narrow.dtype) != narrow.dtype:
            keras_private.remove_optimizer_variables(self, [narrow])
            keras_private.set_learning_rate_setting(self, self.add_scalar("learning_rate", value))

    # The update

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        if not grads:  # of a model that is frozen as a whole, for which the optimizer is not built
            return trainable_variables, optimizer_variables
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    def apply(self, grads, trainable_variables=None):
        if not self.built and trainable_variables:
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))  # variables cannot be made where something is waited for
        with after(grads):  # so do the counter and all scalars, which may not depend on the batch
            super().apply(grads, trainable_variables)

    @keras.optimizers.Optimizer.learning_rate.setter
    def learning_rate(self, value):
        refuse_per_update("The optimizer", "learning_rate", value)
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def _current_learning_rate(self):
        rate = keras_private.learning_rate_setting(self)
        return rate(self.iterations) if isinstance(rate, LearningRateSchedule) else super()._current_learning_rate()

    def _current_weight_decay(self):
        """`None` if there is none."""
        return self._current_decay(self.weight_decay)

    def _current_decay(self, decay):
        if isinstance(decay, LearningRateSchedule):
            return decay(self.iterations)
        return None if decay is None or decay == 0 else decay

    def _apply_gradients(self, grads, trainable_variables):
        if self.gradient_accumulation_steps and backends.replicas() > 1:
            raise ValueError(
                "TensorFlow accumulates no gradients on several replicas: leave `gradient_accumulation_steps` out. "
                f"Received: gradient_accumulation_steps={self.gradient_accumulation_steps}, {backends.replicas()} replicas"
            )
        pairs = [(g, v) for g, v in zip(grads, trainable_variables, strict=True) if 0 not in v.shape]
        if not pairs:
            return
        waiting = self._waiting([v for _, v in pairs])
        self._waiting_places = frozenset(keras_private.variable_index(self, v) for v in waiting)
        pairs = [self._wide_gradient(g, v) for g, v in pairs]
        pairs += [(ops.zeros(v.shape, wide_dtype(v.dtype)), v) for v in waiting]
        super()._apply_gradients([g for g, _ in pairs], [v for _, v in pairs])

    def _waiting(self, variables):
        """The others, under accumulation: they may have had gradients in earlier micro-steps."""
        if not self.gradient_accumulation_steps:
            return []
        known = {keras_private.variable_key(self, variable) for variable in variables}
        others = [v for v in keras_private.trained_by(self) if keras_private.variable_key(self, v) not in known]
        return [v for v in others if 0 not in v.shape and not keras_private.is_overwritten_with_gradient(self, v)]

    def _wide_gradient(self, gradient, variable):
        """A dense gradient in float32, and what it belongs to: the variable, or some of its rows."""
        accumulated = self.gradient_accumulation_steps or backends.replicas() > 1
        if self.lazy_embeddings and backends.is_sparse(gradient) and not accumulated:
            gradient, variable = backends.used_rows(gradient, variable)
        return ops.cast(backends.dense(gradient, variable), wide_dtype(variable.dtype)), variable

    def _clip(self, grads):
        """Keras clips what each replica has; it is the sum that must be."""
        return super()._clip(backends.sum_over_replicas(self, grads))

    def _update_variables(self, grads, trainable_variables, learning_rate):
        finite = self._check_finite(grads, trainable_variables)
        scalars = OptimizerState(self._scalars)
        common = learning_rate, self._current_weight_decay(), ops.convert_to_tensor(self.iterations)
        contexts = [self._make_context(v, g, scalars, *common) for v, g in zip(trainable_variables, grads, strict=True)]
        shared = self.before_update(contexts)
        for ctx in contexts:
            ctx.shared = shared
            self._store(ctx, self.step(ctx.value, ctx.gradient, ctx.state, ctx), finite)
        self._assign_all(scalars.take(), finite)

    def _make_context(self, variable, gradient, scalars, learning_rate, weight_decay, iterations):
        is_part = hasattr(variable, "whole")
        index = keras_private.variable_index(self, variable.whole if is_part else variable)
        ctx = UpdateContext(
            variable,
            index,
            gradient,
            OptimizerState(variable.of(self._states[index]) if is_part else self._states[index]),
            scalars,
            learning_rate,
            weight_decay * self._decay_multipliers[index] if weight_decay is not None and self._decayed[index] else None,
            self._multipliers[index],
            iterations,
        )
        if index in self._waiting_places:
            ctx.takes_part = ops.any(ops.not_equal(gradient, 0))
        return ctx

    def resting(self, contexts):
        """1 for each variable that takes no part in an update and 0 for the others: an array, or a tensor."""
        rests = np.ones(len(self._states), "float32")
        rests[[ctx.index for ctx in contexts]] = 0
        undecided = [ctx for ctx in contexts if ctx.takes_part is not None]
        if not undecided:
            return rests
        each = [*map(ops.convert_to_tensor, rests)]
        for ctx in undecided:
            each[ctx.index] = 1 - ops.cast(ctx.takes_part, "float32")
        return ops.stack(each)

    def assign(self, variable, value):
        if backends.replicas() > 1:
            backends.assign_on_each_replica(variable, value)
        else:
            super().assign(variable, value)

    def _store(self, ctx, value, finite):
        if "master" in ctx.state:
            ctx.state.master = value
        if self.stochastic_rounding and ctx.variable.dtype == "bfloat16":
            value = stochastic_round(value, self._rounding)
        if ctx.takes_part is not None:
            if ctx.variable.constraint is not None:  # which Keras applies to what has a gradient in the last micro-step
                value = ctx.variable.constraint(value)
            finite = ctx.takes_part if finite is None else ops.logical_and(finite, ctx.takes_part)
        self._assign_all([*ctx.state.take(), (ctx.variable, value)], finite)

    def _assign_all(self, changes, condition):
        for variable, value in changes:
            value = ops.cast(value, variable.dtype)
            if condition is not None:
                value = ops.where(condition, value, ops.convert_to_tensor(variable))
            self.assign(variable, value)

    def _update_averages(self, trainable_variables):
        """As in Keras, but in float32."""
        if self.use_ema:
            momentum = self.ema_momentum * ops.cast(ops.not_equal(self.iterations, 0), "float32")
            for variable, mean in zip(trainable_variables, keras_private.moving_averages(self), strict=True):
                if mean is not None:
                    old, value = wide(mean), wide(variable)
                    new = average(ops.cast(momentum, mean.dtype), old, value)
                    mean.assign(ops.where(ops.equal(old, value), old, new))  # exact where a variable stays

    def _assign_averages(self, trainable_variables):
        """As in Keras; variables that gradients overwrite have no average, for which Keras fails on TensorFlow."""
        means = keras_private.moving_averages(self)
        if all(mean is not None for mean in means):
            super()._assign_averages(trainable_variables)
            return
        for variable, mean in zip(trainable_variables, means, strict=True):
            if mean is not None:
                variable.assign(mean)

    def _check_finite(self, grads, variables):
        """Whether the update is to be done, as a tensor; `None` if it is in any case."""
        if self.nonfinite == "propagate":
            return None
        finite = all_finite(grads, variables, raises=self.nonfinite == "raise")
        counter = keras_private.iterations(self)
        skipped = ops.cast(ops.logical_not(finite), counter.dtype)
        self.skipped_updates.assign_add(skipped)
        # Keras will count this update although it is left out.
        counter.assign_sub(skipped * (self.gradient_accumulation_steps or 1))
        return finite

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        if self.nonfinite == "raise" and self.built and keras_private.has_value(self.skipped_updates):
            skipped = int(ops.convert_to_numpy(self.skipped_updates))
            if skipped:
                raise FloatingPointError(f"{skipped} updates had gradients that are not finite.")

    # Saving and loading

    def get_config(self):
        config = super().get_config()
        config["weight_decay"] = _to_config(self.weight_decay)  # Keras serializes no schedule there
        for name in self._argument_names():
            if name not in config and name != "exclude_from_weight_decay":  # a method of Keras
                config[name] = _to_config(getattr(self, name))
        return {**config, "exclude_from_weight_decay": list(self._not_decayed)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**{name: _from_config(value, custom_objects) for name, value in config.items()})

    @classmethod
    def _argument_names(cls):
        """Of the constructors of this class and of those between it and Keras' own."""
        for base in cls.__mro__[: cls.__mro__.index(Optimizer) + 1]:
            parameters = [*inspect.signature(base).parameters.values()]
            yield from (parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD)


def checked_rate(name, value):
    """A learning rate or weight decay: a number as a float, all else as Keras takes it."""
    if value is None or isinstance(value, LearningRateSchedule) or (callable(value) and name == "learning_rate"):
        refuse_per_update("The optimizer", name, value)
        return value
    if callable(value):
        raise ValueError(f"`{name}` must be a number, a LearningRateSchedule or None. Received: {name}={value!r}")
    return validation.non_negative_float(name, value)


def _refuse_schedules(**numbers):
    """Raises for an argument that Keras would take and fail on in the first update, or not at all."""
    for name, value in numbers.items():
        if callable(value):
            raise ValueError(
                f"`{name}` must be a number; the callback ScheduleHyperparameter varies numbers of an optimizer by a "
                f"schedule. Received: {name}={value!r}"
            )


def _to_config(value):
    return keras.saving.serialize_keras_object(value) if callable(value) or isinstance(value, Roles) else value


def _from_config(value, custom_objects):
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
    return value
