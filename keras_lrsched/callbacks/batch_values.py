"""The true loss and metrics of each batch, which Keras' logs do not have: those are means over the epoch so far."""

from typing import Any

import keras
import numpy as np

from keras_lrsched.callbacks.host_values import host_value


class BatchValues:
    """Reads the values of single batches out of the sums that Keras keeps for the epoch's means.

        value_t = (total_t - total_(t-1)) / (count_t - count_(t-1))

    The sums are float32, so the digits that are left shrink as an epoch grows: about 1e-5 of the loss after 100 updates,
    1e-3 after 10,000.

    A callback calls `start` in `on_train_begin`, `rebase` in `on_epoch_begin`, `before_batch` in `on_train_batch_begin`, and
    `read` in `on_train_batch_end`, at every batch.

    On JAX the sums are taken out of the state of the compiled step, and no other variable is moved.

    After `read`, `batch_size` is the weight of the batch in the first of the means, for `"loss"` its number of samples; 0 if
    unknown.

    A value that a `train_step` of one's own returns, and that no metric of the model stands behind, is handed on as it is.

    Args:
        *names: `"loss"`, or the names that Keras' logs give to metrics: `"accuracy"`, `"output_1_accuracy"`.

    Raises:
        ValueError: At the first `read`, if there is no such metric, or one that is no mean over samples (`AUC`).
    """

    def __init__(self, *names):
        self.names = names
        self.start(None)

    def start(self, model):
        """Looks at a model that may have been compiled anew."""
        self._model: Any = model
        self._metrics: Any = None
        self._sums: Any = None

    def rebase(self):
        """To be called after the metrics were reset or restored: at the begin of an epoch, after an `evaluate`."""
        self._sums = None

    def before_batch(self):
        if self._sums is None:
            self._sums = self._read_sums() if are_built(self._model) else {}

    def read(self, logs=None):
        """The values of the batch that was just trained, by name."""
        sums = self._read_sums()
        values = {name: self._value(name, sums, logs or {}) for name in self.names}
        first = self.names[0]
        self.batch_size = round(sums.get(first, (0, 0))[1] - self._sums.get(first, (0, 0))[1])
        self._sums = sums
        return values

    def _value(self, name, sums, logs):
        total, count = sums.get(name, (0.0, 0.0))
        total_before, count_before = self._sums.get(name, (0.0, 0.0))
        if count == count_before:
            if self._metrics[name] is None and name not in logs:
                raise self._missing(name, logs)
            return float(host_value(logs.get(name, np.nan)))
        return (total - total_before) / (count - count_before)

    def _read_sums(self):
        if self._metrics is None:
            _synchronize(self._model)
            means = _means(self._model)
            self._metrics = {name: means.get(name) for name in self.names}
            self._check(means)
            variables = [id(variable) for variable in self._model.metrics_variables]
            self._places = {
                name: (variables.index(id(metric.total)), variables.index(id(metric.count)))
                for name, metric in self._metrics.items()
                if metric is not None
            }
        if getattr(self._model, "_jax_state_synced", True):
            return {name: _numbers(m.total, m.count) for name, m in self._metrics.items() if m is not None}
        state = self._model._jax_state["metrics_variables"]  # the variables themselves are empty within a compiled step
        return {name: _numbers(state[total], state[count]) for name, (total, count) in self._places.items()}

    def _check(self, means):
        others = [name for name in _named_metrics(self._model) if name not in means]
        for name in self.names:
            if name in others:
                raise ValueError(
                    f"The metric {name!r} is no mean over samples, so it has no value of a batch. "
                    f"Those that have: {', '.join(means) or 'none'}. Received: {name!r}"
                )

    def _missing(self, name, logs):
        _synchronize(self._model)
        others = {*_named_metrics(self._model)} - {*_means(self._model)}
        there = sorted({*_means(self._model), *logs} - others)
        return ValueError(f"There is no metric {name!r}. The model has: {', '.join(there) or 'none'}. Received: {name!r}")


def _named_metrics(model):
    """All metrics of a model, by the names that they have in Keras' logs."""
    found = {}
    for metric in model.metrics:
        if not hasattr(metric, "metrics"):
            found[metric.name] = metric
        elif metric.variables:  # the metrics given to `compile`, whose results and metrics have one order
            found.update(zip(metric.result(), metric.metrics, strict=True))
    return found


def _means(model):
    return {
        name: metric
        for name, metric in _named_metrics(model).items()
        if isinstance(metric, keras.metrics.Mean) and type(metric).result is keras.metrics.Mean.result
    }


def are_built(model):
    """Whether the metrics given to `compile` exist: TensorFlow makes them when it traces the first step."""
    return all(getattr(metric, "built", True) for metric in model.metrics)


def _synchronize(model):
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _numbers(*tensors):
    return tuple(float(host_value(tensor)) for tensor in tensors)
