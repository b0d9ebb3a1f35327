"""Loss scaling for float16 as fairseq does it: it gives up where the loss has to be scaled down without end."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register

LARGEST_SCALE = 2.0**126
"""Above it the reciprocal, with which XLA divides, is subnormal, and becomes zero."""


@register(
    title="loss scaling that stops a training that explodes",
    paper="arXiv:1806.00187",
    code=("facebookresearch/fairseq",),
    checked="read",
    against="`fairseq/optim/dynamic_loss_scaler.py`",
    deviations="Keras' arguments and defaults; the scale stays below 2^127",
    kind="loss scaling",
)
class LossScaleOptimizer(keras_private.LossScaleHooks):
    """Scales the loss so that gradients fit into float16, and stops a training that explodes.

        after dynamic_growth_steps finite batches in a row:  scale = 2 scale, unless that is above 2^126
        after one with a gradient that is not finite:        scale = scale / 2, and no update
        where that makes scale <= min_scale:                 scale stays, and FloatingPointError

    `compile` takes it as it is, where it would put an optimizer into the one of Keras. That has the same arguments and
    defaults, but no minimum, so that a model whose gradients are NaN trains on forever without a change. Neither has it a
    bound: where gradients are zero for long, its scale becomes infinite, and all later updates are left out. fairseq's
    values are `initial_scale=128.0, dynamic_growth_steps=16384`.

    The error comes at once in eager code; as `InvalidArgumentError` in a `tf.function`. What is compiled by XLA, as on JAX,
    cannot raise; there it comes at the end of `fit`, or from `raise_if_aborted`, which a callback may call:
    `keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: optimizer.raise_if_aborted())`.

    It is raised once. Training may go on after it, with the old weights, a lower learning rate or another `dynamic_scale`,
    and raises again only if the scale reaches its minimum again. A file that was saved after an abort can be trained on.

    Under gradient accumulation each batch is checked on its own: one that is not finite is left out of the sum.

    Args:
        inner_optimizer: The optimizer; also its name or config as for `keras.optimizers.get`.
        initial_scale: The first scale; 128.0 in fairseq's command. Defaults to `32768.0`.
        dynamic_growth_steps: Finite batches in a row after which the scale doubles; 16,384 in fairseq on one device, which
            divides that number by the number of devices. Defaults to `2000`.
        name: As in Keras.
        tolerance: Part of the batches since the scale last changed that may be not finite before it is lowered, from 0 to 1.
            Defaults to `0.0`.
        min_scale: The scale that is not to be reached. Defaults to `1e-4`.
        **options: What Keras takes from older configurations: `dynamic=True`, and `clipnorm` and the like with their
            defaults. Anything else raises, with what to do instead.

    Raises:
        ValueError: If an argument is out of its range, or belongs to the inner optimizer, or the inner optimizer is a
            `LossScaleOptimizer`.

    Reference:
        Ott et al., Scaling Neural Machine Translation, arXiv:1806.00187; facebookresearch/fairseq,
        `fairseq/optim/dynamic_loss_scaler.py`, which was read, not run.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=128.0)
    >>> for gradient in (float("inf"), 64.0):
    ...     optimizer.apply([keras.ops.array([gradient])], [w])
    ...     print(float(optimizer.dynamic_scale), w.numpy())
    64.0 [1.]
    64.0 [0.5]
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | Mapping[str, Any],
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        tolerance: float = 0.0,
        min_scale: float = 1e-4,
        **options: Any,
    ) -> None:
        inner = keras.optimizers.get(inner_optimizer)
        if isinstance(inner, keras.optimizers.LossScaleOptimizer):
            raise ValueError(f"The loss is scaled already. Received: inner_optimizer={inner_optimizer!r}")
        initial_scale = validation.positive_float("initial_scale", initial_scale)
        if initial_scale > LARGEST_SCALE:
            raise ValueError(f"`initial_scale` must be at most 2^126. Received: initial_scale={initial_scale}")
        growth_steps = validation.positive_int("dynamic_growth_steps", dynamic_growth_steps)
        super().__init__(inner, initial_scale, growth_steps, name=name, **options)
        self.tolerance = validation.fraction("tolerance", tolerance)
        self.min_scale = validation.positive_float("min_scale", min_scale)
        validation.below("min_scale", self.min_scale, "initial_scale", self.initial_scale)

    def build(self, var_list: Any) -> None:
        if self.built:
            return
        self.batches_since_change = self._add_counter("batches_since_change")
        self.overflows_since_change = self._add_counter("overflows_since_change")
        self.aborts = self._add_counter("aborts")
        super().build(var_list)

    def _add_counter(self, name: str | None) -> Any:
        return self.add_variable((), dtype="int", name=name)

    # After a batch

    def raise_if_aborted(self) -> None:
        """Raises the error that compiled code could not raise, once.

        Raises:
            FloatingPointError: If the scale would have reached its minimum since the last call.
        """
        if self.built and keras_private.has_value(self.aborts) and int(ops.convert_to_numpy(self.aborts)):
            self.aborts.assign(0)
            raise FloatingPointError(self._message())

    def finalize_variable_values(self, var_list: Any) -> None:
        super().finalize_variable_values(var_list)
        self.raise_if_aborted()

    def _message(self) -> str:
        return (
            f"The loss scale has come down to its minimum of {self.min_scale}: gradients were not finite again and again. "
            "The loss probably explodes. Lower the learning rate, clip gradients, or take larger batches."
        )

    def _apply_finite(self, grads: Any, trainable_variables: Any) -> None:
        variables = trainable_variables or keras_private.trained_by(self)
        scale = ops.copy(ops.convert_to_tensor(self.dynamic_scale))
        unscaled = [
            g if g is None or keras_private.is_overwritten_with_gradient(self, v) else ops.divide(g, scale)
            for g, v in zip(grads, variables, strict=True)
        ]
        self.inner_optimizer.apply(unscaled, trainable_variables)
        grows = ops.equal(self.step_counter, self.dynamic_growth_steps - 1)
        self.dynamic_scale.assign(ops.where(ops.logical_and(grows, scale <= LARGEST_SCALE / 2), 2 * scale, scale))
        self.aborts.assign(
            ops.where(scale / 2 > self.min_scale, 0, ops.convert_to_tensor(self.aborts))
        )  # it was raised, or can be lowered again
        self.step_counter.assign(ops.where(grows, 0, self.step_counter + 1))
        self.batches_since_change.assign(ops.where(grows, 0, self.batches_since_change + 1))

    def _skip_step(self) -> None:
        batches, overflows = self.batches_since_change + 1, self.overflows_since_change + 1
        lowers = ops.cast(overflows, "float32") >= self.tolerance * ops.cast(batches, "float32")
        old = ops.minimum(
            ops.convert_to_tensor(self.dynamic_scale), LARGEST_SCALE
        )  # a user, or an older file, may have made it infinite
        new = ops.where(lowers, old / 2, old)
        too_low = ops.logical_not(new > self.min_scale)  # or it is NaN
        self.dynamic_scale.assign(ops.where(too_low, old, new))
        self.step_counter.assign(0)
        self.batches_since_change.assign(ops.where(lowers, 0, batches))
        self.overflows_since_change.assign(ops.where(lowers, 0, overflows))
        self._abort_if(too_low)

    def _abort_if(self, too_low: Any) -> None:
        """Raises, or counts where compiled code cannot raise."""
        try:
            aborts = bool(ops.convert_to_numpy(too_low))
        except (TypeError, NotImplementedError):  # the update is being traced
            with backends.asserted_in_graph(ops.logical_not(too_low), self._message()):
                self.aborts.assign_add(ops.cast(too_low, self.aborts.dtype))
            return
        if aborts:
            raise FloatingPointError(self._message())

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self.aborts.assign(0)  # those of the run that wrote the file

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tolerance": self.tolerance, "min_scale": self.min_scale}
