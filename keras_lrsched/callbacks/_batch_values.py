"""The true loss and metrics of each batch, which Keras' logs do not have: those are means over the epoch so far."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_lrsched._core import backends, keras_private, training_loop
from keras_lrsched._core.backends import host_value
from keras_lrsched._core.training_loop import watches


class BatchValues:
    """Values of single batches, from the sums that Keras keeps for the epoch's means.

        value_t = (total_t - total_(t-1)) / (count_t - count_(t-1))

    The sums are float32, so the digits that are left shrink as an epoch grows: about 1e-5 of the loss after 100 updates,
    1e-3 after 10,000.

    A callback calls `start` in `on_train_begin`, `rebase` in `on_epoch_begin`, `before_batch` in `on_train_batch_begin`, and
    `read` in `on_train_batch_end`, at every batch.

    On JAX the sums are taken out of the state of the compiled step, and no other variable is moved.

    A custom `train_step` may log anything under any name. There, a value comes from the sums of the `Mean` whose
    result is what is logged, batch after batch, whatever its name; what is the result of none is the value of the batch.

    After `read`, `batch_size` is the number of samples of the batch: the length of the first axis of the first array. It is
    0 if it is not known, in a custom training loop with a custom `train_step`.

    Args:
        *names: `"loss"`, or the names that Keras' logs give to metrics: `"accuracy"`, `"output_1_accuracy"`.

    Raises:
        ValueError: At the first `read`, if there is no such value, or one that is no mean over samples (`AUC`).
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.start(None)

    def __reduce__(self) -> tuple:
        return type(self), tuple(self.names)  # a copy of a callback reads the values of another `fit`

    def start(self, model: keras.Model) -> None:
        """Begin with a model, which may have been compiled anew."""
        self._model: Any = model
        self._sums: Any = None
        self._candidates: Any = None
        self.batch_size = 0
        self._resets: Any = None
        if model is None:
            return
        if training_loop.epoch_iterator() is None:
            self._resets = watches.watch_metric_resets(model)
        has_own_step = keras_private.trains_by_own_step(model)
        self._has_own_logs = has_own_step or type(model).compute_metrics is not keras.Model.compute_metrics
        self._sizes: Any = watches.watch_batch_size(model) if has_own_step else None

    def check_logs(self, check: Callable[[dict[str, Any]], None]) -> None:
        """Register a function of the logs that may raise before training, where a custom `train_step` is compiled.

        It is called with them on TensorFlow only, when the step is traced.
        """
        if hasattr(self._sizes, "checks"):
            self._sizes.checks.append(check)

    def rebase(self) -> None:
        """To be called after the metrics were reset or restored: at the begin of an epoch, after an `evaluate`."""
        self._sums = None

    def before_batch(self) -> None:
        if self._sums is None:
            self._sums = self._read_sums() if are_built(self._model) else {}
        self._resets_before = self._resets and self._resets.number

    def read(self, logs: dict[str, Any] | None = None) -> dict[str, float]:
        """The values of the batch that was just trained, by name."""
        sums = self._read_sums()
        if self._resets is not None and self._resets.number != self._resets_before:
            self._sums = {}
        values = {name: self._value(name, sums, logs or {}) for name in self.names}
        if self._sizes is not None:
            self.batch_size = self._sizes.read()
        elif self._loss_tracker is not None:  # it counts samples
            self.batch_size = round(self._difference(self._loss_tracker, sums)[1])
        self._sums = sums
        return values

    def _value(self, name: str, sums: dict[int, tuple[float, ...]], logs: dict[str, Any]) -> float:
        candidates = self._matching(name, sums, logs) if self._has_own_logs else self._candidates[name]
        for metric in candidates:
            total, count = self._difference(metric, sums)
            if count:
                return total / count
        if name not in logs:
            raise self._missing(name, logs)
        return float(host_value(logs[name]))

    def _matching(self, name: str, sums: dict[int, tuple[float, ...]], logs: dict[str, Any]) -> list[keras.Metric]:
        """The means that may be what is logged: whose result has been the same so far."""
        of_name = [it for it in self._candidates[name] if it is self._means.get(name)]
        if name not in logs:
            return of_name
        if backends.replicas_of(self._model) > 1:  # there, Keras logs the mean of the replicas' results
            moved = [it for it in self._candidates[name] if self._difference(it, sums)[1]]
            if moved and not any(it in moved for it in of_name):
                raise ValueError(
                    f"On several replicas, the loss of a batch can be read only if the metric has the name of the log. "
                    f"Received: {name!r} in the logs, and metrics {', '.join(it.name for it in moved)}"
                )
            return of_name
        logged = float(host_value(logs[name]))
        self._candidates[name] = [it for it in self._candidates[name] if _is_result(sums[id(it)], logged)]
        return self._candidates[name]

    def _difference(self, metric: Any, sums: dict[int, tuple[float, ...]]) -> tuple[float, float]:
        total_before, count_before = self._sums.get(id(metric), (0.0, 0.0))
        total, count = sums[id(metric)]
        return total - total_before, count - count_before

    def _read_sums(self) -> dict[int, tuple[float, ...]]:
        if self._candidates is None:
            self._look_up()
        metrics = {id(it): it for candidates in self._candidates.values() for it in candidates}
        if self._loss_tracker is not None:
            metrics[id(self._loss_tracker)] = self._loss_tracker
        state = keras_private.state_between_steps(self._model, "metrics_variables")
        if state is None:
            return {key: _numbers(metric.total, metric.count) for key, metric in metrics.items()}
        return {key: _numbers(*[state[self._places[id(it)]] for it in (m.total, m.count)]) for key, m in metrics.items()}

    def _look_up(self) -> None:
        _synchronize(self._model)
        self._means = _means(self._model)
        self._check(self._means)
        self._loss_tracker = self._means.get("loss") if self._sizes is None else None
        self._candidates = {name: [self._means[name]] if name in self._means else [] for name in self.names}
        if self._has_own_logs:  # those of the same name first
            everything = _all_means(self._model)
            for candidates in self._candidates.values():
                candidates += [it for it in everything if it not in candidates]
        self._places = {id(variable): place for place, variable in enumerate(self._model.metrics_variables)}

    def _check(self, means: dict[str, keras.Metric]) -> None:
        others = [name for name in _named_metrics(self._model) if name not in means]
        for name in self.names:
            if name in others:
                raise ValueError(
                    f"The metric {name!r} is no mean over samples, so it has no value of a batch. "
                    f"Those that have: {', '.join(means) or 'none'}. Received: {name!r}"
                )

    def _missing(self, name: str, logs: dict[str, Any]) -> ValueError:
        _synchronize(self._model)
        others = {*_named_metrics(self._model)} - {*_means(self._model)}
        there = sorted(({*logs} or {*_means(self._model)}) - others)
        return ValueError(f"There is no metric {name!r}. The model has: {', '.join(there) or 'none'}. Received: {name!r}")


