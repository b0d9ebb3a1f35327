"""A model around another one, whose training step may take the gradient more than once, and at other weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private
from keras_lrsched._core.backends import after, no_gradient, value_and_gradient
from keras_lrsched._core.types import Tensor, Variable

State: TypeAlias = list[tuple[Variable, Tensor]]
"""Variables with their values."""


class Pass(NamedTuple):
    """One forward and backward pass."""

    scaled_loss: Any
    """The loss as the optimizer scales it, of which the gradients are taken."""
    loss: Any
    y_pred: Any
    state: list
    """The state afterwards: seeds of dropout, BatchNorm's statistics, metrics of the loss."""
    scale: Any
    """The factor in the gradients that the optimizer takes off, or 1."""
    gradients: Any = None
    """A tensor for each weight; `None` where the loss does not depend on it, except on JAX."""


class MultiPassModel(keras.Model):
    """A model around another one that is trained by `compile` and `fit` as usual, with a training step of its own.

    A subclass defines `gradients`, from passes by `evaluate_at`. No pass changes anything: the state is a list of pairs of a
    variable and its value, so that a second pass with the first one's state has the same dropout, and moves no statistics.

    Args:
        model: A model whose `fit`, training step and loss are Keras' own, or a KerasHub task without a preprocessor. Its
            variables become those of this model.

    Raises:
        ValueError: If the model has a preprocessor, or a method of its own that training would not call: `fit`,
            `train_step`, `test_step`, `compute_loss`, `compute_metrics`, ... When the step is traced, if there is more than
            one replica of `tf.distribute`.
    """

    def __init__(self, model: keras.Model, name: str | None = None) -> None:
        if not isinstance(model, keras.Model):
            raise ValueError(f"`model` must be a `keras.Model`. Received: model={model!r}")
        _refuse_own_methods(model)
        super().__init__(name=name, dtype=model.dtype_policy)
        self.model = model
        self.built = model.built

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        return self.model(inputs)  # Keras hands `training` on

    # What a method defines

    def gradients(self, values: Sequence[Tensor], state: State, batch: Any) -> Pass:
        """The `Pass` whose gradients update the weights, and whose state and predictions count.

        Args:
            values: The weights, as tensors.
            state: The state before the step.
            batch: Inputs, targets and sample weights.
        """
        return self.evaluate_at(values, state, batch)

    def before_update(self, values: Sequence[Tensor], state: State, batch: Any, gradients: Sequence[Tensor]) -> Any:
        """Assign variables of the optimizer, where a method does; `gradients` are those of the `Pass` that counts."""

    def after_update(self, before: Sequence[Tensor], after: Sequence[Tensor], state: State) -> Sequence[Tensor]:
        """The weights in the place of those that the optimizer has made; `state` is that after the step."""
        return after

    def evaluate_at(self, values: Sequence[Tensor], state: State, batch: Any) -> Pass:
        """A `Pass` at any weights, in training mode."""
        result, gradients = value_and_gradient(lambda at: self._forward(at, state, batch), values, missing="none")
        return Pass(*result)._replace(gradients=gradients)

    def outputs_and_loss(self, values: Sequence[Tensor], state: State, batch: Any) -> tuple[Any, Tensor, list[Tensor]]:
        """Predictions and loss as functions of the weights, and the state afterwards."""
        x, y, sample_weight = batch
        mapping = [*zip(self.trainable_variables, values, strict=True), *state]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
        return y_pred, loss, [scope.get_current_value(variable) for variable, _ in state]

    def _forward(self, values: Sequence[Tensor], state: State, batch: Any) -> tuple[Any, ...]:
        y_pred, loss, new = self.outputs_and_loss(values, state, batch)
        with keras.StatelessScope(state):
            return self.optimizer.scale_loss(loss), loss, y_pred, new, ops.convert_to_tensor(loss_scale(self.optimizer))

    # The training step, in the two forms that Keras has for it

    def _stateless_step(self, state: tuple[Any, ...], data: Any) -> tuple[Any, Any]:
        values, others, of_optimizer, of_metrics = state
        x, y, sample_weight = batch = keras.utils.unpack_x_y_sample_weight(data)
        pairs = [
            *zip(self.non_trainable_variables, others, strict=True),
            *zip(self.metrics_variables, of_metrics, strict=True),
            *zip(self.optimizer.variables, of_optimizer, strict=True),
        ]
        result = self.gradients(values, pairs, batch)
        with keras.StatelessScope(pairs) as scope:
            self.before_update(values, pairs, batch, result.gradients)
        of_optimizer = [scope.get_current_value(variable) for variable in self.optimizer.variables]
        before = values
        values, of_optimizer = self.optimizer.stateless_apply(of_optimizer, result.gradients, values)
        if self._moves_weights():
            after = [(variable, value) for (variable, _), value in zip(pairs, result.state, strict=True)]
            values = list(self.after_update(before, values, after))
        others, of_metrics = result.state[: len(others)], result.state[len(others) :][: len(of_metrics)]
        logs, of_metrics = keras_private.update_metrics(self, of_metrics, result.loss, x, y, result.y_pred, sample_weight)
        return logs, (values, others, of_optimizer, of_metrics)

    def _stateful_step(self, data: Any) -> dict[str, Any]:
        if backends.replicas() > 1:
            kind = type(self).__name__
            raise ValueError(f"{kind} works with one replica. Received: num_replicas_in_sync={backends.replicas()}")
        x, y, sample_weight = batch = keras.utils.unpack_x_y_sample_weight(data)
        keras_private.build_symbolically(self, batch)  # on TensorFlow, this may be the first that anyone sees of the data
        with after(batch):  # so do random seeds and the optimizer's state, of which not all depends on the batch
            result = self._update(batch)
        size = ops.shape(next(part for part in keras.tree.flatten(x) if part is not None))[0]
        keras_private.loss_tracker(self).update_state(result.loss, sample_weight=size)
        return self.compute_metrics(x, y, result.y_pred, sample_weight=sample_weight)

    def _update(self, batch: Any) -> Pass:
        weights = self.trainable_variables
        values = [ops.convert_to_tensor(variable.value) for variable in weights]
        others = (*self.non_trainable_variables, *self.metrics_variables)
        state = [(variable, ops.convert_to_tensor(variable.value)) for variable in others]
        result = self.gradients(values, state, batch)
        with no_gradient():
            self.before_update(values, state, batch, result.gradients)
            for (variable, _), value in zip(state, result.state, strict=True):
                variable.assign(value)
            before = [ops.copy(value) for value in values] if self._moves_weights() else []
            self.optimizer.apply(result.gradients, weights)
            if before:
                after = [(variable, value) for (variable, _), value in zip(state, result.state, strict=True)]
                made = [ops.convert_to_tensor(variable.value) for variable in weights]
                for variable, value in zip(weights, self.after_update(before, made, after), strict=True):
                    variable.assign(value)
        return result

    def _moves_weights(self) -> bool:
        return type(self).after_update is not MultiPassModel.after_update

    train_step = _stateless_step if keras.backend.backend() == "jax" else _stateful_step

    # Saving and loading

    def get_config(self) -> dict[str, Any]:
        return {"model": keras.saving.serialize_keras_object(self.model), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(**{**config, "model": model})


OWN_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function")
METHODS_WITH_PREPROCESSING = ("fit", "train_on_batch")


def _refuse_own_methods(model: keras.Model) -> None:
    """Methods of the inner model that nothing calls when the one around it is trained."""
    if getattr(model, "preprocessor", None) is not None:
        raise ValueError(
            "`model` has a preprocessor, which only its own `fit` applies: let it have preprocessor=None, and give the data "
            f"to the preprocessor first. Received: model={type(model).__name__}, preprocessor={model.preprocessor!r}"
        )
    preprocesses = hasattr(model, "preprocessor")  # a KerasHub task, whose `fit` adds nothing without one
    for method in OWN_METHODS if preprocesses else (*OWN_METHODS, *METHODS_WITH_PREPROCESSING):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise ValueError(f"`model` must not have its own `{method}`. Received: model={model!r}")


def loss_scale(optimizer: Any) -> Any:
    """The factor in gradients that the optimizer takes off."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.dynamic_scale.value
    return optimizer.loss_scale_factor or 1.0
