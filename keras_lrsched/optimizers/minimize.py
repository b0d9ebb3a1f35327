"""SciPy's minimizers on the loss and the weights of a Keras model."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import scipy
from keras import ops

from keras_lrsched._core import backends, path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Patterns, Tensor

Frozen: TypeAlias = Patterns | Mapping[str, Any]
"""Regular expressions for weights that stay; or a dictionary from them to masks, which are true for entries that stay."""

WITHOUT_GRADIENT = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
WITH_GRADIENT = ("CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP")
WITH_HESSIAN_PRODUCT = ("Newton-CG", "trust-ncg", "trust-krylov", "trust-constr")


class _StoppedError(Exception):
    """A callback has set `model.stop_training`."""


@register(
    title="SciPy's minimizers on all data at once",
    paper=None,
    code=("scipy/scipy",),
    checked="vectors",
    against="SciPy on the same function in NumPy",
    kind="minimizer",
)
def minimize(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    method: str = "L-BFGS-B",
    sample_weight: Any = None,
    loss: Callable[[], Tensor] | None = None,
    frozen: Frozen = None,
    batch_size: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    tol: float | None = None,
    options: Mapping[str, Any] | None = None,
    bounds: Any = None,
    verbose: Literal[0, 1] = 0,
    jit_compile: bool = False,
) -> scipy.optimize.OptimizeResult:
    """Minimize the loss of a model over its trainable weights with `scipy.optimize.minimize`.

    The loss is one function of all weights: that of all data, without dropout, and with the statistics that BatchNorm has.
    It is what L-BFGS and its kind need for small models, such as physics-informed networks, mostly after Adam. SciPy works
    in float64. A model in float64 (`keras.config.set_floatx("float64")`, or a `dtype` of its layers and its loss) has its
    loss and its gradient in float64, too, and gets far below the resolution of float32; line searches of one in
    float32 often end by "abnormal termination" at about 1e-7 of the loss.

    After each iteration the model has its weights, and callbacks have `on_epoch_end` with the loss as `logs["loss"]`. One
    that sets `model.stop_training` ends it. The weights of the last iteration stay, also after an exception.

    Args:
        model: A model that is built. With `loss=None` it is compiled, and its `compute_loss` is used, with losses of layers.
        x, y, sample_weight: The data, as arrays or structures of arrays. Default to `None`, for a loss that has its own.
        method: The name of a method of SciPy: without gradients (`"Nelder-Mead"`, `"Powell"`, `"COBYLA"`, `"COBYQA"`), with
            gradients (`"CG"`, `"BFGS"`, `"L-BFGS-B"`, `"TNC"`, `"SLSQP"`), or with products of the Hessian and a vector
            (`"Newton-CG"`, `"trust-ncg"`, `"trust-krylov"`, `"trust-constr"`). Defaults to `"L-BFGS-B"`.
        loss: A function without arguments that calls the model and returns a scalar, for instance a residual of a
            differential equation. Defaults to `None`, for the loss that the model was compiled with.
        frozen: Weights that stay as they are: regular expressions for their paths, or a dictionary from them to masks of the
            shapes of the weights, true for entries that stay. Layers that are not trainable stay anyway. Defaults to `None`.
        batch_size: The number of samples in each part of the data that is evaluated at once; the loss is the mean over
            samples. Defaults to `None`, for all.
        callbacks: Keras callbacks. Defaults to `None`.
        tol, options, bounds: As in `scipy.optimize.minimize`; `options={"maxiter": 500}` limits the iterations.
        verbose: 1 prints the loss of each iteration. Defaults to `0`.
        jit_compile: Whether TensorFlow compiles the function by XLA. JAX always does. Defaults to `False`.

    Returns:
        The result of SciPy, with `x`, `fun`, `nit`, `success`, `message`, and beside them `history`, the loss after each
        iteration.

    Raises:
        ValueError: If the model is not built, or is not compiled and has no `loss`; if a method needs the Hessian as a
            matrix; if a rule of `frozen` finds nothing, or a mask has another shape; if nothing is left to be trained; if
            `batch_size` is given with a `loss`.

    Reference:
        SciPy's `minimize`, whose results on the same function in NumPy are the same.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> result = minimize(model, x, np.array([[1.0], [3.0], [0.0]]))
    >>> model.get_weights()[0].ravel().round(3), model.get_weights()[1].round(3)
    (array([ 2., -1.], dtype=float32), array([1.], dtype=float32))
    """
    function = _Function(model, x, y, sample_weight, loss, frozen, batch_size, jit_compile)
    known = (*WITHOUT_GRADIENT, *WITH_GRADIENT, *WITH_HESSIAN_PRODUCT)
    method = validation.one_of("method", {name.lower(): name for name in known}.get(str(method).lower(), method), known)
    derivatives: dict[str, Any] = {} if method in WITHOUT_GRADIENT else {"jac": function.gradient}
    if method in WITH_HESSIAN_PRODUCT:
        derivatives["hessp"] = function.hessian_product
    progress = _Progress(function, callbacks, verbose)
    try:
        result = scipy.optimize.minimize(
            function.value,
            function.start,
            method=method,
            callback=progress.after_iteration,
            tol=tol,
            options=dict(options or {}),
            bounds=bounds,
            **derivatives,
        )
        function.assign(result.x)
    except _StoppedError:
        result = scipy.optimize.OptimizeResult(
            x=progress.last, fun=progress.history[-1], nit=len(progress.history), success=False, status=99
        )
        result["message"] = "A callback has set `model.stop_training`."
    result["history"] = progress.history
    progress.end()
    return result


class _Function:
    """The loss as a function of one vector in float64, the entries of the weights that are not frozen."""

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any,
        sample_weight: Any,
        loss: Callable[[], Tensor] | None,
        frozen: Frozen,
        batch_size: int | None,
        jit_compile: bool,
    ) -> None:
        if not model.built or not model.trainable_variables:
            raise ValueError(f"`model` must be built, with trainable weights. Received: model={model.name}")
        if loss is None and not getattr(model, "compiled", False):
            raise ValueError(
                f"`model` must be compiled with a loss, or `loss` given. Received: model={model.name}, loss=None"
            )
        if loss is not None and batch_size is not None:
            raise ValueError(f"A `loss` takes its data as a whole. Received: batch_size={batch_size} beside a loss")
        self.model, self._loss = model, loss
        self.variables = model.trainable_variables
        self._free = _free_entries(self.variables, frozen)
        self.start = self._vector([ops.convert_to_numpy(ops.cast(v, "float64")) for v in self.variables])
        self._values = [np.asarray(ops.convert_to_numpy(ops.cast(v, "float64"))) for v in self.variables]
        self._batches = [*_parts((x, y, sample_weight), batch_size)]
        self._known: tuple[np.ndarray | None, float, np.ndarray] = None, math.nan, np.empty(0)
        self._derivatives = backends.compile_function(
            lambda values, batch: _scalar_and_gradient(lambda at: self._scalar(at, batch), values), jit_compile
        )
        self._products = backends.compile_function(
            lambda values, vectors, batch: backends.hessian_product(
                lambda at: ops.cast(self._scalar(at, batch), at[0].dtype), values, vectors
            ),
            jit_compile,
        )

    def value(self, vector: np.ndarray) -> float:
        return self._evaluated(vector)[0]

    def gradient(self, vector: np.ndarray) -> np.ndarray:
        return self._evaluated(vector)[1]

    def hessian_product(self, vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
        values, zeros = self._tensors(self._filled(vector)), [np.zeros_like(each) for each in self._values]
        directions = self._tensors(self._filled(direction, zeros))
        total = np.zeros_like(vector)
        for batch, share in self._batches:
            products = self._products(values, directions, batch)
            total = total + share * self._vector([ops.convert_to_numpy(each) for each in products])
        return total

    def assign(self, vector: np.ndarray) -> None:
        for variable, value in zip(self.variables, self._filled(vector), strict=True):
            variable.assign(ops.cast(ops.convert_to_tensor(value), variable.dtype))

    def _evaluated(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its gradient, which SciPy asks for by themselves."""
        if self._known[0] is None or not np.array_equal(self._known[0], vector):
            values = self._tensors(self._filled(vector))
            loss, gradient = 0.0, np.zeros(len(vector))
            for batch, share in self._batches:
                part, gradients = self._derivatives(values, batch)
                loss += share * float(ops.convert_to_numpy(part))
                gradient += share * self._vector([ops.convert_to_numpy(ops.cast(g, "float64")) for g in gradients])
            self._known = vector.copy(), loss, gradient
        return self._known[1], self._known[2]

    def _scalar(self, values: Sequence[Tensor], batch: Any) -> Tensor:
        x, y, sample_weight = batch
        with keras.StatelessScope([*zip(self.variables, values, strict=True)], collect_losses=True):
            if self._loss is not None:
                return self._loss()
            y_pred = self.model(x, training=False)
            return self.model.compute_loss(x, y, y_pred, sample_weight, training=False)

    def _tensors(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        return [ops.convert_to_tensor(a, v.dtype) for a, v in zip(arrays, self.variables, strict=True)]

    def _vector(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        parts = [np.asarray(a, "float64")[free] for a, free in zip(arrays, self._free, strict=True)]
        return np.concatenate(parts)

    def _filled(self, vector: np.ndarray, others: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """The arrays of all weights, with the entries of a vector among those that stay."""
        arrays, begin = [], 0
        for value, free in zip(self._values if others is None else others, self._free, strict=True):
            array, count = value.copy(), int(free.sum())
            array[free] = vector[begin : begin + count]
            arrays.append(array)
            begin += count
        return arrays


def _scalar_and_gradient(function: Callable, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    (loss,), gradients = backends.value_and_gradient(lambda at: (function(at),), values)
    return loss, gradients


class _Progress:
    """The history and the callbacks of the iterations of SciPy."""

    def __init__(self, function: _Function, callbacks: Any, verbose: int) -> None:
        self._function, self._verbose = function, verbose
        self.history: list[float] = []
        self.last = function.start
        self._callbacks = keras.callbacks.CallbackList(list(callbacks or ()), model=function.model)
        function.model.stop_training = False
        self._callbacks.on_train_begin()

    def after_iteration(self, vector: np.ndarray, state: Any = None) -> None:
        loss = self._function.value(vector)
        self.last = np.array(vector)
        self._function.assign(self.last)
        iteration = len(self.history)
        self.history.append(loss)
        if self._verbose:
            print(f"iteration {iteration + 1}: loss {loss:.6g}")
        self._callbacks.on_epoch_end(iteration, {"loss": loss})
        if self._function.model.stop_training:
            raise _StoppedError

    def end(self) -> None:
        self._callbacks.on_train_end({"loss": self.history[-1]} if self.history else None)


def _free_entries(variables: Sequence[Any], frozen: Frozen) -> list[np.ndarray]:
    """For each weight a mask of the entries that are trained."""
    masks = dict.fromkeys(path_rules.patterns("frozen", frozen), True) if not isinstance(frozen, Mapping) else dict(frozen)
    path_rules.patterns("frozen", list(masks))
    free = []
    for variable, rule in zip(variables, path_rules.first_match("frozen", masks, variables), strict=True):
        mask = np.zeros(tuple(variable.shape), bool) if rule is None else np.asarray(masks[rule], bool)
        if mask.ndim and mask.shape != tuple(variable.shape):
            raise ValueError(
                f"A mask of `frozen` must have the shape of its weight. Received: {mask.shape} for "
                f"{path_rules.path(variable)} of shape {tuple(variable.shape)}"
            )
        free.append(~np.broadcast_to(mask, tuple(variable.shape)))
    if not any(each.any() for each in free):
        raise ValueError(f"`frozen` leaves nothing to be trained. Received: frozen={frozen!r}")
    return free


def _parts(data: Any, batch_size: int | None) -> Any:
    """The data in parts, as tensors, each with its share of the samples."""
    arrays = [each for each in keras.tree.flatten(data) if each is not None]
    if batch_size is None or not arrays:
        yield _as_tensors(data, slice(None)), 1.0
        return
    count, size = len(arrays[0]), validation.positive_int("batch_size", batch_size)
    for begin in range(0, count, size):
        part = slice(begin, min(begin + size, count))
        yield _as_tensors(data, part), (part.stop - begin) / count


def _as_tensors(data: Any, part: slice) -> Any:
    def tensor(each: Any) -> Any:
        if each is None:
            return None
        each = np.asarray(each) if not ops.is_tensor(each) else each
        return ops.convert_to_tensor(each[part])

    return keras.tree.map_structure(tensor, data, none_is_leaf=True) if data is not None else None
