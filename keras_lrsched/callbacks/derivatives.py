"""Gradients and Hessian-vector products of a function of a list of tensors, on each backend."""

import keras

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    def gradient(function, values):
        """The gradient of the scalar `function(values)`: one tensor for each of the values."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values)
        return [tf.convert_to_tensor(g) for g in tape.gradient(result, values, unconnected_gradients="zero")]

    def hessian_product(function, values, vectors):
        """The Hessian of the scalar `function(values)` times `vectors`, which are shaped like the values."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            first = gradient(function, values)
        second = tape.gradient(first, values, output_gradients=vectors, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in second]

    def compiled(function, jit_compile):
        """The function of tensors, compiled as the backend does it."""
        return tf.function(function, jit_compile=jit_compile)

elif BACKEND == "jax":
    import jax

    def gradient(function, values):
        return jax.grad(function)(values)

    def hessian_product(function, values, vectors):
        return jax.jvp(jax.grad(function), (values,), (vectors,))[1]

    def compiled(function, jit_compile):
        return jax.jit(function)

else:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def gradient(function, values):
        values = [value.detach().requires_grad_() for value in values]
        return torch.autograd.grad(function(values), values, materialize_grads=True)

    def hessian_product(function, values, vectors):
        values = [value.detach().requires_grad_() for value in values]
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            first = torch.autograd.grad(function(values), values, create_graph=True, materialize_grads=True)
        curved = [i for i, g in enumerate(first) if g.requires_grad]
        if not curved:
            return [torch.zeros_like(value) for value in values]
        ours, theirs = [first[i] for i in curved], [vectors[i] for i in curved]
        return torch.autograd.grad(ours, values, theirs, materialize_grads=True)

    def compiled(function, jit_compile):
        return function
