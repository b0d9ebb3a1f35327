"""A record of a program from outside: it runs without being compiled, and each batch is looked at.

The loss is what is differentiated, the gradients are what the optimizer is given, and a learning rate is what its
`update_step` is given. None of it uses this package.
"""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
from keras import tree


@dataclasses.dataclass
class Batch:
    """One training step."""

    size: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)
    """The batches that were differentiated, in order."""
    gradients: list[list[np.ndarray]] = dataclasses.field(default_factory=list)
    """The gradients that each `apply` of an optimizer got."""
    rates: list[float] = dataclasses.field(default_factory=list)
    """The learning rate of each update."""


class Truth(keras.callbacks.Callback):
    """Records a training that is not compiled.

    Attributes:
        fits: A list of lists of `Batch`, one for each `fit`.
        rates: The learning rates of all updates of each optimizer, by the order in which they were made.
    """

    def __init__(self):
        super().__init__()
        self.fits: list[list[Batch]] = []
        self.rates: list[list[float]] = []
        self._now = Batch()

    def recorded(self, optimizer, *args, **options):
        """An optimizer of the class `optimizer` that is recorded."""
        truth, rates = self, []
        self.rates.append(rates)

        class Recorded(optimizer):
            _last = None

            def apply(self, grads, trainable_variables=None):
                truth._now.gradients.append([array(each) for each in grads if each is not None])
                return super().apply(grads, trainable_variables)

            def update_step(self, gradient, variable, learning_rate):
                update = int(array(self._iterations))
                if update != self._last and updates(self):
                    self._last = update
                    rates.append(float(array(learning_rate)))
                    truth._now.rates.append(rates[-1])
                return super().update_step(gradient, variable, learning_rate)

        return Recorded(*args, **options)

    def set_model(self, model):
        super().set_model(model)
        if not hasattr(vars(model).get("train_step"), "truth"):
            self._watch_step(model)

    def on_train_begin(self, logs=None):
        self.fits.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self._now = Batch()

    def on_train_batch_end(self, batch, logs=None):
        self.fits[-1].append(self._now)
        self._now = Batch()

    @contextlib.contextmanager
    def watching(self):
        """While a program runs, losses are recorded."""
        if keras.backend.backend() != "tensorflow":
            yield
            return
        import tensorflow as tf

        truth, original = self, tf.GradientTape.gradient

        def gradient(tape, target, sources, *args, **options):
            if isinstance(tree.flatten(sources)[0], keras.Variable):
                truth._now.losses.append(float(target) / truth._scale())
            return original(tape, target, sources, *args, **options)

        tf.GradientTape.gradient = gradient
        try:
            yield
        finally:
            tf.GradientTape.gradient = original

    def _scale(self):
        optimizer = getattr(self.model, "optimizer", None)
        return 1.0 if optimizer is None else float(array(optimizer.scale_loss(keras.ops.ones(()))))

    def _watch_step(self, model):
        original = model.train_step

        @functools.wraps(original)
        def train_step(*args):
            self._now.size = len(tree.flatten(args[-1])[0])
            return original(*args)

        train_step.truth = self
        vars(model)["train_step"] = train_step
        if keras.backend.backend() == "jax":
            vars(model)["compute_loss_and_updates"] = self._watched_by_jax(model.compute_loss_and_updates)
        elif keras.backend.backend() == "torch":
            vars(model)["_compute_loss"] = self._watched(model._compute_loss)

    def _watched(self, compute_loss):
        def watched(*args, **options):
            loss = compute_loss(*args, **options)
            if options.get("training"):
                self._now.losses.append(float(array(loss)))
            return loss

        return watched

    def _watched_by_jax(self, compute_loss_and_updates):
        import jax

        def watched(*args, **options):
            loss, (unscaled, *others) = compute_loss_and_updates(*args, **options)
            jax.debug.callback(lambda value: self._now.losses.append(float(value)), unscaled)
            return loss, (unscaled, *others)

        return watched


def updates(optimizer):
    """Whether this batch completes an update: on JAX, Keras calls `update_step` at the others, too, and drops the result."""
    steps = optimizer.gradient_accumulation_steps
    return not steps or (int(array(optimizer._iterations)) + 1) % steps == 0


def array(tensor):
    if type(tensor).__name__ == "IndexedSlices":
        import tensorflow as tf

        tensor = tf.convert_to_tensor(tensor)
    return np.array(keras.ops.convert_to_numpy(tensor))
