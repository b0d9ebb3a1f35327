"""Measurements of a model on a fixed batch: logits, gradient noise, largest eigenvalue of the Hessian."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core.backends import compile_function, gradient, hessian_product
from keras_lrsched._core.random_state import restore_torch_random_state, torch_random_state
from keras_lrsched.optimizers._low_precision import wide_dtype


def _draws_nothing(measure: Callable) -> Callable:
    """A method that leaves PyTorch's generators as they were: recurrent layers draw masks in inference, too."""

    @functools.wraps(measure)
    def measured(*args: Any) -> Any:
        before = torch_random_state()
        try:
            return measure(*args)
        finally:
            restore_torch_random_state(before)

    return measured


class Probe:
    """Measurements of a model on a batch, in inference mode, that change nothing: no metric, no seed.

    Args:
        model: A compiled model whose weights exist.
        data: A tuple of inputs and targets, maybe also of sample weights, of at least two samples.
    """

    def __init__(self, model: keras.Model, data: Any) -> None:
        self._model = model
        names = ("x", "y", "sample_weight")
        parts = zip(names, keras.utils.unpack_x_y_sample_weight(data), strict=True)
        batch = {name: part for name, part in parts if part is not None}
        self._half = half = number_of_samples(data) // 2
        self._all, self._first, self._second = (
            _part(batch, part) for part in (slice(None), slice(half), slice(half, 2 * half))
        )
        jit = bool(getattr(model, "jit_compile", False))
        self._read_logits = compile_function(self._logits, jit)
        self._read_gradients = compile_function(self._gradients, jit)
        self._read_gradient = compile_function(self._gradient_of_all, jit)
        self._step = compile_function(self._power_step, jit)

    @_draws_nothing
    def check(self) -> None:
        """Raise for a model that cannot be evaluated on the batch.

        Raises:
            ValueError: If it has no loss of the batch, for whatever reason.
        """
        model = self._model
        shapes = keras.tree.map_structure(lambda it: tuple(it.shape), self._all)
        received = f"Received: {type(model).__name__} {model.name!r}, data of the shapes {shapes}"
        try:
            values, others = self._state()
            loss = self._loss(values, others, self._all)
        except Exception as error:  # of any kind, from the model's layers and losses
            raise ValueError(
                "To be measured on the data, a model needs a `call` method that takes their inputs, and a loss of its "
                f"outputs and their targets. {received}"
            ) from error
        if loss is None or tuple(loss.shape) != ():
            raise ValueError(f"To be measured, a model needs a loss in `compile` that returns a scalar. {received}")

    @_draws_nothing
    def logits(self) -> tuple[float, ...]:
        """The largest |logit|, and the mean of log(sum(exp(logit))) over the samples."""
        return tuple(map(_number, self._read_logits(*self._state(), self._all)))

    @_draws_nothing
    def gradient(self) -> list[np.ndarray]:
        """The gradient of the loss of the batch: a NumPy array for each trainable variable."""
        return [np.array(ops.convert_to_numpy(g)) for g in self._read_gradient(*self._state(), self._all)]

    @_draws_nothing
    def gradient_noise(self) -> tuple[float, float]:
        """|g|, and the variance of the gradient of a sample as a multiple of |g|^2, both from two halves of the batch."""
        square, difference = map(_number, self._read_gradients(*self._state(), self._first, self._second))
        return square**0.5, self._half / 2 * difference / square if square else 0.0

    @_draws_nothing
    def power_iteration(self, vector: Any, iterations: int) -> tuple[float, list[np.ndarray]]:
        """The eigenvalue of the Hessian that is the largest in size, and its vector, as `iterations` steps find them."""
        state, vector = self._state(), [ops.convert_to_tensor(v) for v in vector]
        for _ in range(iterations):
            eigenvalue, vector = self._step(*state, vector, self._all)
        return _number(eigenvalue), [np.array(ops.convert_to_numpy(v)) for v in vector]

    def _state(self) -> list[list[Any]]:
        kinds = (self._model.trainable_variables, self._model.non_trainable_variables)
        return [[ops.convert_to_tensor(variable.value) for variable in variables] for variables in kinds]

    def _outputs_and_loss(self, values: Any, others: Any, batch: Any) -> tuple[Any, Any]:
        variables = [*self._model.trainable_variables, *self._model.non_trainable_variables]
        with keras.StatelessScope(list(zip(variables, [*values, *others], strict=True)), collect_losses=True):
            y_pred = self._model(batch["x"], training=False)
            return y_pred, self._model.compute_loss(**batch, y_pred=y_pred, training=False)

    def _loss(self, values: Any, others: Any, batch: Any) -> Any:
        return self._outputs_and_loss(values, others, batch)[1]

    def _logits(self, values: Any, others: Any, batch: Any) -> tuple[Any, Any]:
        outputs = keras.tree.flatten(self._outputs_and_loss(values, others, batch)[0])
        outputs = [ops.cast(output, "float32") for output in outputs]
        sums = [ops.ravel(ops.logsumexp(output, axis=-1)) for output in outputs]
        return ops.max(ops.stack([ops.max(ops.abs(output)) for output in outputs])), ops.mean(ops.concatenate(sums))

    def _gradient_of_all(self, values: Any, others: Any, batch: Any) -> list[Any]:
        return gradient(lambda at: self._loss(at, others, batch), values)

    def _gradients(self, values: Any, others: Any, first: Any, second: Any) -> tuple[Any, Any]:
        a, b = (gradient(lambda at, part=part: self._loss(at, others, part), values) for part in (first, second))
        pairs = [(_wide(p), _wide(q)) for p, q in zip(a, b, strict=True)]
        return _square([(p + q) / 2 for p, q in pairs]), _square([p - q for p, q in pairs])

    def _power_step(self, values: Any, others: Any, vector: Any, batch: Any) -> tuple[Any, list[Any]]:
        tangent = [ops.cast(v, value.dtype) for v, value in zip(vector, values, strict=True)]
        product = hessian_product(lambda at: self._loss(at, others, batch), values, tangent)
        product = [_wide(p) for p in product]
        eigenvalue = sum(ops.sum(v * p) for v, p in zip(vector, product, strict=True))
        norm = ops.maximum(ops.sqrt(_square(product)), 1e-30)  # a loss without curvature gives zeros
        return eigenvalue, [p / norm for p in product]


def random_direction(model: keras.Model) -> list[np.ndarray]:
    """A vector of length 1 that is shaped like the weights, the same in each run."""
    random = np.random.default_rng(0)
    vector = [random.normal(size=variable.shape) for variable in model.trainable_variables]
    norm = np.sqrt(sum(np.sum(v**2) for v in vector))
    return [(v / norm).astype(wide_dtype(each.dtype)) for v, each in zip(vector, model.trainable_variables, strict=True)]


def number_of_samples(data: Any) -> int:
    return len(keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(data)[0])[0])


def _part(batch: Any, part: Any) -> dict[str, Any]:
    """A part of the samples, as tensors."""
    return {name: keras.tree.map_structure(lambda x: ops.convert_to_tensor(x[part]), it) for name, it in batch.items()}


def _wide(tensor: Any) -> Any:
    return ops.cast(tensor, wide_dtype(keras.backend.standardize_dtype(tensor.dtype)))


def _square(tensors: Any) -> Any:
    return sum(ops.sum(ops.square(tensor)) for tensor in tensors)


def _number(tensor: Any) -> float:
    return float(np.asarray(ops.convert_to_numpy(tensor)))
