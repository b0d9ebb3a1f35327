"""Each quantized layer, with a rule that quantizes nothing, is the layer without it."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import Recipe, layers
from keras_lrsched.precision._gemms import LinearGemms
from keras_lrsched.precision.layers import matrix_form
from keras_lrsched.precision.layers.convolution import _padding
from tests.precision.compiled import gradient


@dataclasses.dataclass(frozen=True)
class AsIs(Recipe):
    """All three products, in full precision."""

    name = "as_is"

    def rule(self, context):
        return LinearGemms()


def conv(kind, shape, **options):
    return pytest.param(kind, {"filters": 5, "kernel_size": 3, **options}, [shape], id=f"{kind}-{options}")


CASES = [
    pytest.param("Dense", {"units": 5, "activation": "tanh"}, [(4, 6)], id="Dense"),
    pytest.param("Dense", {"units": 5, "use_bias": False}, [(2, 3, 4, 6)], id="Dense-4d"),
    pytest.param("EinsumDense", {"equation": "abc,cde->abde", "output_shape": (None, 2, 5), "bias_axes": "de"}, [(3, 4, 6)]),
    pytest.param("EinsumDense", {"equation": "abcd,cde->abe", "output_shape": (None, 7)}, [(3, 4, 2, 6)]),
    pytest.param("EinsumDense", {"equation": "...x,xy->...y", "output_shape": 5, "activation": "relu"}, [(3, 4, 6)]),
    pytest.param("EinsumDense", {"equation": "abc,cd->adb", "output_shape": (5, None)}, [(3, 4, 6)]),
    conv("Conv1D", (2, 9, 4)),
    conv("Conv1D", (2, 9, 4), padding="causal", dilation_rate=2),
    conv("Conv1D", (2, 9, 4), padding="same", strides=2, activation="relu"),
    conv("Conv2D", (2, 9, 8, 4)),
    conv("Conv2D", (2, 9, 8, 4), padding="same", strides=(2, 3), use_bias=False),
    conv("Conv2D", (2, 9, 8, 4), padding="same", dilation_rate=2),
    conv("Conv2D", (2, 11, 8, 4), strides=2, kernel_size=(4, 2)),
    pytest.param("MultiHeadAttention", {"num_heads": 2, "key_dim": 3}, [(2, 5, 6), (2, 4, 6)], id="MultiHeadAttention"),
    pytest.param(
        "GroupQueryAttention",
        {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2},
        [(2, 5, 6), (2, 4, 6)],
        id="GroupQueryAttention",
    ),
]


@pytest.mark.parametrize(("kind", "options", "shapes"), CASES)
def test_results_and_gradients_are_those_of_the_plain_layer(kind, options, shapes):
    plain = getattr(keras.layers, kind)(**options)
    quantized = getattr(layers, f"Quantized{kind}")(**options, recipe=AsIs())
    rng = np.random.default_rng(0)
    inputs = [ops.convert_to_tensor(rng.normal(size=shape), "float32") for shape in shapes]
    models = [functional(layer, shapes) for layer in (plain, quantized)]
    for variable, other in zip(quantized.trainable_variables, plain.trainable_variables, strict=True):
        variable.assign(ops.convert_to_numpy(other).copy())  # not the same array, which JAX gives away in `fit`
    upstream = rng.normal(size=plain(*inputs).shape).astype("float32")
    results = [[layer(*inputs), *input_gradients(layer, inputs, upstream)] for layer in (plain, quantized)]
    for model, result in zip(models, results, strict=True):
        result += weight_gradients(model, inputs, upstream)
    assert len(results[0]) > len(inputs) + 1
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (one, other)), rtol=2e-5, atol=2e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about an operation of TensorFlow")
def test_no_gradient_of_a_strided_slice_in_convolutions():
    """It takes ten times as long as that of a slice, and longer than all the rest of a layer in low precision."""
    import tensorflow as tf

    layer = layers.QuantizedConv2D(5, 3, strides=2, padding="same", recipe=AsIs())
    layer.build((2, 8, 8, 4))

    @tf.function
    def backward(x):
        return tf.gradients(layer(x), x)

    operations = backward.get_concrete_function(tf.TensorSpec((None, 8, 8, 4))).graph.get_operations()
    assert "StridedSliceGrad" not in {operation.type for operation in operations}


def functional(layer, shapes):
    inputs = [keras.Input(shape[1:]) for shape in shapes]
    return keras.Model(inputs, layer(*inputs))


def input_gradients(layer, inputs, upstream):
    return [
        gradient(lambda x, i=i: layer(*[*inputs[:i], x, *inputs[i + 1 :]]), inputs[i], upstream) for i in range(len(inputs))
    ]


def weight_gradients(model, inputs, upstream):
    """The change that one update with the learning rate 1 subtracts from the weights."""
    eagerly = keras.backend.backend() != "jax"  # no graph is worth one step
    model.compile(keras.optimizers.SGD(1.0), lambda weights, outputs: ops.sum(weights * outputs), run_eagerly=eagerly)
    before = [ops.convert_to_numpy(weight).copy() for weight in model.trainable_variables]
    model.fit([ops.convert_to_numpy(x) for x in inputs], upstream, batch_size=len(upstream), verbose=0)
    return [a - ops.convert_to_numpy(b) for a, b in zip(before, model.trainable_variables, strict=True)]


def test_the_head_of_an_embedding():
    plain = keras.layers.ReversibleEmbedding(7, 4, logit_soft_cap=3.0)
    quantized = layers.QuantizedReversibleEmbedding(7, 4, logit_soft_cap=3.0, recipe=AsIs())
    for layer in (plain, quantized):
        layer.build()
    quantized.embeddings.assign(plain.embeddings)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    both = [ops.convert_to_numpy(layer(ops.array(x), reverse=True)) for layer in (plain, quantized)]
    np.testing.assert_allclose(*both, rtol=1e-5)
    np.testing.assert_array_equal(*[ops.convert_to_numpy(layer(ops.array([1, 2]))) for layer in (plain, quantized)])


def test_the_dtype_is_that_of_the_policy():
    layer = layers.QuantizedDense(3, recipe=AsIs(), dtype="mixed_bfloat16")
    outputs = layer(np.ones((2, 4), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert layer.kernel.dtype == "float32"


@pytest.mark.parametrize("equation", ["abc,bcd->abd", "ab,bc->c", "aab,bc->ac"])
def test_equations_that_are_not_a_product_of_matrices(equation):
    with pytest.raises(ValueError, match="must be a product of matrices"):
        matrix_form(equation, 3)


def test_strides_need_known_sizes():
    with pytest.raises(ValueError, match="need known sizes"):
        list(_padding((None, 4), (3, 3), (2, 2), (1, 1), "same"))