def _named_metrics(model: keras.Model) -> dict[str, keras.Metric]:
    """All metrics of a model, by the names that they have in Keras' logs."""
    found = {}
    for metric in model.metrics:
        if not hasattr(metric, "metrics"):
            found[metric.name] = metric
        elif metric.variables:  # the metrics given to `compile`, whose results and metrics have one order
            found.update(zip(metric.result(), metric.metrics, strict=True))
    return found


def _means(model: keras.Model) -> dict[str, keras.Metric]:
    return {
        name: metric
        for name, metric in _named_metrics(model).items()
        if isinstance(metric, keras.metrics.Mean) and type(metric).result is keras.metrics.Mean.result
    }


def _all_means(model: keras.Model) -> list[keras.Metric]:
    """Those above, and those that are attributes of the model but not among its `metrics`."""
    listed = list(_means(model).values())
    others = [it for it in vars(model).values() if isinstance(it, keras.metrics.Mean) and it not in listed]
    return [*listed, *([] if keras.backend.backend() == "jax" else others)]  # JAX leaves them out of the compiled step


def _is_result(sums: tuple[float, ...], logged: float) -> bool:
    total, count = sums
    result = total / count if count else 0.0
    return math.isclose(result, logged, rel_tol=1e-5) or (math.isnan(result) and math.isnan(logged))


def are_built(model: keras.Model) -> bool:
    """Whether the metrics given to `compile` exist: TensorFlow makes them when it traces the first step."""
    return all(getattr(metric, "built", True) for metric in model.metrics)


def _synchronize(model: keras.Model) -> None:
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _numbers(*tensors: Any) -> tuple[float, ...]:
    return tuple(float(host_value(tensor)) for tensor in tensors)
