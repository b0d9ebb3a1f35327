"""What callbacks share that compute from the gradients of each update, which Keras hands to no callback."""

from typing import Any

import keras
from keras import ops

from keras_lrsched.callbacks import gradient_hook
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.host_values import inner_optimizer, optimizer_value
from keras_lrsched.optimizers import LocalUpdates, native


class GradientController(Controller):
    """Base of callbacks whose `before_apply` and `after_apply` are part of the compiled training step.

    While `fit` runs, they surround the optimizer's `apply`: at every batch, inside of a `LossScaleOptimizer`, which leaves
    out the batches whose gradients are not finite. What they keep from one batch to the next, or tell the other hooks, lies
    in variables that `begin` makes by `add_variable`. For the compiled step these belong to the optimizer; no file and no
    `Snapshot` holds them, the state of the callback does.

    Both may read and assign any variable, also `self.rate`, the learning rate that the update uses. All they do must be
    `keras.ops`: they are called once, when the step is traced, and then never again.

    A subclass that overrides `begin`, `set_model`, `on_train_end`, `state` or `restore_state` calls `super()`.

    Args:
        monitor: As in `Controller`. Defaults to `()`.

    Attributes:
        rate: The variable of the learning rate, within `before_apply` and `after_apply`.
    """

    _trainer: Any = None

    def __init__(self, monitor=()):
        super().__init__(monitor)
        self._variables: dict[str, keras.Variable] = {}

    def before_apply(self, gradients, variables):
        """In the compiled step, before the optimizer gets the gradients of a batch.

        Args:
            gradients: Float32 tensors or wider: not clipped yet, without the factor of a loss scale. Under gradient
                accumulation, those of this batch; `of_update` tells what the update will use.
            variables: The `keras.Variable`s they belong to, in the same order; those without a gradient are left out.
        """

    def after_apply(self, gradients, variables):
        """In the compiled step, after the optimizer has changed the variables, or has accumulated the gradients."""

    def begin(self):
        self._remove()
        is_local = any(isinstance(each, LocalUpdates) for each in gradient_hook.wrappers(self.model.optimizer))
        if is_local and native.replicas_of(self.model) > 1:
            raise ValueError(
                f"{type(self).__name__} needs one gradient for all replicas. Received: a LocalUpdates optimizer"
            )
        self._trainer = self.model  # on JAX, each look at `self.model` takes all state out of the compiled step
        gradient_hook.add(self._trainer, self)

    def add_variable(self, name, shape=(), dtype="float32", initializer="zeros"):
        """A variable of the compiled step, to be called in `begin`, after `super().begin()`."""
        name_there = f"{type(self).__name__}_{name}"
        with native.scope_of(self.optimizer):
            variable = self.optimizer.add_variable(
                shape, initializer, dtype, aggregation="only_first_replica", name=name_there
            )
        variable.of_callback = True
        self._variables[name] = variable
        return variable

    def build_optimizer(self):
        """Lets the model and the optimizer have their variables, for a `begin` that needs to know these."""
        model = self.model
        if not model.built:
            raise ValueError(
                f"{type(self).__name__} needs the weights: call the model on data first. Received: model={model.name!r}"
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    def read(self, variable):
        """The value of a variable of the compiled step, between two steps."""
        return optimizer_value(self._trainer, variable)

    def applied(self):
        """How many batches the optimizer has got, over all `fit`s."""
        return int(self.read(inner_optimizer(self._trainer.optimizer)._iterations))

    @property
    def accumulation_steps(self):
        """How many batches make up an update."""
        return inner_optimizer(self._trainer.optimizer).gradient_accumulation_steps or 1

    @property
    def rate(self):
        return inner_optimizer(self._trainer.optimizer)._learning_rate

    def of_update(self, gradients, variables):
        """The mean of the gradients accumulated so far and these: after the last batch of an update, what that uses."""
        optimizer = inner_optimizer(self._trainer.optimizer)
        steps = optimizer.gradient_accumulation_steps
        if not steps:
            return gradients
        places = map(optimizer._get_variable_index, variables)
        sums = [optimizer._accumulated_gradients[place] for place in places]
        return [(g + ops.cast(s, g.dtype)) / steps for g, s in zip(gradients, sums, strict=True)]

    def state(self):
        return {**super().state(), "variables": {name: self.read(each) for name, each in self._variables.items()}}

    def restore_state(self, state):
        values = state["variables"]
        super().restore_state({name: value for name, value in state.items() if name != "variables"})
        for name, value in values.items():
            self._variables[name].assign(value)

    def set_model(self, model):
        super().set_model(model)
        optimizer = inner_optimizer(getattr(model, "optimizer", None))
        for hook in list(gradient_hook.hooks_of(optimizer)):  # left by a `fit` that did not end
            hook._remove()

    def on_train_end(self, logs=None):
        self._remove()

    def _remove(self):
        if self._trainer is not None:
            gradient_hook.remove(self._trainer, self, self._variables.values())
            self._trainer, self._variables = None, {}


def global_square(tensors):
    """The sum of the squares of all entries."""
    return sum(ops.sum(ops.square(each)) for each in tensors)
