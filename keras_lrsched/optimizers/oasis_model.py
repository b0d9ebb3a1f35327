"""Training step with what OASIS needs: an estimate of the Hessian, and the gradient at the weights before."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._hutchinson import hutchinson, of_all, optimizer_of
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._multi_pass_model import MultiPassModel, State
from keras_lrsched.optimizers.oasis import OASIS


@register(
    title="the training step that OASIS needs",
    paper="arXiv:2109.05198",
    checked="memory",
    against="own scripts of the formulas",
    kind="model",
)
class OASISModel(MultiPassModel):
    """A model for training with `OASIS`, at three times the cost of a step.

    It is a model around the given one, to be compiled and fitted in its place; the weights are the same, so that `model`
    can be evaluated, saved and used on its own afterwards. Each update takes two more passes on the same batch with the same
    dropout, which move no statistics: the gradient at the weights of the update before, and the product of the Hessian and
    random signs. The latter needs the second derivatives of all layers, which some do not have, such as recurrent layers of
    cuDNN; then the backend's own error appears.

    Args:
        model: A model with Keras' own training step and loss.
        name: As in Keras.

    Raises:
        ValueError: If the model has a preprocessor, or a `fit`, `train_step`, `compute_loss` or the like of its own. In
            training, if the optimizer is not `OASIS`, alone or inside wrappers, or accumulates gradients; if there is more
            than one replica of `tf.distribute`.

    Reference:
        Jahani et al., arXiv:2109.05198, from memory.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> trained = OASISModel(model)
    >>> trained.compile(OASIS(initial_step=0.01), "mse")
    >>> history = trained.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)
    """

    def before_update(self, values: Sequence[Tensor], state: State, batch: Any, gradients: Sequence[Tensor]) -> Any:
        optimizer = optimizer_of(self, OASIS)
        if optimizer.gradient_accumulation_steps:
            raise ValueError(
                "OASISModel compares whole gradients: leave `gradient_accumulation_steps` out. "
                f"Received: gradient_accumulation_steps={optimizer.gradient_accumulation_steps}"
            )
        generator = optimizer.sampling.state
        seed = ops.convert_to_tensor(generator.value)
        estimates, seed = hutchinson(self, values, [*state, (generator, seed)], batch, optimizer.sampling)
        before = self.evaluate_at(self._values_before(optimizer, values), state, batch)
        last = [None if g is None else wide(g) / before.scale for g in before.gradients]
        generator.assign(seed)
        optimizer.update_hessian(of_all(self, optimizer, estimates, gradients))
        optimizer.set_last_gradients(of_all(self, optimizer, last, gradients))

    def _values_before(self, optimizer: OASIS, values: Sequence[Tensor]) -> list[Tensor]:
        """The weights of the update before."""
        indices = [keras_private.variable_index(optimizer, variable) for variable in self.trainable_variables]
        moved = [wide(optimizer._states[index]["moved"]) for index in indices]
        return [ops.cast(wide(v) - m, v.dtype) for v, m in zip(values, moved, strict=True)]
