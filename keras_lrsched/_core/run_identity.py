"""Which `fit`s of a recorder belong to one run."""

from keras_lrsched._core import keras_private
from keras_lrsched._core.host_values import inner_optimizer, optimizer_value
from keras_lrsched._core.run import Run


class RunIdentity:
    """A run as recorders count them: of one model with one optimizer, whose counter goes on from where a `fit` ended.

    So a loop of `fit(epochs=1)` is one run. Another model, or one that is compiled anew, begins another.
    """

    def __init__(self):
        self._run, self._steps = Run(), 0

    def goes_on(self, model):
        """Whether a `fit` that begins goes on with the run of the one that ended last."""
        return self._run == Run(model) and self._steps == _steps(model)

    def end(self, model):
        """To be called when a `fit` ends."""
        self._run, self._steps = Run(model), _steps(model)


def _steps(model):
    optimizer = inner_optimizer(model.optimizer)
    return 0 if optimizer is None else int(optimizer_value(model, keras_private.iterations(optimizer)))
