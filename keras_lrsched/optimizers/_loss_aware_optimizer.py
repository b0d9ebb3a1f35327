"""How an optimizer comes to know the loss of the batch whose gradient it gets."""

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private
from keras_lrsched.optimizers.optimizer import Optimizer


class LossAwareOptimizer(Optimizer):
    """An optimizer whose formula has the loss in it: `ctx.scalars.loss`, the mean over accumulated micro-batches.

    In `fit`, Keras shows the loss of each batch to the optimizer, with the regularization losses. In a loop of one's own,
    call `optimizer.set_loss(loss)` before each `apply`, within the same compiled function.

    Two things cannot work, and raise in the first update: `mixed_float16` in `fit`, for which Keras wraps the optimizer into
    a `LossScaleOptimizer` that does not pass the loss on; and more than one replica of `tf.distribute`.
    """

    _next_loss = None

    def make_scalars(self):
        return {"loss": self.add_scalar("loss")}

    def set_loss(self, loss):
        """Says the loss that the gradients of the next `apply` belong to: a number or a tensor without dimensions."""
        loss = ops.stop_gradient(ops.convert_to_tensor(loss))
        if len(loss.shape):
            raise ValueError(f"`loss` must be one number. Received: a tensor of shape {tuple(loss.shape)}")
        self._next_loss = ops.cast(loss, "float32")

    def scale_loss(self, loss):
        return super().scale_loss(_when_differentiated(loss, self.set_loss))

    def _apply_gradients(self, grads, trainable_variables):
        self._take_loss()
        super()._apply_gradients(grads, trainable_variables)

    def _take_loss(self):
        name, loss = type(self).__name__, self._next_loss
        if backends.replicas() > 1:
            raise ValueError(f"{name} works with one replica. Received: num_replicas_in_sync={backends.replicas()}")
        if loss is None:
            raise ValueError(
                f"{name} needs to know the loss: call `set_loss` before each `apply`, in the same function. In `fit` it "
                "comes by itself, but not through a LossScaleOptimizer: use `mixed_bfloat16` in place of `mixed_float16`."
            )
        self._next_loss = None
        if self.gradient_accumulation_steps:
            is_first = ops.equal(keras_private.iterations(self) % self.gradient_accumulation_steps, 0)
            before = ops.where(is_first, 0.0, ops.convert_to_tensor(self._scalars["loss"]))
            loss = before + loss / self.gradient_accumulation_steps
        self._scalars["loss"].assign(loss)


if keras.backend.backend() == "jax":
    import jax

    def _when_differentiated(x, tell):
        """`x`; `tell(x)` is called in the backward pass.

        Within `jax.grad`, where the loss is scaled, its value cannot be kept for later. In the backward pass it is outside.
        """

        @jax.custom_vjp
        def identity(x):
            return x

        def forward(x):
            return x, x

        def backward(x, gradient):
            tell(x)
            return (gradient,)

        identity.defvjp(forward, backward)
        return identity(x)

else:

    def _when_differentiated(x, tell):
        tell(x)
        return x
