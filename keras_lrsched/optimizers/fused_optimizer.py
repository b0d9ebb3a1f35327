"""Base of optimizers that a compiled kernel can update, all variables in one call."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Unpack

import keras
import numpy as np
from keras import ops

from keras_lrsched import kernels
from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers.optimizer import Optimizer


class FusedOptimizer(Optimizer):
    """Base of optimizers whose `step` also exists in C++, where it reads and writes everything once.

    A subclass sets `kernel`, the name of a compiled update, and returns its parameters; everything else is as in
    `Optimizer`.

    The kernel computes the same as `step`, to about 1e-6 of each entry. It takes all variables in float32 or bfloat16, on
    CPU, in one process. It is compiled on first use, see `keras_lrsched.kernels`.

    Args:
        learning_rate, weight_decay, **options: See `keras_lrsched.optimizers.Optimizer`.
        fused: `"auto"`: the kernel where there is one, else plain Keras operations. `True`: the kernel, or an error with
            the reason why there is none. `False`: plain Keras operations. Defaults to `"auto"`.

    Raises:
        RuntimeError: At the first update, if `fused` is `True` and there is no kernel for it.

    Example:

    Momentum, with the kernel of `SGD`:

    >>> class HeavyBall(FusedOptimizer):
    ...     state_names = ("m",)
    ...     kernel = "sgd"
    ...
    ...     def __init__(self, learning_rate=0.01, momentum=0.9, **options):
    ...         super().__init__(learning_rate, **options)
    ...         self.momentum = momentum
    ...
    ...     def step(self, w, g, state, ctx):
    ...         state.m = self.momentum * state.m + g
    ...         return w - ctx.learning_rate * (state.m + ctx.weight_decay * w)
    ...
    ...     def kernel_parameters(self, t):
    ...         return {"momentum": self.momentum, "nesterov": False}
    >>> w = keras.Variable([1.0, -2.0])
    >>> HeavyBall(0.5).apply([ops.array([1.0, 0.0])], [w])
    >>> w.numpy()
    array([ 0.5, -2. ], dtype=float32)
    """

    kernel = ""
    """The name of the method in `keras_lrsched.kernels.update`."""

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: WeightDecay = None,
        fused: Literal["auto", True, False] = "auto",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.fused = validation.one_of("fused", fused, ("auto", True, False))
        self._calls_kernel = False

    # What a method defines

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        """Return the parameters of the kernel by their names in ops/kernels/update_rules.h; `t` counts from 1."""
        raise NotImplementedError(f"{type(self).__name__} must implement `kernel_parameters(t)`.")

    def kernel_scale(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the factor of the gradients in the kernel."""
        return 1.0

    def kernel_blocks(self, place: int) -> Sequence[int]:
        """Return the numbers of blocks and of neighbors in each, of a variable with one second moment a block."""
        return ()

    def adapts(self, index: int, is_decayed: bool) -> bool:
        """Return whether a variable has a trust ratio."""
        return False

    # The update

    def _apply_gradients(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable]) -> None:
        self._calls_kernel = self._has_kernel(trainable_variables)
        super()._apply_gradients(grads, trainable_variables)

    def _update_variables(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        if not self._calls_kernel:
            super()._update_variables(grads, trainable_variables, learning_rate)
            return
        grads = self._rule_gradients(grads, trainable_variables, None)
        t = ops.cast(self.iterations, "float32") + 1
        parameters = {"gradient_scale": self.kernel_scale(grads), **self.kernel_parameters(t)}
        seed = ops.cast(self._rounding.next() if self.stochastic_rounding else np.zeros(2), "uint32")
        for code, pairs in self._by_code(trainable_variables, grads).items():
            variables, gradients = zip(*pairs, strict=True)
            places = [keras_private.variable_index(self, variable) for variable in variables]
            state = [[part for name in self.state_names for part in _parts(self._states[place][name])] for place in places]
            rates = self._kernel_rates(places, learning_rate)
            blocks = code or [number for place in places for number in self.kernel_blocks(place)]
            given = variables, state, gradients, rates, parameters, seed, self.stochastic_rounding, blocks
            kernels.update(self.kernel, *given)

    def _by_code(
        self, variables: Sequence[Variable], gradients: Sequence[Tensor]
    ) -> dict[Any, list[tuple[Tensor, Variable]]]:
        """Variables with their gradients, by the code and block size of their state: `()` if that is float32."""
        groups: dict = {}
        for pair in zip(variables, gradients, strict=True):
            state = self._states[keras_private.variable_index(self, pair[0])][self.state_names[0]]
            groups.setdefault(getattr(state, "code", ()), []).append(pair)
        return groups

    def _kernel_rates(self, places: Sequence[int], learning_rate: Any) -> Tensor:
        """A row for each variable: learning rate, weight decay, whether a trust ratio applies."""
        weight_decay = self._current_weight_decay()
        decayed = {place: self._decayed[place] and weight_decay is not None for place in places}
        multipliers = column(self._multipliers[place] for place in places)
        decays = column(self._decay_multipliers[place] if decayed[place] else 0.0 for place in places)
        if any(self._decay_corrected[place] for place in places):
            decays = decays * ops.stack([ops.cast(self._decay_correction(i, learning_rate), "float32") for i in places])
        columns = [
            ops.cast(learning_rate, "float32") * multipliers,
            ops.cast(0.0 if weight_decay is None else weight_decay, "float32") * decays,
            column(self.adapts(place, decayed[place]) for place in places),
        ]
        return ops.stack(columns, axis=-1)

    def _wide_gradient(self, gradient: Tensor, variable: Variable) -> tuple[Tensor, Variable]:
        """Keep bfloat16, which the kernel reads; clipping and sums require float32."""
        altered = self.gradient_accumulation_steps or self.clipnorm or self.clipvalue or self.global_clipnorm
        altered = altered or self.gradient_centralization or self.adaptive_clipping or self.z_clipping
        if self._calls_kernel and not altered and keras.backend.standardize_dtype(gradient.dtype) in kernels.DTYPES:
            return backends.dense(gradient, variable), variable
        return super()._wide_gradient(gradient, variable)

    def _has_kernel(self, variables: Sequence[Variable]) -> bool:
        if self.fused is False:
            return False
        reason = self._unsuited(variables) or kernels.reason_against(variables)
        if reason is not None and (self.fused is True or kernels.mode() == "1"):
            raise RuntimeError(f"{type(self).__name__} has no compiled update here: {reason} Received: fused={self.fused!r}")
        return reason is None

    def _unsuited(self, variables: Sequence[Variable]) -> str | None:
        """A reason why kernels do not fit, or `None`."""
        if changed := self._changed_methods():
            return f"they do not have what {type(self).__name__} changes: {', '.join(changed)}."
        if self._waiting(variables):
            return (
                "they update what has a gradient in the last micro-step of an accumulation, which some variables have not."
            )
        if self.nonfinite != "propagate":
            return f"they leave no update out. Received: nonfinite={self.nonfinite!r}."
        for name in ("lazy_embeddings", "master_weights", self._step_rule()):
            if name and getattr(self, name):
                return f"they do not support {name}. Received: {name}={getattr(self, name)!r}."
        return None

    def _changed_methods(self) -> list[str]:
        """Names that a subclass of the optimizer with the kernel defines besides a constructor."""
        classes = type(self).__mro__
        own = next(place for place, each in enumerate(classes) if "kernel" in vars(each))
        return [
            name for each in classes[:own] for name, value in vars(each).items() if callable(value) and name != "__init__"
        ]


def _parts(variable: Variable) -> Iterable[Variable]:
    """The variable itself, or codes and their scales."""
    return getattr(variable, "parts", {"": variable}).values()


def column(numbers: Iterable[float]) -> Tensor:
    """Through NumPy: of a list, Keras converts each item by itself."""
    return ops.convert_to_tensor(np.array([*numbers], "float32"))
