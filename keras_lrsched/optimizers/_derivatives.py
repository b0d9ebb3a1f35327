"""Gradients and Hessian-vector products of a function of a list of tensors, on each backend."""

import contextlib

import keras

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    def value_and_gradient(function, values, missing="zero"):
        """Of `function(values)`, which returns a scalar and more: what it returns, and a tensor for each of the values.

        With `missing="none"` it is `None` where the scalar does not depend on a value; JAX has zeros there also in Keras.
        """
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values)
        gradients = tape.gradient(result[0], values, unconnected_gradients=missing)
        return result, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    def hessian_product(function, values, vectors):
        """The Hessian of the scalar `function(values)` times `vectors`, which are shaped like the values."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            _, first = value_and_gradient(lambda at: (function(at),), values)
        second = tape.gradient(first, values, output_gradients=vectors, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in second]

    def no_gradient():
        """Where variables are set."""
        return contextlib.nullcontext()

elif BACKEND == "jax":
    import jax

    def value_and_gradient(function, values, missing="zero"):
        def scalar_first(at):
            result = function(at)
            return result[0], result

        (_, result), gradients = jax.value_and_grad(scalar_first, has_aux=True)(list(values))
        return result, gradients

    def hessian_product(function, values, vectors):
        return jax.jvp(jax.grad(function), (list(values),), (list(vectors),))[1]

    def no_gradient():
        return contextlib.nullcontext()

else:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def value_and_gradient(function, values, missing="zero"):
        values = [value.detach().requires_grad_() for value in values]
        with torch.enable_grad():
            result = function(values)
        gradients = torch.autograd.grad(result[0], values, allow_unused=True, materialize_grads=missing == "zero")
        return keras.tree.map_structure(lambda x: x.detach() if torch.is_tensor(x) else x, result), gradients

    def hessian_product(function, values, vectors):
        values = [value.detach().requires_grad_() for value in values]
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            first = torch.autograd.grad(function(values), values, create_graph=True, materialize_grads=True)
        curved = [i for i, g in enumerate(first) if g.requires_grad]
        if not curved:
            return [torch.zeros_like(value) for value in values]
        ours, theirs = [first[i] for i in curved], [vectors[i] for i in curved]
        return torch.autograd.grad(ours, values, theirs, materialize_grads=True)

    def no_gradient():
        return torch.no_grad()
