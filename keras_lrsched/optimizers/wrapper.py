"""Base of optimizers around another one."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private
from keras_lrsched._core.backends import after
from keras_lrsched._core.path_rules import path, refuse_complex
from keras_lrsched._core.roles import Roles
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import bytes_of, wide_dtype
from keras_lrsched.optimizers._update_context import OptimizerState, exact_value
from keras_lrsched.optimizers.optimizer import Optimizer

OptimizerLike: TypeAlias = keras.optimizers.Optimizer | str | Mapping[str, Any]
"""An optimizer, or its name or config as for `keras.optimizers.get`."""

Pairs: TypeAlias = Sequence[tuple[Variable, int]]
"""Variables, each with its place among those that the optimizer was built with."""


def _of_inner(name: str) -> Any:
    """An attribute of the inner optimizer; the constructor of Keras, which sets it before there is one, has no effect."""

    def read(self: Any) -> Any:
        return getattr(self.inner_optimizer, name)

    def write(self: Any, value: Any) -> None:
        if "inner_optimizer" in vars(self):
            setattr(self.inner_optimizer, name, value)

    return property(read, write)


class Wrapper(keras.optimizers.Optimizer):
    """Base of optimizers around another one, which has the learning rate, the counter of updates and all options.

    A subclass sets `state_names`, the names of its own float32 state for each variable, and defines `before_update` and
    `after_update`, which are called around each update of the inner optimizer.

    Args:
        optimizer: The inner one: an optimizer, or its name or config as for `keras.optimizers.get`.
        name: As in Keras.

    Raises:
        ValueError: If `optimizer` is a `LossScaleOptimizer`, which belongs around this one.

    Example:

    Half of each update, w = (w + update(w)) / 2, whatever the inner optimizer is:

    >>> class Halved(Wrapper):
    ...     def before_update(self, pairs):
    ...         return [self.value_of(variable, index) for variable, index in pairs]
    ...
    ...     def after_update(self, pairs, before):
    ...         for (variable, index), old in zip(pairs, before, strict=True):
    ...             self.set_value(variable, index, (old + self.value_of(variable, index)) / 2)
    >>> w = keras.Variable([1.0])
    >>> optimizer = Halved(keras.optimizers.SGD(0.5))
    >>> optimizer.apply([ops.array([1.0])], [w])
    >>> w.numpy()
    array([0.75], dtype=float32)
    >>> Halved.from_config(optimizer.get_config()).inner_optimizer.learning_rate.numpy().item()
    0.5
    """

    __dict__: dict

    state_names: tuple[str, ...] = ()

    moves_weights = False
    """Whether `after_update` changes weights, so that an inner `norm_control` would be undone."""

    inner_kind: type[keras.optimizers.Optimizer] | None = None
    """The class of the inner optimizer that the registered name stands for; `None` for `AdamW`."""

    def __init__(self, optimizer: OptimizerLike, name: str | None = None) -> None:
        super().__init__(learning_rate=0.0, name=name)
        inner = keras.optimizers.get(optimizer)
        if isinstance(inner, keras.optimizers.LossScaleOptimizer):
            raise ValueError(f"Put the LossScaleOptimizer around {type(self).__name__}. Received: optimizer={optimizer!r}")
        if self.moves_weights and getattr(inner, "norm_control", None):
            raise ValueError(
                f"{type(self).__name__} moves weights after the update, off the norms that `norm_control` sets. Received: "
                f"an inner norm_control={inner.norm_control!r}"
            )
        self.inner_optimizer = inner
        keras_private.set_iterations(self, keras_private.iterations(inner))
        keras_private.set_optimizer_variables(self, [])  # neither the learning rate nor the counter is this one's own

    @classmethod
    def around(cls, kind: type[keras.optimizers.Optimizer], **options: Any) -> Self:
        """Return one around an optimizer of the class `kind`, which has the options that this class does not take."""
        own = inspect.signature(cls).parameters
        inner = kind(**{name: value for name, value in options.items() if name not in own})
        return cls(inner, **{name: value for name, value in options.items() if name in own})

    # What is the inner one's

    weight_decay = _of_inner("weight_decay")
    clipnorm = _of_inner("clipnorm")
    clipvalue = _of_inner("clipvalue")
    global_clipnorm = _of_inner("global_clipnorm")
    use_ema = _of_inner("use_ema")
    ema_momentum = _of_inner("ema_momentum")
    ema_overwrite_frequency = _of_inner("ema_overwrite_frequency")
    loss_scale_factor = _of_inner("loss_scale_factor")
    gradient_accumulation_steps = _of_inner("gradient_accumulation_steps")
    learning_rate = _of_inner("learning_rate")

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @iterations.setter
    def iterations(self, variable: Variable) -> None:
        self.inner_optimizer.iterations = variable
        keras_private.set_iterations(self, variable)

    @property
    def variables(self) -> list[Variable]:
        return keras_private.own_optimizer_variables(self) + self.inner_optimizer.variables

    def roles(self, model: keras.Model | None = None) -> Roles:
        """The table of roles of the inner optimizer, see `Optimizer.roles`."""
        return self.inner_optimizer.roles(model)

    def scale_loss(self, loss: Tensor) -> Tensor:
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def state_bytes(self) -> int:
        """Number of bytes of the state of both: all but the counter of updates and the learning rate."""
        if not self.built:
            raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
        counter, rate = keras_private.iterations(self), keras_private.learning_rate_setting(self.inner_optimizer)
        return sum(bytes_of(v) for v in self.variables if v is not counter and v is not rate)

    state_bytes_per_parameter = Optimizer.state_bytes_per_parameter

    # The update

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:  # see `Optimizer.build`
            return
        refuse_complex(variables)
        self.inner_optimizer.build(variables)
        self.__dict__["_states"] = [self._make_state(variable) for variable in variables]
        keras_private.set_trained_by(self, variables)

    def stateless_apply(
        self, optimizer_variables: Sequence[Tensor], grads: Sequence[Tensor], trainable_variables: Sequence[Variable]
    ) -> Any:
        if not grads:  # see `Optimizer.stateless_apply`
            return trainable_variables, optimizer_variables
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable] | None = None) -> None:
        if not len(grads):
            return
        if not self.built:
            if trainable_variables is None:
                raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        known = keras_private.trained_by(self) if trainable_variables is None else list(trainable_variables)
        keras_private.check_variables_are_known(self, known)
        in_step = [v for v, gradient in zip(known, grads, strict=True) if gradient is not None]
        self._in_step = frozenset(keras_private.variable_index(self, v) for v in in_step)
        # Under accumulation the inner optimizer also moves what had a gradient in earlier micro-steps alone.
        in_update = keras_private.trained_by(self) if self.gradient_accumulation_steps else in_step
        with_formula = [v for v in in_update if not keras_private.is_overwritten_with_gradient(self, v)]
        pairs = [(v, keras_private.variable_index(self, v)) for v in with_formula]
        with after(grads):  # also around Keras' optimizers, whose counter would not wait
            before = self.before_update(pairs)
            self.inner_optimizer.apply(self.filter_gradients(grads, known), trainable_variables)
            self.after_update(pairs, before)

    def before_update(self, pairs: Pairs) -> Any:
        """Return what `after_update` needs from before the inner update; `pairs` are variables with their indices."""

    def filter_gradients(self, gradients: Sequence[Tensor | None], variables: Sequence[Variable]) -> Sequence[Tensor | None]:
        """Return the gradients for the inner optimizer, which then clips them."""
        return gradients

    def refuse_replicas(self) -> None:
        """Raise for several replicas of `tf.distribute`, whose gradients only the inner optimizer sums."""
        if backends.replicas() > 1:
            kind = type(self).__name__
            raise ValueError(f"{kind} works with one replica. Received: num_replicas_in_sync={backends.replicas()}")

    def after_update(self, pairs: Pairs, before: Any) -> None:
        """Change variables after each `apply` of the inner optimizer, which may have accumulated a gradient only."""

    def takes_part(self, index: int, old: Tensor, new: Tensor) -> Tensor:
        """Whether a variable takes part in an update that has turned the value `old` into `new`."""
        return ops.convert_to_tensor(True) if index in self._in_step else ops.any(ops.not_equal(old, new))

    def value_of(self, variable: Variable, index: int) -> Tensor:
        """The value of a variable for the inner optimizer: its float32 copy, if there is one."""
        return ops.copy(exact_value(variable, OptimizerState(self._inner_state(index))))

    def set_value(self, variable: Variable, index: int, value: Tensor) -> None:
        """Set a variable and, if the inner optimizer has one, its float32 copy."""
        if variable.constraint is not None:
            value = variable.constraint(value)
        master = self._inner_state(index).get("master")
        if master is not None:
            self.assign(master, value)
        self.assign(variable, ops.cast(value, variable.dtype))

    def assign(self, variable: Variable, value: Tensor) -> None:
        if backends.replicas() > 1:
            backends.assign_on_each_replica(variable, value)
        else:
            super().assign(variable, value)

    def _make_state(self, variable: Variable) -> dict[str, Variable]:
        if keras_private.is_overwritten_with_gradient(self, variable):
            return {}
        return {name: self._make_state_variable(variable, name) for name in self.state_names}

    def _make_state_variable(self, variable: Variable, name: str) -> Variable:
        return self.add_variable(
            shape=variable.shape,
            dtype=wide_dtype(variable.dtype),
            layout=keras_private.layout(variable),
            name=self._state_name(variable, name),
        )

    def _state_name(self, variable: Variable, name: str) -> str:
        return f"{path(variable).replace('/', '_').replace(':', '_')}_{name}"

    def _inner_state(self, index: int) -> dict[str, Any]:
        inner = self.inner_optimizer
        while isinstance(inner, Wrapper):
            inner = inner.inner_optimizer
        return inner._states[index] if isinstance(inner, Optimizer) else {}

    # Saving and loading

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "optimizer": keras.saving.serialize_keras_object(self.inner_optimizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(**{**config, "optimizer": inner})
