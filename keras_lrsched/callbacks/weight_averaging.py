"""Averages of the weights over the run: exponential, stochastic, of the latest, or merged like a cooldown."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, training_loop, validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._averaging_rules import DEFAULTS, rule, with_defaults
from keras_lrsched.callbacks._batch_norm_statistics import check_batch_norm_data, recompute_batch_norm, statistics
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.schedules.profiles import Profile


@register(
    title="EMA, SWA, LAWA and WSM",
    paper="arXiv:2507.17634",
    code=("sanyalsunny111/Early_Weight_Avg",),
    checked="numbers",
    against="`use_ema` of Keras' optimizers, and gradient sums for WSM",
    deviations=(
        "SWA is arXiv:1803.05407, LAWA arXiv:2306.03241, whose code merges checkpoints in blocks of 5 where the "
        "window slides here; no code of WSM is public"
    ),
    kind="averager",
)
class WeightAveraging(Controller):
    """Averaging of the weights during training; evaluation, prediction and saving use the average.

    After update `start`, and again each `every` updates, the weights are taken in as a checkpoint w_n, n = 1, 2, ...

        "ema"    a_n = m a_(n-1) + (1 - m) w_n, a_1 = w_1                              exponential moving average
        "swa"    a_n = (w_1 + ... + w_n) / n                                           stochastic weight averaging
        "lawa"   a_n = (w_(n-k+1) + ... + w_n) / k, k = `num_checkpoints`              latest weight averaging
        "wsm"    a_n = sum_j c_j w_(n-k+j), j = 0 ... k, k + 1 = `num_checkpoints`     warmup, stable and merge

    In the last, c_0 = 1 - d_1, c_j = d_j - d_(j+1), c_k = d_k with d_i = cooldown(i / (k + 1)): the merged weights are those
    that the updates of the last k intervals would have led to, had those of interval i been scaled by d_i, as a cooldown
    of the learning rate scales them. `"linear"` is the uniform mean. The updates that a real cooldown leads through are
    others. The span of the merge, k `every` updates, matters most; 4 to 16 checkpoints are usual.

    The average is in the model during `evaluate`, also that of `fit`, from an epoch's end to the next one's begin, and
    after `fit`. So what callbacks save or compare at the end of an epoch (`ModelCheckpoint`, `EarlyStopping`) are the
    averaged weights that `val_loss` is of, wherever in the list they stand; a `ModelCheckpoint` that saves within an epoch
    saves the weights of the training. With `every="epoch"`, the checkpoint of an epoch is taken in before the validation of
    that epoch; in a custom training loop, in `on_epoch_end`.

    After `fit`, pass this callback to `predict` or `evaluate` to use the average for just that call; before the first
    checkpoint, these use the weights as they are. A further `fit` of the same model continues the average; with
    `keep_average`, it trains on from the averaged weights, so for `fit(epochs=1)` in a loop use `keep_average=False`. For
    another model, or another optimizer, the average begins anew.

    Only what can be trained is averaged, in float32. BatchNorm's statistics belong to the weights of the training; give
    `batch_norm_data` to have them computed for the average, each time it is needed.

    The average lies in the memory of the host, as NumPy arrays: one copy of the weights for `"ema"` and `"swa"`,
    `num_checkpoints` for the others, and one more while the average is in the model. Each checkpoint is a copy from the
    device, which is what `every` is to be chosen by.

    Args:
        kind: `"ema"`, `"swa"`, `"lawa"`, or `"wsm"`. Defaults to `"ema"`.
        start: The number of the update after which averaging starts. Defaults to `0`: with the first one due.
        every: The updates (batches) between two checkpoints, or `"epoch"`. Defaults to `10` for `"ema"`, else `"epoch"`.
        ema_momentum: m, in [0, 1), for each checkpoint, not each update. Defaults to `0.99`. Only for `"ema"`.
        ema_start: `"first"`, as above; `"debiased"`, which weights all checkpoints by their age alone, as Adam does;
            `"ramp"`, with min(m, n / (9 + n)) in place of m, as in many implementations. Defaults to `"first"`. Only for
            `"ema"`.
        num_checkpoints: k, or k + 1. Defaults to `5`. Only for `"lawa"` and `"wsm"`.
        cooldown: The profile of the cooldown that a merge is to act like: a name, config or `Profile` of
            `keras_lrsched.schedules.profiles`. Defaults to `"one_minus_sqrt"`. Only for `"wsm"`.
        batch_norm_data: Training data, as for `recompute_batch_norm`: arrays, a dataset, or a list of batches. Defaults to
            `None`.
        keep_average: Whether the model has the average when `fit` is done, instead of the last weights. Defaults to `True`.

    Raises:
        ValueError: At construction, if an argument is out of its range or not of this kind; when `fit` begins, if
            `batch_norm_data` is given and there is no BatchNorm or the model cannot be called on it, if other weights are
            trained than before, or as `Controller`; when `evaluate` or `predict` begins, if the model is another.

    Reference:
        EMA: as `keras.optimizers.Optimizer(use_ema=True)`. SWA: arXiv 1803.05407. LAWA: arXiv 2306.03241 and
        https://github.com/sanyalsunny111/Early_Weight_Avg, where checkpoints are merged in blocks of 5; here, as in the
        paper, the window slides (from memory). WSM: arXiv 2507.17634, of which no code is public; the formulas follow from
        its principle and are checked against gradient sums.

    Example:

    >>> import keras
    >>> weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    >>> model = keras.Sequential([keras.layers.Input((1,)), weight])
    >>> model.compile(keras.optimizers.SGD(0.25), loss="mse")
    >>> averaging = WeightAveraging("swa", every=1)
    >>> history = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0, callbacks=[averaging])
    >>> model.get_weights()[0].item()  # of 0.5, 0.75 and 0.875
    0.7083333134651184
    """

    saved = ("raw", "averages", "taken_at")
    sets_learning_rate = False

    def __init__(
        self,
        kind: Literal["ema", "swa", "lawa", "wsm"] = "ema",
        start: int = 0,
        every: int | Literal["epoch"] | None = None,
        ema_momentum: float | None = None,
        ema_start: Literal["first", "debiased", "ramp"] | None = None,
        num_checkpoints: int | None = None,
        cooldown: str | dict | Profile | None = None,
        batch_norm_data: Any = None,
        keep_average: bool = True,
    ) -> None:
        super().__init__(monitor=())
        self.kind = validation.one_of("kind", kind, tuple(DEFAULTS))
        self.start = validation.non_negative_int("start", start)
        given: dict[str, Any] = {"every": every, "ema_momentum": ema_momentum, "ema_start": ema_start}
        given |= {"num_checkpoints": num_checkpoints, "cooldown": cooldown}
        options = with_defaults(kind, given)
        every = options["every"]
        self.every = every if every == "epoch" else validation.positive_int("every", every)
        self.batch_norm_data = batch_norm_data
        self.keep_average = keep_average
        self.rule = rule(kind, options)
        self.raw: list | None = None  # the weights of the training, while the average is in the model
        self.taken_at = 0  # the step after which the last checkpoint was taken in
        self._statistics: list = []

    @property
    def averages(self) -> dict[str, Any]:
        """The state of the averages."""
        return self.rule.state()

    @averages.setter
    def averages(self, state: dict[str, Any]) -> None:
        self.rule.restore_state(state)
        self._statistics = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        training_loop.place_first(self)  # what others do at an epoch's end is done with the average

    def begin(self) -> None:
        if self.rule.count:
            shapes = [w.shape for w in self.rule.average()]
            now = [tuple(variable.shape) for variable in self.model.trainable_variables]
            if shapes != now:
                raise ValueError(f"Averages are of weights of the shapes {shapes}. Received: a model with {now}")
        if self.batch_norm_data is not None:
            check_batch_norm_data(self.model, self.batch_norm_data)

    def before_update(self) -> None:
        self._take_in()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._take_in(at_epoch_end=True)
        self._swap_in()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()  # also over what an optimizer with `use_ema` has just put there
        if self.keep_average:
            self._swap_in()
            self.raw = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._refuse_another_model()
        self._take_in(at_epoch_end=training_loop.is_validation_of_fit())
        self._swap_in()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._refuse_another_model()
        self._take_in()
        self._swap_in()

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()

    def _take_in(self, at_epoch_end: bool = False) -> None:
        """Add the weights to the average, if they are due and were not added yet.

        It waits until all callbacks have seen the update, for one of them may go back to earlier weights.
        """
        since = self.step - self.start
        due = at_epoch_end if self.every == "epoch" else since % self.every == 0
        if due and since >= 0 and self.step != self.taken_at and self.raw is None:
            self.rule.add(_weights(self._trainer))
            self.taken_at = self.step
            self._statistics = []

    def _swap_in(self) -> None:
        if self.raw is not None or not self.rule.count:
            return
        model = self.model
        self.raw = [np.array(variable.numpy()) for variable in self._swapped(model)]
        _assign(model.trainable_variables, self.rule.average())
        if self.batch_norm_data is None:
            return
        if self._statistics:
            _assign(statistics(model), self._statistics)
        else:
            recompute_batch_norm(model, self.batch_norm_data)
            self._statistics = [np.array(variable.numpy()) for variable in statistics(model)]

    def _swap_out(self) -> None:
        if self.raw is not None:
            _assign(self._swapped(self.model), self.raw)
            self.raw = None

    def _swapped(self, model: keras.Model) -> list[keras.Variable]:
        return model.trainable_variables + (statistics(model) if self.batch_norm_data is not None else [])

    def _refuse_another_model(self) -> None:
        model = self.model
        if self.rule.count and self.is_of_another_run(model):
            raise ValueError(f"The averages are of the weights of another model. Received: model={model.name!r}")


def _weights(model: keras.Model) -> list[np.ndarray]:
    """The weights as NumPy arrays that may share memory with the model."""
    values = keras_private.state_between_steps(model, "trainable_variables")
    if values is None:
        values = [variable.value for variable in model.trainable_variables]
    return [np.asarray(ops.convert_to_numpy(value)) for value in values]


def _assign(variables: list[keras.Variable], values: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
