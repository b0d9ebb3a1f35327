"""TrAct: the first layer of a vision model learns as if its activations were trained."""

from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from keras_lrsched._core import backends, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor


@register(
    title="training of the activations of the first layer",
    paper="arXiv:2410.23970",
    code=("Felix-Petersen/tract",),
    checked="vectors",
    against="the authors' code",
    kind="layer",
)
class TrAct(keras.layers.Layer):
    """The first layer of a model, dense or a convolution, with the gradient of its kernel W (n, outputs) preconditioned:

        dW = (A^T A / b + regularization I)^-1 A^T Z

    A are the b inputs of length n, and Z the gradient in the outputs. So contrast and brightness of inputs do not decide how
    fast a filter learns. Outputs, and the gradients of the bias and of the inputs, are those of the layer. In a convolution
    A are its patches, b all positions of the batch, and n is height x width x channels of the kernel. It costs a further
    product, and a system of n equations; so it is for first layers, whose n is small. The optimizer is any.

    Args:
        layer: A `keras.layers.Dense`, or a `Conv2D` with `groups=1`, `dilation_rate=1` and channels last, without LoRA.
        regularization: lambda, above 0. Defaults to `0.1`.
        name: As in Keras.

    Raises:
        ValueError: If the layer is of another kind, or the argument out of its range; in training, with more than one
            replica of `tf.distribute`, each of which has another A^T A.

    Reference:
        Petersen et al., TrAct: Making First-layer Pre-Activations Trainable, arXiv:2410.23970. Gradients agree with the
        authors' code, Felix-Petersen/tract.

    Example:

    >>> import numpy as np
    >>> dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    >>> model = keras.Sequential([keras.Input((1,)), TrAct(dense, regularization=1.0)])
    >>> model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: y_pred)
    >>> history = model.fit(np.array([[3.0]]), np.array([[0.0]]), verbose=0)
    >>> round(dense.get_weights()[0].item(), 6)  # -3 / (9 + 1)
    -0.3
    """

    def __init__(self, layer: keras.layers.Layer, regularization: float = 0.1, name: str | None = None) -> None:
        super().__init__(name=name, dtype=layer.dtype_policy if isinstance(layer, keras.layers.Layer) else None)
        is_dense = type(layer) is keras.layers.Dense and not layer.lora_rank
        is_plain = type(layer) is keras.layers.Conv2D and layer.groups == 1 and not layer.lora_rank
        is_plain = is_plain and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
        if not is_dense and not is_plain:
            raise ValueError(f"`layer` must be a Dense, or a Conv2D without groups and dilation. Received: layer={layer!r}")
        self.layer = layer
        self.regularization = validation.positive_float("regularization", regularization)

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training:
            return self.layer(inputs)
        if backends.replicas() > 1:
            raise ValueError(f"TrAct works with one replica. Received: num_replicas_in_sync={backends.replicas()}")
        layer, kernel = self.layer, self.layer.kernel
        inputs = ops.cast(inputs, self.compute_dtype)
        outputs = self._linear(inputs, ops.stop_gradient(kernel))
        learned = self._learned(inputs, kernel)
        outputs = outputs + ops.reshape(learned - ops.stop_gradient(learned), ops.shape(outputs))  # 0, with the gradient
        outputs = outputs if layer.bias is None else ops.add(outputs, layer.bias)
        return outputs if layer.activation is None else layer.activation(outputs)

    def _linear(self, x: Tensor, kernel: Tensor) -> Tensor:
        kernel = ops.cast(kernel, x.dtype)
        if len(kernel.shape) == 2:
            return ops.matmul(x, kernel)
        return ops.conv(x, kernel, strides=self.layer.strides, padding=self.layer.padding, data_format="channels_last")

    def _learned(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The outputs as a function of the kernel alone, with preconditioned inputs: one row for each input or patch."""
        if len(kernel.shape) == 4:
            size, layer = tuple(kernel.shape[:2]), self.layer
            x = ops.image.extract_patches(x, size, layer.strides, padding=layer.padding, data_format="channels_last")
        n = kernel.shape[0] if len(kernel.shape) == 2 else kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
        a = ops.cast(ops.stop_gradient(ops.reshape(x, (-1, n))), "float32")
        b = ops.cast(ops.shape(a)[0], "float32")
        gram = ops.matmul(ops.transpose(a), a) / b + self.regularization * ops.eye(n)
        rows = ops.stop_gradient(ops.transpose(ops.solve(gram, ops.transpose(a))))
        matrix = ops.reshape(kernel, (n, kernel.shape[-1]))
        return ops.cast(ops.matmul(rows, ops.cast(matrix, "float32")), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        layer = keras.saving.serialize_keras_object(self.layer)
        return {"name": self.name, "layer": layer, "regularization": self.regularization}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        layer = keras.saving.deserialize_keras_object(config["layer"], custom_objects=custom_objects)
        return cls(**{**config, "layer": layer})
