"""The layer inside a quantized layer: it multiplies by a rule, and keeps what the rule remembers."""

import functools
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import backends, keras_private, training_loop
from keras_lrsched.precision._gemms import Rule, matrix
from keras_lrsched.precision.recipe import LayerContext

SEEDS_PER_CALL = 64


class GemmLayer(keras.layers.Layer):
    """inputs kernel, by the rule that a recipe has for a layer.

    It computes in float32, whatever the dtype of the layer around it. Random numbers come from the seed of the context and
    from a counter of calls.

    Args:
        rule: A `Rule`.
        context: A `LayerContext`.
        owner: The layer around it, which has its kernel already.
        known: A `GemmLayer` by the same recipe with other settings, whose variables of the same name, shape and dtype are
            used further. Defaults to `None`.
    """

    def __init__(
        self, rule: Rule, context: LayerContext, owner: keras.layers.Layer, known: "GemmLayer | None" = None
    ) -> None:
        super().__init__(dtype="float32", name=f"{owner.name}_gemm")
        self.rule = rule
        self.context = context
        calls = {"shape": (), "dtype": "int32", "initializer": "zeros", "trainable": False}
        self.calls = self._variable("calls", calls, known)
        self.state = {name: self._variable(name, spec, known) for name, spec in rule.variables(owner).items()}
        self.built = True

    def _variable(self, name: str, spec: Any, known: Any) -> Any:
        variable = None if known is None else known.named_variables.get(name)
        return variable if fits(variable, spec) else self.add_weight(name=name, **spec)

    @property
    def named_variables(self) -> dict[str, Any]:
        return {"calls": self.calls, **self.state}

    def save_own_variables(self, store: Any) -> None:
        for name, variable in self.named_variables.items():
            store[name] = variable

    def load_own_variables(self, store: Any) -> None:
        """Load a file; what it does not have keeps its start, so that it may be one of another recipe, or of none."""
        found = {name: store[name] for name in self.named_variables if name in store.keys()}  # noqa: SIM118
        for name, value in found.items():
            if tuple(value.shape) != tuple(self.named_variables[name].shape):
                raise ValueError(
                    f"The file has `{name}` of a recipe with other settings: switch to these first. Received: a file with "
                    f"shape={tuple(value.shape)}, {self.name} with shape={tuple(self.named_variables[name].shape)}"
                )
        for name, value in found.items():
            self.named_variables[name].assign(value)

    def call(self, inputs: Any, kernel: Any, training: bool | None = None) -> Any:
        training = is_training(training, (inputs, kernel))
        x, w = matrix(inputs), ops.cast(kernel, "float32")
        if x.shape[0] == 0:
            return ops.reshape(ops.matmul(x, w), (*ops.shape(inputs)[:-1], kernel.shape[-1]))
        if training:
            self._refuse_what_would_count_twice()
            self._refuse_replicas()
        seed = ops.stack(
            [ops.convert_to_tensor(_int32(self.context.seed)), ops.convert_to_tensor(self.calls) * SEEDS_PER_CALL]
        )
        if training:
            self.calls.assign_add(1)
        outputs = self.rule(x, w, self.state, seed, training)
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], kernel.shape[-1]))

    def _refuse_replicas(self) -> None:
        """Each replica would have statistics of its own part of the batch, and files those of one of them."""
        if backends.is_batch_sharded() and any(map(_is_seen_in_forward_passes, self.state.values())):
            raise ValueError(
                "The recipe of this layer has statistics of batches, and each replica would have its own: take a recipe "
                f"without any, such as fp8_current or mxfp8. Received: layer={self.path}, several replicas"
            )

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the call itself: a second run would count twice and draw other random numbers."""
        return layer_call

    def _refuse_what_would_count_twice(self) -> None:
        if keras_private.is_recomputed():
            raise ValueError(
                "What is around a quantized layer is rematerialized, which calls it again in the backward pass, with other "
                f"random numbers: leave that out. Received: layer={self.path}"
            )


def fits(variable: Any, spec: Any) -> bool:
    """Whether a variable is what `add_weight` would make of a specification; `None` is not."""
    if variable is None or bool(spec.get("trainable", True)) != bool(variable.trainable):
        return False
    return tuple(variable.shape) == tuple(spec["shape"]) and spec.get("dtype", "float32") == variable.dtype


def _int32(seed: int) -> np.int32:
    """The lowest 32 bits of a seed, with a sign: what a cast makes of it on every backend but JAX, which refuses it."""
    return np.int32((seed + 2**31) % 2**32 - 2**31)


def _is_seen_in_forward_passes(variable: Any) -> bool:
    """Whether a forward pass writes a variable, and not an optimizer by the gradient of the whole batch."""
    return not variable.trainable or getattr(variable, "overwrite_with_gradient", False)


def is_training(training: bool | None, tensors: Any) -> bool:
    """The phase of a call: what `training` says, else the running step of `fit`, `evaluate` or `predict`.

    Models whose `call` takes no `training`, and steps that call parts of a model without it, do not pass it on. Outside of
    Keras' steps, a call of which a gradient may be taken counts as training, with one warning; on PyTorch, where all calls
    look like that, it counts as inference.

    Args:
        training: What the layer was given; `None` if nothing.
        tensors: The inputs and weights of the call.
    """
    if training is not None:
        return bool(training)
    phase = training_loop.phase()
    if phase is not None:
        return phase == "train"
    if not keras_private.is_differentiated(tensors):
        return False
    _warn()
    return True


@functools.cache
def _warn() -> None:
    warnings.warn(
        "A quantized layer was called without `training` where a gradient may be taken: it counts as training. Pass "
        "`training=True` or `training=False` to be sure.",
        stacklevel=2,
    )
