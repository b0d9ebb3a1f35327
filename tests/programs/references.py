"""References for some features of the package, written by hand with Keras alone, for steps that are not compiled."""

import math

import keras
import numpy as np

from tests.programs.truth import array, updates

PERIOD = 3
"""Updates from one step back of Lookahead to the next."""


def _key(variable):
    """The identity of a variable: on TensorFlow, `update_step` gets what is inside of a `keras.Variable`."""
    is_inside = isinstance(variable, keras.Variable) and keras.backend.backend() == "tensorflow"
    return id(variable.value if is_inside else variable)


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW with epsilon added after the bias correction, as in the paper and in this package.

    Gradients are dense: of a sparse one, Keras squares the parts of a row that occurs twice before it adds them.
    """

    _given = None

    def update_step(self, gradient, variable, learning_rate):
        self._given = self.epsilon if self._given is None else self._given
        self.epsilon = self._given * math.sqrt(1 - self.beta_2 ** (int(self.iterations) + 1))
        super().update_step(keras.ops.convert_to_tensor(array(gradient)), variable, learning_rate)


class Lookahead(keras.optimizers.SGD):
    """Gradient descent, every few updates back to the middle of the way."""

    def update_step(self, gradient, variable, learning_rate):
        if not updates(self):
            return
        slow = vars(self).setdefault("slow_weights", {}).setdefault(_key(variable), [array(variable)])
        super().update_step(gradient, variable, learning_rate)
        if (int(self.iterations) + 1) % PERIOD == 0:
            slow[0] = slow[0] + 0.5 * (array(variable) - slow[0])
            variable.assign(slow[0])


class ScheduleFree(keras.optimizers.SGD):
    """Schedule-Free gradient descent: z moves, x is the mean of z, and y, in the model, lies between them."""

    beta = 0.9

    def update_step(self, gradient, variable, learning_rate):
        if not updates(self):
            return
        weights = vars(self).setdefault("z_and_x", {})
        z, x = weights[_key(variable)] = weights.get(_key(variable), (array(variable),) * 2)
        z = z - float(array(learning_rate)) * array(gradient)
        rates = vars(self).setdefault("rates", {})
        rates[int(self.iterations)] = float(array(learning_rate))
        shares = np.maximum.accumulate(list(rates.values())) ** 2
        x = x + shares[-1] / shares.sum() * (z - x)
        weights[_key(variable)] = z, x
        variable.assign((1 - self.beta) * z + self.beta * x)

    def finalize_variable_values(self, var_list):
        self.give(var_list, 0.0)

    def give(self, variables, share):
        """The model gets x, and of z this share."""
        for variable in variables:
            if _key(variable) in vars(self).get("z_and_x", {}):
                z, x = self.z_and_x[_key(variable)]
                variable.assign(share * z + (1 - share) * x)


class BackToTraining(keras.callbacks.Callback):
    """Gives y to the model before it is trained further."""

    def on_train_begin(self, logs=None):
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        optimizer.give(self.model.trainable_variables, 1 - ScheduleFree.beta)


class Hypergradient(keras.optimizers.SGD):
    """The learning rate is multiplied by 1 + b cos(this gradient, the last one) before each update."""

    b = 0.1
    last = None

    def forget(self):
        self.last = None

    def apply(self, grads, trainable_variables=None):
        gradient = np.concatenate([array(keras.ops.convert_to_tensor(each)).ravel() for each in grads])
        if self.last is not None:
            cosine = gradient @ self.last / (np.linalg.norm(gradient) * np.linalg.norm(self.last))
            self.learning_rate = float(array(self.learning_rate)) * (1 + self.b * cosine)
        self.last = gradient
        super().apply(grads, trainable_variables)


class Pruning(keras.callbacks.Callback):
    """The smallest of each kernel become 0 when the sparsity changes, and stay it after each update."""

    def __init__(self, sparsity):
        super().__init__()
        self.sparsity, self.masks, self.before = sparsity, {}, None

    def optimizer(self, cls, *args, **options):
        pruning = self

        class Pruned(cls):
            def apply(self, grads, trainable_variables=None):
                super().apply(grads, trainable_variables)
                pruning.mask()

        return Pruned(*args, **options)

    def on_train_begin(self, logs=None):
        self.before = None
        self.masks = {}
        self.trained = self.model  # on JAX, each look at `self.model` puts all state into the variables, also within a step

    def on_train_batch_begin(self, batch, logs=None):
        share = float(self.sparsity(int(array(self.model.optimizer.iterations))))
        if share != self.before:
            for kernel in self.kernels():
                size = np.abs(array(kernel)).ravel()
                smallest = np.argsort(size, kind="stable")[: round(share * size.size)]
                self.masks[id(kernel)] = ~np.isin(np.arange(size.size), smallest).reshape(kernel.shape)
                kernel.assign(array(kernel) * self.masks[id(kernel)])
            self.before = share

    def kernels(self):
        return [variable for variable in self.trained.trainable_variables if variable.name.endswith("kernel")]

    def mask(self):
        for kernel in self.kernels():
            kernel.assign(array(kernel) * self.masks.get(id(kernel), 1))  # a model may be built by its first batch


class Rates(keras.callbacks.Callback):
    """Sets the learning rate of each batch: a function of the number of the batch."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.step = rate, 0

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        getattr(optimizer, "inner_optimizer", optimizer).learning_rate = self.rate(self.step)
        self.step += 1


class Volatility(keras.callbacks.Callback):
    """VolSched's rule for changes every `every` updates, of losses that `losses` returns."""

    def __init__(self, losses, total, every, weight):
        super().__init__()
        self.losses, self.total, self.every, self.weight, self.known = losses, total, every, weight, 0

    def on_train_batch_end(self, batch, logs=None):
        losses = np.array(self.losses(), "float64")
        before, self.known = self.known, len(losses)
        t = self.known
        if t == before or t % self.every:
            return
        factor = 1.0
        if t > self.every:
            changes = np.diff(np.log(np.maximum(losses, 1e-8)))
            ratio = np.std(changes[-10 * self.every :], ddof=1) / np.std(changes[-self.every :], ddof=1)
            factor = np.clip(1 + np.sign(ratio - 1) * np.log(1 + self.weight * abs(ratio - 1)), 0.5, 2.0)
        if t <= self.total:
            factor *= (1 + np.cos(np.pi * t / self.total)) / (1 + np.cos(np.pi * (t - self.every) / self.total))
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        optimizer.learning_rate = max(1e-4, float(array(optimizer.learning_rate)) * factor)


def batches(given):
    """Given batches, in their order, as `fit` hands over arrays: inputs without targets are no tuple."""
    if keras.backend.backend() == "torch":
        from torch.utils.data import DataLoader

        return DataLoader(given, batch_size=None)
    import tensorflow as tf

    first, *others = (tf.data.Dataset.from_tensors(_without_lists(each)) for each in given)
    for each in others:
        first = first.concatenate(each)
    return first


def _without_lists(structure):
    """Tuples in the place of lists, of which `tf.data` makes one tensor."""
    return tuple(map(_without_lists, structure)) if isinstance(structure, (list, tuple)) else structure
