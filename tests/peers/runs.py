"""Trajectories on the problem: ours, that of a PyTorch optimizer, that of an optax transformation. All in float64."""

import keras
import numpy as np
from keras import ops

from .problem import SHAPES, STEPS, start, trajectory


def ours(optimizer, transposed=False, variables=tuple(SHAPES), before=lambda t: None, after=lambda t: None, steps=STEPS):
    """`transposed`: for a peer whose kernels are (out, in). `before(t)` and `after(t)` are called around each update."""

    def turned(arrays):
        return {name: array.T if transposed else array for name, array in arrays.items()}

    weights = {name: keras.Variable(turned(start())[name], dtype="float64", name=name) for name in variables}
    optimizer.build([*weights.values()])

    def current():
        return turned({name: np.array(ops.convert_to_numpy(weight)) for name, weight in weights.items()})

    def update(t, loss, grads):
        before(t)
        if hasattr(optimizer, "set_loss"):
            optimizer.set_loss(loss)
        optimizer.apply([ops.convert_to_tensor(g.copy(), "float64") for g in turned(grads).values()])
        after(t)

    return trajectory(current, update, steps)


def torch_run(make, variables=tuple(SHAPES), step=lambda optimizer, t, loss: optimizer.step(), steps=STEPS):
    """`make(parameters)` gets a dictionary of parameters by name; `step` calls the optimizer."""
    import torch

    weights = {name: torch.nn.Parameter(torch.tensor(start()[name])) for name in variables}
    optimizer = make(weights)

    def current():
        return {name: weight.detach().numpy().copy() for name, weight in weights.items()}

    def update(t, loss, grads):
        for name, weight in weights.items():
            weight.grad = torch.tensor(grads[name])
        step(optimizer, t, loss)

    return trajectory(current, update, steps)


def optax_run(transformation, variables=tuple(SHAPES), takes_loss=False):
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    weights = {name: jax.numpy.asarray(start()[name]) for name in variables}
    state = transformation.init(weights)
    move = jax.jit(transformation.update)

    def current():
        return {name: np.array(weight) for name, weight in weights.items()}

    def update(t, loss, grads):
        nonlocal weights, state
        updates, state = move(grads, state, weights, **({"value": loss} if takes_loss else {}))
        weights = optax.apply_updates(weights, updates)

    return trajectory(current, update)
