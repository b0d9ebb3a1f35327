"""Detection of signs before a run diverges: a sharp loss, growing logits, a noisy gradient, values that are NaN."""

import math
from typing import Any, Literal

from keras_lrsched._core import training_loop, validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._probe import Probe, number_of_samples, random_direction
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.snapshot import Snapshot


@register(
    title="Sharpness, logits and gradient noise",
    paper="arXiv:2103.00065",
    checked="memory",
    deviations="also arXiv:2309.14322 and arXiv:1812.06162; no official code was run",
    kind="recorder",
)
class StabilityMonitor(Controller):
    """Monitor of the stability of the training on a fixed batch, which may stop it or lower the learning rate.

    After the first update, and again each `every` updates, on the probe batch `data`, in inference mode:

        sharpness        the eigenvalue of the loss' Hessian that is the largest in size, by power iteration. Plain gradient
                         descent is stable along its vector while it is below 2 / learning rate
        max_logit        the largest |output| of the model
        log_sum_exp      the mean of log(sum(exp(output))) over the samples; for several outputs, over these too
        gradient_norm    |g|, the norm of the gradient
        gradient_noise   tr(C) / |g|^2, C the covariance of the gradients of single samples: b / 2 |g_1 - g_2|^2 / |g|^2 with
                         the gradients g_1, g_2 of halves of b samples. A rough figure; `GradientNoiseScale` has a better one

    The values are in `logs` from then on, so that callbacks further back in the list and the history have them.

    The run is unstable when the loss of a batch or a measured value is not finite, which is looked at in each update and
    after each measurement; or when a measured value is above its limit. Then `action` is taken. With `rollback`, values
    that are not finite first bring back all weights and the state of the optimizer from the last measurement that was
    finite; the data continue. Weights that are not finite cannot be mended by a lower rate, so without `rollback`, `"lower"`
    then stops the run.

    Each step of the power iteration costs two to three gradients of the probe batch, so choose `every` by its size. The
    vector found is where the next search starts: the first value may be too small, later ones follow the largest.

    The model is called on the inputs of `data`, and `compute_loss` gives the loss, so it needs a `call` method, and a loss
    in `compile` or a `compute_loss` of its own, also if its `train_step` uses neither. With weights in 16 bits, norms are
    summed in float32, but derivatives have the few digits of those bits.

    Args:
        data: The probe batch: a tuple of inputs and targets, maybe also of sample weights, as `fit` takes them. At least two
            samples.
        every: Updates (batches) between two measurements. Defaults to `1000`.
        power_iterations: Steps of the power iteration in a measurement. Defaults to `5`.
        max_sharpness: A limit. Defaults to `None`.
        max_logit: A limit. Defaults to `None`.
        action: `"stop"` to stop the training, `"lower"` to multiply the learning rate by `factor`, or `None` to continue.
            Defaults to `None`.
        factor: What `"lower"` multiplies the learning rate by, between 0 and 1. Defaults to `0.5`.
        rollback: Whether to keep a copy of weights and optimizer state in the memory of the host, and to go back to it.
            Defaults to `False`.
        monitor: The value in the logs that has to be finite, such as `"d_loss"` of a custom `train_step`. Defaults to
            `"loss"`.

    Attributes:
        measured: The last values, by name.
        instabilities: How often the run was unstable, also in `logs`.

    Raises:
        ValueError: At construction, if an argument is out of its range; when `fit` begins, as `Controller`, the learning
            rate only for `"lower"`, or if the model cannot be evaluated on `data`.

    Reference:
        Sharpness and the edge of stability: arXiv 2103.00065. Logits that grow before a run diverges: arXiv 2309.14322.
        Gradient noise: arXiv 1812.06162. Cited from memory; no official code was run.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile("sgd", loss="mse")
    >>> x, y = np.full((2, 1), 3.0), np.ones((2, 1))
    >>> monitor = StabilityMonitor((x, y))
    >>> history = model.fit(x, y, verbose=0, callbacks=[monitor])
    >>> history.history["sharpness"]  # of the mean of (3 w - 1)^2
    [18.0]
    """

    saved = ("measured", "instabilities", "vector", "good")

    def __init__(
        self,
        data: tuple,
        every: int = 1000,
        power_iterations: int = 5,
        max_sharpness: float | None = None,
        max_logit: float | None = None,
        action: Literal["stop", "lower"] | None = None,
        factor: float = 0.5,
        rollback: bool = False,
        monitor: str = "loss",
    ) -> None:
        super().__init__(monitor)
        self.data = data
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3) or number_of_samples(data) < 2:
            raise ValueError(
                "`data` must be a tuple of inputs, targets, and maybe sample weights, of at least two samples. "
                f"Received: data={data!r}"
            )
        self.every = validation.positive_int("every", every)
        self.power_iterations = validation.positive_int("power_iterations", power_iterations)
        limits = {"sharpness": max_sharpness, "max_logit": max_logit}
        self.limits = {
            name: validation.positive_float(f"max_{name.removeprefix('max_')}", limit)
            for name, limit in limits.items()
            if limit is not None
        }
        self.action = validation.one_of("action", action, (None, "stop", "lower"))
        self.sets_learning_rate = action == "lower"
        self.factor = validation.inner_fraction("factor", factor)
        self.rollback = bool(rollback)
        self._probe: Any = None
        self.measured: dict[str, float] = {}
        self.instabilities = 0
        self.vector: list = []
        self.good: dict = {}

    def begin(self) -> None:
        model = self._trainer
        training_loop.build(model)
        self._probe = Probe(model, self.data)
        self._probe.check()
        if self.rollback:
            self.good = Snapshot(model).state()

    def after_update(self) -> None:
        if not math.isfinite(self.loss):
            self._not_finite()
        elif self.step == 1 or self.step % self.every == 0:
            self._measure()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        self._add_to_logs(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._add_to_logs(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._probe = None  # what it has compiled cannot be copied

    def _add_to_logs(self, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs.update(self.measured, instabilities=self.instabilities)

    def _measure(self) -> None:
        model = self.model
        if not any(v.any() for v in self.vector):
            self.vector = random_direction(model)
        max_logit, log_sum_exp = self._probe.logits()
        gradient_norm, gradient_noise = self._probe.gradient_noise()
        sharpness, vector = self._probe.power_iteration(self.vector, self.power_iterations)
        self.measured = {
            "sharpness": sharpness,
            "max_logit": max_logit,
            "log_sum_exp": log_sum_exp,
            "gradient_norm": gradient_norm,
            "gradient_noise": gradient_noise,
        }
        if not all(map(math.isfinite, self.measured.values())):
            self._not_finite()
            return
        self.vector = vector
        if any(self.measured[name] > limit for name, limit in self.limits.items()):
            self._act(self.action)
        if self.rollback:
            self.good = Snapshot(model).state()

    def _not_finite(self) -> None:
        rate = self.learning_rate if self.action == "lower" else None
        if self.rollback:
            Snapshot.from_state(self.model, self.good).restore()
            self.model.reset_metrics()  # or the epoch's means stay NaN
            self._batch_values.rebase()
            if rate is not None:
                self.learning_rate = rate
        self._act("stop" if self.action == "lower" and not self.rollback else self.action)

    def _act(self, action: str | None) -> None:
        self.instabilities += 1
        if action == "stop":
            self.model.stop_training = True
        elif action == "lower":
            self.learning_rate = self.factor * self.learning_rate
