"""Optimizers whose formula contains the loss of the batch."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core import backends, keras_private
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers.optimizer import Optimizer


class LossAwareOptimizer(Optimizer):
    """An optimizer whose formula has the loss in it: `ctx.scalars.loss`, the mean over accumulated micro-batches.

    In `fit`, Keras passes the loss of each batch to `scale_loss`, with the regularization losses. In a custom training loop,
    call `optimizer.set_loss(loss)` before each `apply`, within the same compiled function.

    Two things cannot work, and raise in the first update: `mixed_float16` in `fit`, for which Keras wraps the optimizer into
    a `LossScaleOptimizer` that does not pass the loss on; and more than one replica of `tf.distribute`.
    """

    _next_loss = None

    needs_loss = True
    """Whether the update depends on the loss; for some methods an option decides."""

    def make_scalars(self) -> dict[str, Any]:
        scalars = super().make_scalars()
        return {**scalars, "loss": self.add_scalar("loss")} if self.needs_loss else scalars

    def set_loss(self, loss: Tensor) -> None:
        """Set the loss that the gradients of the next `apply` belong to: a number or a tensor without dimensions."""
        loss = ops.stop_gradient(ops.convert_to_tensor(loss))
        if len(loss.shape):
            raise ValueError(f"`loss` must be one number. Received: a tensor of shape {tuple(loss.shape)}")
        self._next_loss = ops.cast(loss, "float32")

    def scale_loss(self, loss: Tensor) -> Tensor:
        if not self.needs_loss:
            return super().scale_loss(loss)
        return super().scale_loss(backends.call_when_differentiated(loss, self.set_loss))

    def _apply_gradients(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable]) -> None:
        if self.needs_loss:
            self._take_loss()
        super()._apply_gradients(grads, trainable_variables)

    def _take_loss(self) -> None:
        name, loss = type(self).__name__, self._next_loss
        if backends.replicas() > 1:
            raise ValueError(f"{name} works with one replica. Received: num_replicas_in_sync={backends.replicas()}")
        if loss is None:
            raise ValueError(
                f"{name} requires the loss: call `set_loss` before each `apply`, in the same function. In `fit` it "
                "comes by itself, but not through a LossScaleOptimizer: use `mixed_bfloat16` in place of `mixed_float16`."
            )
        self._next_loss = None
        if self.gradient_accumulation_steps:
            is_first = ops.equal(keras_private.iterations(self) % self.gradient_accumulation_steps, 0)
            before = ops.where(is_first, 0.0, ops.convert_to_tensor(self._scalars["loss"]))
            loss = before + loss / self.gradient_accumulation_steps
        self._scalars["loss"].assign(loss)
