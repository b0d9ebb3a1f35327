"""Rules that combine with any formula: for gradients before it, for steps and weight decay after it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private, path_rules, validation
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import FindRoles, Patterns, Tensor, Variable
from keras_lrsched.optimizers._keras_adapter import KerasAdapter
from keras_lrsched.optimizers._numerics import average, bias_correction, global_norm
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext, exact_value
from keras_lrsched.schedules.schedule import Schedule

KERNELS = ("kernel", "convolution_kernel", "recurrent_kernel", "depthwise_kernel")
"""Kinds of variables with a norm that `norm_control` sets; factors of LoRA are left out, since one of them begins at 0."""

NORM_CONTROLS = ("hyperball", "project", "relative", "brake")
LEAST_NORM = 1e-3
"""The norm that a unit counts with in adaptive clipping if its own is smaller."""
Z_DECAY, Z_WARMUP = 0.97, 25
"""Decay rate of the statistics of gradient norms, and the number of norms that they begin with."""
OUTWARD = 0.5
"""The share of a growth of the norm that `norm_control="brake"` admits."""


class UpdateRules(KerasAdapter):
    """An optimizer whose gradients, steps and weight decay pass through rules, each an argument of `Optimizer`.

    Steps are what `step` takes off without weight decay, which is then taken off as `decay` returns it. So the formula of a
    method needs no part of the rules. A method that differs overrides what follows.
    """

    second_moment: str | None = None
    """Name of the state with the mean of squared gradients, of decay rate `beta_2`, for `update_clipping`."""

    refused_rules: Mapping[str, str] = {}
    """Names of rules that contradict the formula, each with the reason."""

    def couples_weight_decay(self) -> bool:
        """Return whether weight decay is a part of the gradient or of a length, other than an amount that is taken off."""
        return False

    def own_learning_rate(self, ctx: UpdateContext) -> Tensor:
        """Return the learning rate of a variable's steps."""
        return ctx.learning_rate

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        """Return what weight decay takes off `new`, which is w after a step without it."""
        return self.own_learning_rate(ctx) * ctx.weight_decay * w

    def agreement_scale(self, mask: Tensor) -> Tensor:
        """Return the factor of the entries that remain of a cautious step."""
        return 1 / ops.maximum(ops.mean(mask), 1e-3)

    def masks_within_step(self, index: int) -> bool:
        """Return whether `step` itself calls `agreeing`, for one of the variables."""
        return False

    def agreeing(self, u: Tensor, g: Tensor, direction: Tensor | None = None) -> Tensor:
        """Return u, with 0 where the direction, u itself by default, has not the sign of the gradient, and scaled up."""
        direction = u if direction is None else direction
        mask = ops.cast(ops.sign(direction) * ops.sign(g) > 0, u.dtype)
        return u * mask * self.agreement_scale(mask)

    # Arguments

    def _set_rules(
        self,
        cautious: bool,
        cautious_weight_decay: bool,
        corrected_weight_decay: bool | float,
        update_clipping: bool | str,
        norm_control: str | None,
        norm_control_every: int,
        exclude_from_norm_control: Patterns,
        gradient_centralization: bool,
        adaptive_clipping: float | None,
        exclude_from_adaptive_clipping: Patterns,
        z_clipping: float | None,
    ) -> None:
        self.cautious = bool(cautious)
        self.cautious_weight_decay = bool(cautious_weight_decay)
        self.corrected_weight_decay = corrected_weight_decay
        if not isinstance(corrected_weight_decay, bool):
            self.corrected_weight_decay = validation.positive_float("corrected_weight_decay", corrected_weight_decay)
        self.update_clipping = validation.one_of("update_clipping", update_clipping, (False, True, "direction"))
        self.norm_control = validation.one_of("norm_control", norm_control, (None, *NORM_CONTROLS))
        self.norm_control_every = validation.positive_int("norm_control_every", norm_control_every)
        self.exclude_from_norm_control = path_rules.patterns("exclude_from_norm_control", exclude_from_norm_control)
        self.gradient_centralization = bool(gradient_centralization)
        self.adaptive_clipping = _positive_or_none("adaptive_clipping", adaptive_clipping)
        self.exclude_from_adaptive_clipping = path_rules.patterns(
            "exclude_from_adaptive_clipping", exclude_from_adaptive_clipping
        )
        self.z_clipping = _positive_or_none("z_clipping", z_clipping)
        self._refuse_pairs()
        self._refuse_rules()

    def _refuse_pairs(self) -> None:
        clippings = ("clipnorm", "clipvalue", "global_clipnorm", "adaptive_clipping", "z_clipping")
        given = {name: getattr(self, name) for name in clippings if getattr(self, name) is not None}
        if len(given) > 1:
            raise ValueError(f"Only one of {_listed(clippings)} can be given. Received: {_shown(given)}")
        if self.update_clipping and self.norm_control in ("hyperball", "relative"):
            raise ValueError(
                "`update_clipping` shortens steps, whose lengths this `norm_control` sets: leave one out. Received: "
                f"update_clipping={self.update_clipping!r}, norm_control={self.norm_control!r}"
            )
        if self.norm_control_every != 1 and self.norm_control != "project":
            raise ValueError(
                "`norm_control_every` is for `norm_control='project'`. Received: "
                f"norm_control_every={self.norm_control_every}, norm_control={self.norm_control!r}"
            )
        for name in ("norm_control", "adaptive_clipping"):
            patterns = getattr(self, f"exclude_from_{name}")
            if patterns and getattr(self, name) is None:
                raise ValueError(f"`exclude_from_{name}` is for `{name}`. Received: exclude_from_{name}={patterns!r} alone")

    def _refuse_rules(self) -> None:
        for name, reason in self.refused_rules.items():
            if getattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} has no `{name}`: {reason}. Received: {name}={getattr(self, name)!r}"
                )
        if self.update_clipping and self.second_moment is None:
            raise ValueError(
                f"{type(self).__name__} has no `update_clipping`: it keeps no mean of the squared gradient of each entry. "
                f"Received: update_clipping={self.update_clipping!r}"
            )
        if self.corrected_weight_decay is True:
            self._peak(keras_private.learning_rate_setting(self))

    def _refuse_lazy_embeddings(self) -> None:
        names = ("cautious", "update_clipping", "norm_control", "gradient_centralization", "adaptive_clipping")
        for name in names:
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` needs all rows for an update of one. Received: {name}={getattr(self, name)!r}, "
                    "lazy_embeddings=True"
                )

    def _refuse_coupled_decay(self) -> None:
        """When the optimizer is built, since some methods have it as an option."""
        for name in ("cautious", "cautious_weight_decay", "update_clipping"):
            if (
                self.couples_weight_decay()
                and getattr(self, name)
                and (self.weight_decay or name == "cautious_weight_decay")
            ):
                raise ValueError(
                    f"{type(self).__name__} has no `{name}` with this weight decay, which is a part of its gradient or of "
                    f"the length of its steps: leave one out. Received: {name}={getattr(self, name)!r}, "
                    f"weight_decay={self.weight_decay!r}"
                )

    def _peak(self, rate: Any) -> float:
        """The largest learning rate, for `corrected_weight_decay`."""
        if self.corrected_weight_decay is not True:
            return self.corrected_weight_decay
        if not isinstance(rate, Schedule) or not rate.total_steps:
            raise ValueError(
                "`corrected_weight_decay` must be the peak of the learning rate, a number, unless the learning rate is a "
                f"schedule of this package with an end. Received: corrected_weight_decay=True, learning_rate={rate!r}"
            )
        return float(rate.values(rate.total_steps).max())

    # Which variables they are for

    def _resolve_rules(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        count = len(variables)
        self._decay_corrected: list[bool] = [False] * count
        self._norm_axes: list[tuple[int, ...] | None] = [None] * count
        self._unit_axes: list[tuple[int, ...] | None] = [None] * count
        self._centered_axes: list[tuple[int, ...]] = [()] * count
        self._refuse_coupled_decay()
        if self.corrected_weight_decay:
            self._largest_rate = self._peak(keras_private.learning_rate_setting(self))
            self._decay_corrected = [role.kind in KERNELS and not role.head for role in find_roles()]
        if self.norm_control:
            taken = path_rules.included("exclude_from_norm_control", self.exclude_from_norm_control, variables, find_roles)
            is_controlled = [role.kind in KERNELS and each for role, each in zip(find_roles(), taken, strict=True)]
            self._norm_axes = [
                _axes_without(role.shape, role.stack) if each else None
                for role, each in zip(find_roles(), is_controlled, strict=True)
            ]
            _refuse_zero_kernels(v for v, each in zip(variables, is_controlled, strict=True) if each)
        if self.adaptive_clipping is not None:
            taken = path_rules.included(
                "exclude_from_adaptive_clipping", self.exclude_from_adaptive_clipping, variables, find_roles
            )
            self._unit_axes = [_axes_of_unit(role) if each else None for role, each in zip(find_roles(), taken, strict=True)]
        if self.gradient_centralization:
            self._centered_axes = [() if role.kind == "embedding" else role.inputs for role in find_roles()]

    def _add_rule_state(self) -> None:
        """Counters and statistics that all variables share."""
        self._rule_scalars: dict[str, Any] = {}
        if self.adaptive_clipping is not None:
            self.clipped_units = self._rule_scalars["units"] = self.add_scalar("clipped_units", 0, dtype="int")
        if self.z_clipping is not None:
            self.clipped_updates = self._rule_scalars["updates"] = self.add_scalar("clipped_updates", 0, dtype="int")
            self._rule_scalars |= {name: self.add_scalar(f"norm_{name}") for name in ("mean", "variance")}

    def _add_radius(self, variable: Variable) -> dict[str, Variable]:
        axes = self._norm_axes[keras_private.variable_index(self, variable)]
        if axes is None or self.norm_control in ("relative", "brake"):
            return {}
        shape = [1 if axis in axes else size for axis, size in enumerate(variable.shape)]
        return {"radius": self.add_state(variable, "radius", shape=shape)}

    # Gradients

    def _rule_gradients(self, grads: Sequence[Tensor], variables: Sequence[Variable], finite: Tensor | None) -> list[Tensor]:
        scalars, places = OptimizerState(self._rule_scalars), []
        if self.gradient_centralization or self.adaptive_clipping is not None:
            places = [keras_private.variable_index(self, variable) for variable in variables]
        if self.adaptive_clipping is not None:
            grads = self._clip_units(grads, variables, places, scalars)
        if self.z_clipping is not None:
            grads = self._clip_outlier(grads, scalars)
        if self.gradient_centralization:
            grads = [_centered(g, self._centered_axes[place]) for g, place in zip(grads, places, strict=True)]
        self._assign_all(scalars.take(), finite)
        return [*grads]

    def _clip_units(
        self, grads: Sequence[Tensor], variables: Sequence[Variable], places: Sequence[int], scalars: OptimizerState
    ) -> list[Tensor]:
        """Clip the gradient of each unit to a multiple of the norm of its weights."""
        clipped: list[Tensor] = []
        for g, variable, place in zip(grads, variables, places, strict=True):
            axes = self._unit_axes[place]
            if axes is not None:
                w = exact_value(variable, OptimizerState(self._states[place]))
                length, limit = _norm(g, axes), self.adaptive_clipping * ops.maximum(_norm(w, axes), LEAST_NORM)
                g = ops.where(length > limit, g * (limit / ops.maximum(length, 1e-6)), g)
                scalars.units = scalars.units + ops.cast(ops.sum(ops.cast(length > limit, "int32")), scalars.units.dtype)
            clipped.append(g)
        return clipped

    def _clip_outlier(self, grads: Sequence[Tensor], scalars: OptimizerState) -> list[Tensor]:
        """Clip the norm of all gradients where it lies `z_clipping` standard deviations above its mean."""
        length, threshold = ops.cast(global_norm(grads), "float32"), self.z_clipping or 0.0
        mean, variance, t = scalars.mean, scalars.variance, ops.cast(self.iterations, "float32") + 1
        deviation = ops.sqrt(variance)
        z = (length - mean) / (deviation + 1e-6)
        is_outlier = ops.logical_and(t > Z_WARMUP, z > threshold)
        limit = mean + threshold**2 * deviation / ops.where(is_outlier, z, 1.0)
        seen = ops.where(is_outlier, limit, length)
        decay = ops.where(t > Z_WARMUP, Z_DECAY, 1 - 1 / t)  # at first, of the plain mean and variance
        scalars.mean = average(decay, mean, seen)
        spread = ops.where(t > Z_WARMUP, seen - scalars.mean, seen - mean) * (seen - scalars.mean)
        scalars.variance = average(decay, variance, spread)
        scalars.updates = scalars.updates + ops.cast(is_outlier, scalars.updates.dtype)
        factor = ops.where(ops.logical_and(is_outlier, length > limit), limit / (length + 1e-6), 1.0)
        return [g * ops.cast(factor, g.dtype) for g in grads]

    # Weight decay

    def _ruled_decay(self, weight_decay: Any, index: int, learning_rate: Any) -> Any:
        """The weight decay of a variable; `None` for none."""
        if weight_decay is None or self._norm_axes[index] is not None:
            return None
        return weight_decay * self._decay_correction(index, learning_rate)

    def _decay_correction(self, index: int, learning_rate: Any) -> Any:
        return ops.cast(learning_rate, "float32") / self._largest_rate if self._decay_corrected[index] else 1.0

    # Steps

    def _step_rule(self) -> str | None:
        """The name of a rule that changes steps; `None` if none does."""
        names = ("cautious", "cautious_weight_decay", "update_clipping", "norm_control")
        return next((name for name in names if getattr(self, name)), None)

    def _ruled_step(self, ctx: UpdateContext) -> Tensor:
        w, g, weight_decay = ctx.value, ctx.gradient, ctx.weight_decay
        if self._step_rule() is None:
            return self.step(w, g, ctx.state, ctx)
        is_apart = self.cautious or self.cautious_weight_decay or self.update_clipping == "direction"
        is_apart = is_apart and ctx.is_decayed and not self.couples_weight_decay()
        if is_apart:
            ctx.weight_decay = 0.0
        new = self.step(w, g, ctx.state, ctx)
        direction = u = w - new
        if self.cautious and not self.masks_within_step(ctx.index):
            u = self.agreeing(u, g)
        if self.update_clipping:
            u = u / self._excess(g, ctx)
        if is_apart:
            ctx.weight_decay = weight_decay
            off = self.decay(w, new, ctx)
            if self.cautious_weight_decay:
                off = ops.where(self._decays(direction, w), off, 0.0)
            if self.update_clipping is True:
                off = off / self._excess(g, ctx)
            u = u + off
        axes = self._norm_axes[ctx.index]
        return w - u if axes is None else self._with_norm(w, u, axes, ctx)

    @staticmethod
    def _decays(direction: Tensor, w: Tensor) -> Tensor:
        """Return where the direction does not lead away from 0."""
        return ops.sign(direction) * ops.sign(w) >= 0

    def _excess(self, g: Tensor, ctx: UpdateContext) -> Tensor:
        """The root mean square of g over the root of its second moment, at least 1."""
        v = getattr(ctx.state, self.second_moment or "v") / bias_correction(self.beta_2, ctx.t)
        least = ops.cast(max(getattr(self, "epsilon", 0.0) ** 2, 1e-38), v.dtype)
        return ops.maximum(1.0, ops.sqrt(ops.mean(ops.square(g) / ops.maximum(v, least))))

    def _with_norm(self, w: Tensor, u: Tensor, axes: Sequence[int], ctx: UpdateContext) -> Tensor:
        """The weights after the step u, as `norm_control` has it."""
        match self.norm_control:
            case "relative":
                return w - self.own_learning_rate(ctx) * _norm(w, axes) * _unit(u, axes)
            case "brake":
                old, new = _norm(w, axes), _norm(w - u, axes)
                length = ops.where(new > old, old + OUTWARD * (new - old), new)
                return length * _unit(w - u, axes)
        ctx.state.radius = ops.where(ctx.state.radius > 0, ctx.state.radius, _norm(w, axes))
        radius = ctx.state.radius
        if self.norm_control == "hyperball":
            u = self.own_learning_rate(ctx) * radius * _unit(u, axes)
        is_due = radius > 0
        if self.norm_control_every > 1:
            is_due = ops.logical_and(is_due, ops.equal((ctx.iterations + 1) % self.norm_control_every, 0))
        return ops.where(is_due, radius * _unit(w - u, axes), w - u)

    def _assign_all(self, changes: Iterable[tuple[Variable, Tensor]], condition: Tensor | None) -> None:
        for variable, value in changes:
            value = ops.cast(value, variable.dtype)
            if condition is not None:
                value = ops.where(condition, value, ops.convert_to_tensor(variable))
            self.assign(variable, value)


def _positive_or_none(name: str, value: Any) -> float | None:
    return None if value is None else validation.positive_float(name, value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _axes_without(shape: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(shape)) if axis not in others)


def _axes_of_unit(role: Role) -> tuple[int, ...]:
    """The axes that a norm is taken over: the inputs of each output, the entries of each row of a table, else all."""
    if role.kind == "embedding":
        return _axes_without(role.shape, role.inputs)
    return role.inputs or tuple(range(len(role.shape)))


def _refuse_zero_kernels(variables: Iterable[Variable]) -> None:
    zero = [path_rules.path(v) for v in variables if 0 not in v.shape and _is_zero(v)]
    if zero:
        raise ValueError(
            "`norm_control` needs kernels with a norm: initialize them otherwise, or list them in "
            f"`exclude_from_norm_control`. Received: kernels of zeros, {', '.join(zero)}"
        )


def _is_zero(variable: Variable) -> bool:
    """Whether a variable is known to be 0; `False` where its value cannot be seen."""
    if isinstance(variable, keras.Variable) and not keras_private.has_value(variable):
        return False
    try:
        with backends.outside_of_traces():
            return not ops.convert_to_numpy(ops.any(ops.not_equal(variable, 0)))
    except (TypeError, NotImplementedError):
        return False


def _norm(x: Tensor, axes: Sequence[int]) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(x), axis=tuple(axes), keepdims=True)) if axes else ops.abs(x)


def _unit(x: Tensor, axes: Sequence[int]) -> Tensor:
    length = _norm(x, axes)
    return x / ops.where(length > 0, length, 1.0)


def _centered(g: Tensor, axes: Sequence[int]) -> Tensor:
    return g - ops.mean(g, axis=tuple(axes), keepdims=True) if axes else g
