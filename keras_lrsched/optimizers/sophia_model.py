"""Training step with estimates of the diagonal of the Hessian, for Sophia."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched._core.backends import value_and_gradient
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._hutchinson import hutchinson, of_all, optimizer_of
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._multi_pass_model import MultiPassModel, Pass, State, loss_scale
from keras_lrsched.optimizers.sophia import Sophia

CROSS_ENTROPIES = ("sparse_categorical_crossentropy", "categorical_crossentropy")


@register(
    title="the training step that estimates curvature for Sophia",
    paper="arXiv:2305.14342",
    code=("Liuhong99/Sophia",),
    checked="read",
    against="the authors' code and the paper",
    kind="model",
)
class SophiaModel(MultiPassModel):
    """A model for training with `Sophia` that estimates the Hessian at updates 1, 1 + update_period, ...

    It is a model around the given one, to be compiled and fitted in its place; the weights are the same, so that `model`
    can be evaluated, saved and used on its own afterwards. An estimate takes one more pass, on the same batch with the same
    dropout; it moves no statistics. Under gradient accumulation, it is from the first micro-batch.

    `"gauss_newton_bartlett"` draws labels from the softmax of the model's only output, whose last axis is that of classes,
    for a loss that is a (sparse) categorical cross-entropy; how many labels there are is counted. Sample weights and masks
    do not count in the estimate. `"hutchinson"` is for any loss, but needs the second derivatives of all layers, which
    some do not have, such as recurrent layers of cuDNN; then the backend's own error appears.

    Args:
        model: A model with Keras' own training step and loss.
        name: As in Keras.

    Raises:
        ValueError: If the model has a preprocessor, or a `fit`, `train_step`, `compute_loss` or the like of its own. In
            training, if the optimizer is not `Sophia`, alone or inside wrappers; if the loss is another one, or one for each
            of several outputs; if there is more than one replica of `tf.distribute`.

    Reference:
        Liu et al., arXiv:2305.14342, Algorithms 1 to 3.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> trained = SophiaModel(model)
    >>> trained.compile(Sophia(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = trained.fit(np.ones((8, 2)), np.arange(8) % 3, verbose=0)
    """

    def gradients(self, values: Sequence[Tensor], state: State, batch: Any) -> Pass:
        if self._sophia().squares:
            self._check_loss()
        return super().gradients(values, state, batch)

    def before_update(self, values: Sequence[Tensor], state: State, batch: Any, gradients: Sequence[Tensor]) -> Any:
        optimizer = self._sophia()
        generator = optimizer.sampling.state
        seed = ops.convert_to_tensor(generator.value)
        period = optimizer.update_period * (optimizer.gradient_accumulation_steps or 1)
        is_due = ops.equal(ops.convert_to_tensor(keras_private.iterations(optimizer).value) % period, 0)
        estimate = self._sampled_gradient if optimizer.squares else self._curvature

        def estimated() -> tuple[list[Tensor], Tensor]:
            return estimate(values, [*state, (generator, seed)], batch)

        def zeros() -> tuple[list[Tensor], Tensor]:
            return [ops.zeros(value.shape, wide(value).dtype) for value in values], seed

        estimates, seed = ops.cond(is_due, estimated, zeros)
        generator.assign(seed)
        optimizer.update_hessian(of_all(self, optimizer, estimates, gradients), when=is_due)

    def _sampled_gradient(self, values: Sequence[Tensor], state: State, batch: Any) -> tuple[list[Tensor], Tensor]:
        """The gradient for labels from the model itself, scaled from their number to the one the optimizer multiplies by."""
        optimizer = self._sophia()

        def loss(at: Sequence[Tensor]) -> tuple[Tensor, ...]:
            with keras.StatelessScope([*zip(self.trainable_variables, at, strict=True), *state]) as scope:
                (predicted,) = keras.tree.flatten(self(batch[0], training=True))
                logits = ops.cast(predicted, "float32")
                if not getattr(self.loss, "from_logits", False):
                    logits = ops.log(ops.maximum(logits, keras.config.epsilon()))
                labels = _drawn(logits, optimizer.sampling)
                scale = ops.convert_to_tensor(loss_scale(self.optimizer))
                chosen = ops.sum(ops.log_softmax(logits) * labels, axis=-1)
                seed = scope.get_current_value(optimizer.sampling.state)
            return -ops.mean(chosen) * scale, scale, ops.size(chosen), seed

        (_, scale, number, seed), gradients = value_and_gradient(loss, values)
        factor = ops.sqrt(ops.cast(number, "float32") / optimizer.batch_size) / scale
        return [wide(g) * ops.cast(factor, wide(g).dtype) for g in gradients], seed

    def _curvature(self, values: Sequence[Tensor], state: State, batch: Any) -> tuple[list[Tensor], Tensor]:
        return hutchinson(self, values, state, batch, self._sophia().sampling)

    def _sophia(self) -> Sophia:
        return optimizer_of(self, Sophia)

    def _check_loss(self) -> None:
        known = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
        named = isinstance(self.loss, str) and self.loss in CROSS_ENTROPIES
        if not named and not isinstance(self.loss, known):
            raise ValueError(
                'Gauss-Newton-Bartlett needs a (sparse) categorical cross-entropy; `estimator="hutchinson"` does not. '
                f"Received: loss={self.loss!r}"
            )


def _drawn(logits: Tensor, seed: Any) -> Tensor:
    """A one-hot label for each distribution, by Gumbel's trick, which XLA can compile."""
    uniform = keras.random.uniform(ops.shape(logits), seed=seed, dtype="float32")
    noise = -ops.log(-ops.log(uniform))
    labels = ops.one_hot(ops.argmax(logits + noise, axis=-1), logits.shape[-1], dtype="float32")
    return ops.stop_gradient(labels)
