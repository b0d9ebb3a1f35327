"""Base of all optimizers: state and arithmetic in float32, rules by path, saving and loading."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.roles import Roles, deferred
from keras_lrsched._core.roles import roles as roles_of_model
from keras_lrsched._core.types import FindRoles, LearningRate, Multipliers, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._arguments import checked_rate, from_config, refuse_schedules, to_config
from keras_lrsched.optimizers._low_precision import stochastic_round, warn_of_lost_updates, wide_dtype
from keras_lrsched.optimizers._nonfinite import skip_unless_finite
from keras_lrsched.optimizers._options import show_inherited_arguments
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers._update_rules import UpdateRules


class Optimizer(UpdateRules):
    """Base of update rules whose state and arithmetic are float32, whatever the dtype of the variables.

    A subclass names its state in `state_names` and writes its formula once, in `step`. It stores each constructor argument
    under its own name: `get_config` reads them from there. A constructor lists the arguments of its formula, and hands on
    the ones of this class as `**options: Unpack[Options]`. So the file of a method shows its formula instead of the
    same twenty arguments; type checkers and editors find them all in the `TypedDict`, `inspect.signature` and `help` in the
    signature, where `__init_subclass__` puts them. Classes with the name of a Keras class list Keras' arguments, too, since
    these can be given by position there.

    Everything counts updates. Under `gradient_accumulation_steps`, Keras' own optimizers call a schedule at each micro-step;
    these call it at each update. With data of unknown length (`filter`, generators, TFRecords), TensorFlow finds their end
    by a step without a batch, unless XLA compiles the step. Keras' own optimizers count it, so that their schedules are one
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
            its layer, which is found as long as it lives. The method `roles` shows the table.
        cautious: Whether entries of a step count only where they have the sign of the gradient; the others of a variable are
            divided by the share of these, 0.001 at least, and by that of one more than these in `Lion`. `Muon` does so
            before it orthogonalizes. Weight decay is left as it is. Defaults to `False`.
        cautious_weight_decay: Whether only those entries decay that the step, without the weight decay, does not increase.
            Defaults to `False`.
        corrected_weight_decay: Whether the weight decay of kernels is multiplied by the learning rate over its peak, so that
            normalized layers keep their balance of norm and gradient. `True` takes the peak of a schedule of this package
            with an end; else it is the peak itself, a number. It leaves out output layers. Defaults to `False`.
        update_clipping: Whether a step is divided by max(1, RMS), where RMS^2 is the mean of g^2 / v over a variable, with v
            the mean of squared gradients, corrected, and epsilon^2 at least. `True` divides the weight decay, too;
            `"direction"` does not. Scalars have |g| / sqrt(v) in the place of RMS. Defaults to `False`.
        norm_control: How steps u treat the norm of kernels, of dense, recurrent and convolution layers, also depthwise ones,
            each kernel as a whole, each expert of a mixture by itself. With n(x) = x / |x| and R, the norm before the first
            update, `"hyperball"`: w = R n(w - lr R n(u)), with a relative learning rate. `"project"`: w = R n(w - u).
            `"relative"`: w = w - lr |w| n(u). `"brake"`: w - u, scaled so that its norm grows by half as much; it may fall.
            Such kernels have no weight decay. Defaults to `None`, for none of these.
        norm_control_every: Updates from one projection of `"project"` to the next. Defaults to `1`.
        exclude_from_norm_control: Regular expressions for kernels that it leaves as they are. Defaults to `None`, for none.
        gradient_centralization: Whether to subtract from the gradient of a kernel, after clipping, its mean over the inputs
            of each output. Embeddings and vectors are left as they are. Defaults to `False`.
        adaptive_clipping: The largest norm of the gradient of a unit, relative to that of its weights, of which 0.001 counts
            at least; 0.01 is usual. A unit has the inputs of an output; in an embedding it is a row, and any other variable
            is one unit. The counter `clipped_units` is part of the state. Defaults to `None`, for no clipping.
        exclude_from_adaptive_clipping: Regular expressions, for instance for the output layer. Defaults to `None`, for none.
        z_clipping: The number of standard deviations above the mean of earlier norms beyond which the global norm of the
            gradients is clipped: to mean + z_clipping^2 / z deviations, if it lies z above. 2.5 is usual. The statistics are
            those of the first 25 norms, then moving averages with a decay rate of 0.97 of the clipped norms. The counter
            `clipped_updates` is part of the state. Defaults to `None`, for no clipping.

    Raises:
        ValueError: If an argument is out of its range; if rules contradict each other, or the method: its docstring or the
            error has the reason. When the optimizer is built, if a regular expression is found in no path, `roles` is of
            another model, or `norm_control` is for a kernel of zeros. In the first update, if gradients are accumulated on
            several replicas of `tf.distribute`.

    Reference:
        `cautious`: Liang et al., Cautious Optimizers, arXiv:2411.16085; trajectories agree with the authors' code for AdamW,
        Lion and Muon. `cautious_weight_decay`: arXiv:2510.12402. `corrected_weight_decay`: Defazio, Why Gradients Rapidly
        Increase Near the End of Training, arXiv:2506.02285; the trajectory agrees with pytorch_optimizer. `update_clipping`:
        Wortsman et al., arXiv:2304.13013; `True` agrees with pytorch_optimizer, `"direction"` is the authors' code, read.
        `"hyperball"`: Wen et al., 2025, `"relative"` and `"brake"`: NVIDIA Emerging-Optimizers, whose trajectories agree;
        `"project"`: Lyle et al., Normalization and effective learning rates, arXiv:2407.01800, from secondary text.
        `gradient_centralization`: Yong et al., arXiv:2004.01461. `adaptive_clipping`: Brock et al., arXiv:2102.06171, and
        `z_clipping`: Kumar et al., ZClip, arXiv:2504.02507; the code of these three was read.

    Example:

    Sign descent with momentum, w = w - lr (sign(m) + weight_decay w) with m = momentum m + g, complete with schedules,
    master weights, saving and loading:

    >>> class SignMomentum(Optimizer):
    ...     state_names = ("m",)
    ...
    ...     def __init__(self, learning_rate=1e-3, momentum=0.9, **options):
    ...         super().__init__(learning_rate, **options)
    ...         self.momentum = momentum
    ...
    ...     def step(self, w, g, state, ctx):
    ...         state.m = self.momentum * state.m + g
    ...         return w - ctx.learning_rate * (ops.sign(state.m) + ctx.weight_decay * w)
    >>> w = keras.Variable([1.0, -2.0])
    >>> optimizer = SignMomentum(0.5, weight_decay=0.1)
    >>> optimizer.apply([ops.array([3.0, -0.1])], [w])
    >>> w.numpy()
    array([ 0.45, -1.4 ], dtype=float32)
    >>> SignMomentum.from_config(optimizer.get_config()).momentum
    0.9
    """

    state_names: tuple[str, ...] = ()
    """Names of the state that each variable has in its own shape, at first zero."""

    state_settings: tuple[str, ...] = ("momentum",)
    """Names of numbers that must not be 0 when the optimizer is built, if they are to change: 0 may mean less state."""

    elementwise = False
    """Whether each entry is updated from its own gradient and state alone, so that one row of a variable can be."""

    takes_multipliers = True
    """Whether a learning rate of 0 leaves weights as they are, so that multipliers of it make sense."""

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: WeightDecay = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        exclude_from_weight_decay: Patterns = None,
        learning_rate_multipliers: Multipliers = None,
        master_weights: bool | None = None,
        stochastic_rounding: bool = False,
        lazy_embeddings: bool = False,
        seed: int | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        roles: Roles | None = None,
        cautious: bool = False,
        cautious_weight_decay: bool = False,
        corrected_weight_decay: bool | float = False,
        update_clipping: Literal[False, True, "direction"] = False,
        norm_control: Literal["hyperball", "project", "relative", "brake"] | None = None,
        norm_control_every: int = 1,
        exclude_from_norm_control: Patterns = None,
        gradient_centralization: bool = False,
        adaptive_clipping: float | None = None,
        exclude_from_adaptive_clipping: Patterns = None,
        z_clipping: float | None = None,
    ) -> None:
        refuse_schedules(
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
        )
        self._not_decayed = path_rules.patterns("exclude_from_weight_decay", exclude_from_weight_decay)
        self._given: dict[str, list[int]] = {}  # by path, the ids of variables that were given to a method
        self.learning_rate_multipliers = path_rules.multipliers("learning_rate_multipliers", learning_rate_multipliers)
        if self.learning_rate_multipliers and not self.takes_multipliers:
            raise ValueError(
                f"{type(self).__name__} has no `learning_rate_multipliers`: its learning rate is no length of a step. "
                f"Received: learning_rate_multipliers={learning_rate_multipliers!r}"
            )
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
        self._roles = path_rules.table(roles)
        if isinstance(keras_private.learning_rate_setting(self), keras.Variable):
            self._widen_learning_rate(learning_rate)
        self._set_rules(
            cautious,
            cautious_weight_decay,
            corrected_weight_decay,
            update_clipping,
            norm_control,
            norm_control_every,
            exclude_from_norm_control,
            gradient_centralization,
            adaptive_clipping,
            exclude_from_adaptive_clipping,
            z_clipping,
        )
        if lazy_embeddings:
            self._refuse_lazy_embeddings()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        show_inherited_arguments(cls)

    # What a method defines

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        """Turn rules by path and role into a list with an item for each variable, before anything is built.

        Args:
            variables: What is trained.
            find_roles: A function that returns a list of their roles, each a `keras_lrsched.optimizers.Role`.
        """
        self._refuse_shared_paths(variables)
        rules = path_rules.first_match("learning_rate_multipliers", self.learning_rate_multipliers, variables, find_roles)
        self._multipliers = [self.learning_rate_multipliers.get(rule, 1.0) for rule in rules]
        self._decayed = path_rules.included("exclude_from_weight_decay", self._not_decayed, variables, find_roles)
        self._decay_multipliers = [1.0] * len(variables)  # for a wrapper to set
        self._resolve_rules(variables, find_roles)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        """The state of one variable: a dictionary of what `add_state` returns. Override it for other shapes than its own."""
        return {name: self.add_state(variable, name) for name in self.state_names}

    def make_scalars(self) -> dict[str, Any]:
        """The state that all variables share: a dictionary of what `add_scalar` returns."""
        return {}

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Compute what depends on all variables before one is updated; `contexts` are their `UpdateContext`s.

        It may set their state and scalars. What it returns is their `shared`.
        """

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        """The formula: the new value of a variable.

        Args:
            w: Its value.
            g: Its gradient.
            state: Its state, to be read and set as attributes.
            ctx: Its `UpdateContext`, with `learning_rate`, `weight_decay`, `t`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `step(w, g, state, ctx)`.")

    # State

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:  # Keras loads .h5 files with none: rules by path wait for those of the model
            return
        path_rules.refuse_complex(variables)
        self.resolve_paths(variables, self._find_roles(variables))
        if self.master_weights is None and not self.stochastic_rounding:
            warn_of_lost_updates(variables)
        super().build(variables)
        self._states = [self._make_all_state(variable) for variable in variables]
        self._scalars = self.make_scalars()
        self._add_rule_state()
        if self.nonfinite != "propagate":
            self.skipped_updates = self.add_scalar("skipped_updates", 0, dtype="int")
        if self.stochastic_rounding:
            self._rounding = keras.random.SeedGenerator(self.seed)
            keras_private.track_optimizer_variable(self, self._rounding.state)

    def roles(self, model: keras.Model | None = None) -> Roles:
        """Return the table of the roles that rules and methods for matrices go by, to be printed and corrected.

            print(optimizer.roles(model))
            optimizer.roles().correct("logits/kernel", head=False)

        Args:
            model: A model whose table the optimizer takes, as if it had been its argument `roles`; it must not be built yet.
                Defaults to `None`: the table that it has, or when it is built, a copy of what it found.

        Raises:
            ValueError: If there is neither a table nor a model, and the optimizer is not built; if it is built, and there is
                a model.
        """
        if model is not None:
            if self.built:
                raise ValueError("Roles count when the optimizer is built, and this one is. Received: model=" + model.name)
            self._roles = roles_of_model(model)
        if self._roles is None and not self.built:
            raise ValueError("No roles are known before the optimizer is built: use `roles(model)`. Received: model=None")
        return Roles(self._found_roles(), keras_private.trained_by(self)) if self._roles is None else self._roles

    def _find_roles(self, variables: Sequence[Variable]) -> FindRoles:
        self._found_roles = find = deferred(variables, self._roles)
        if self._roles is not None:
            find()  # a table of another model is an error also where no rule needs it
        return find

    def _make_all_state(self, variable: Variable) -> dict[str, Any]:
        if keras_private.is_overwritten_with_gradient(self, variable) or 0 in variable.shape:
            return {}
        state = self.make_state(variable)
        if self.master_weights and wide_dtype(variable.dtype) != variable.dtype:
            state["master"] = self.add_state(variable, "master")
        return state | self._add_radius(variable)

    # The update

    def _update_variables(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        finite = None if self.nonfinite == "propagate" else skip_unless_finite(self, grads, trainable_variables)
        grads = self._rule_gradients(grads, trainable_variables, finite)
        scalars = OptimizerState(self._scalars)
        common = learning_rate, self._current_weight_decay(), ops.convert_to_tensor(self.iterations)
        contexts = [self._make_context(v, g, scalars, *common) for v, g in zip(trainable_variables, grads, strict=True)]
        shared = self.before_update(contexts)
        for ctx in contexts:
            ctx.shared = shared
            self._store(ctx, self._ruled_step(ctx), finite)
        self._assign_all(scalars.take(), finite)

    def _make_context(
        self,
        variable: Variable,
        gradient: Tensor,
        scalars: OptimizerState,
        learning_rate: Any,
        weight_decay: Any,
        iterations: Tensor,
    ) -> UpdateContext:
        is_part = hasattr(variable, "whole")
        index = keras_private.variable_index(self, variable.whole if is_part else variable)
        weight_decay = self._ruled_decay(self.decay_rate_of(variable, weight_decay), index, learning_rate)
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

    def decay_rate_of(self, variable: Variable, weight_decay: Any) -> Any:
        """Return the weight decay of a variable, before multipliers and exclusions.

        Args:
            variable: One of the trained variables, or a part of one.
            weight_decay: The current value of `weight_decay`.
        """
        return weight_decay

    def resting(self, contexts: Sequence[UpdateContext]) -> Tensor:
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

    def _store(self, ctx: UpdateContext, value: Tensor, finite: Any) -> None:
        if "master" in ctx.state:
            ctx.state.master = value
        if self.stochastic_rounding and ctx.variable.dtype == "bfloat16":
            value = stochastic_round(value, self._rounding)
        if ctx.takes_part is not None:
            if ctx.variable.constraint is not None:  # which Keras applies to what has a gradient in the last micro-step
                value = ctx.variable.constraint(value)
            finite = ctx.takes_part if finite is None else ops.logical_and(finite, ctx.takes_part)
        self._assign_all([*ctx.state.take(), (ctx.variable, value)], finite)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        super().finalize_variable_values(var_list)
        if self.nonfinite == "raise" and self.built and keras_private.has_value(self.skipped_updates):
            skipped = int(ops.convert_to_numpy(self.skipped_updates))
            if skipped:
                raise FloatingPointError(f"{skipped} updates had gradients that are not finite.")

    # Saving and loading

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["weight_decay"] = to_config(self.weight_decay)  # Keras serializes no schedule there
        for name in self._argument_names():
            if name not in config and name != "exclude_from_weight_decay":  # a method of Keras
                config[name] = to_config(self._roles if name == "roles" else getattr(self, name))
        return {**config, "exclude_from_weight_decay": list(self._not_decayed)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**{name: from_config(value, custom_objects) for name, value in config.items()})

    @classmethod
    def _argument_names(cls) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
