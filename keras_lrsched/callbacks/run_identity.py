"""Which `fit`s of a recorder belong to one run."""

import weakref

from keras_lrsched.callbacks.host_values import inner_optimizer, optimizer_value


class RunIdentity:
    """A run: one optimizer, as long as its counter goes on from where the last `fit` ended.

    So a loop of `fit(epochs=1)` is one run. Another model, or one that is compiled anew, begins another.
    """

    def __init__(self):
        self._optimizer = None
        self._steps = 0

    def goes_on(self, model):
        """Whether a `fit` that begins goes on with the run of the one that ended last."""
        optimizer, steps = _place(model)
        return self._optimizer is not None and self._optimizer() is optimizer and steps == self._steps

    def end(self, model):
        """To be called when a `fit` ends."""
        optimizer, self._steps = _place(model)
        self._optimizer = weakref.ref(optimizer)


def _place(model):
    optimizer = inner_optimizer(model.optimizer)
    if optimizer is None:
        return model, 0
    return optimizer, int(optimizer_value(model, optimizer._iterations))
