"""GB/s of the compiled updates under JAX, beside a copy of the same memory and PyTorch's fused optimizers."""

import argparse
import statistics
import time

import jax
import keras
import numpy as np

from keras_lrsched import optimizers

BYTES = {"SGD": 20, "Lion": 20, "AdamW": 28, "Lars": 28, "Lamb": 40}


def seconds(function, wait, rounds=20):
    """The median of a call, of ten at a time so that the start of a call does not count."""
    wait(function())
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(10):
            result = function()
        wait(result)
        taken.append((time.perf_counter() - start) / 10)
    return statistics.median(taken)


def copy(size):
    array = jax.numpy.zeros(size, "float32")
    double = jax.jit(lambda x: x + 1)
    return 8 * size / seconds(lambda: double(array), jax.block_until_ready)


def ours(name, size):
    variables = [keras.Variable(np.ones((size // 16 // 1024, 1024), "float32")) for _ in range(16)]
    optimizer = getattr(optimizers, name)(1e-3, weight_decay=0.1, fused=True)
    optimizer.build(variables)
    gradients = [jax.numpy.ones(v.shape, "float32") for v in variables]
    update = jax.jit(lambda w, state: optimizer.stateless_apply(state, gradients, w), donate_argnums=(0, 1))
    held = [[v.value for v in variables], [v.value for v in optimizer.variables]]

    def step():
        held[:] = update(*held)
        return held

    return BYTES[name] * size / seconds(step, jax.block_until_ready)


def torch_fused(name, size):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = [torch.nn.Parameter(torch.ones(size // 16 // 1024, 1024, device=device)) for _ in range(16)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    options = {"momentum": 0.9} if name == "SGD" else {}
    step = getattr(torch.optim, name)(parameters, lr=1e-3, weight_decay=0.1, fused=True, **options).step
    wait = (lambda _: torch.cuda.synchronize()) if device == "cuda" else (lambda _: None)
    return BYTES[name] * size / seconds(step, wait)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=64)
    size = parser.parse_args().millions * 2**20
    limit = copy(size)
    print(f"{jax.devices()[0].device_kind}, {size / 1e6:.0f}M parameters\n{'copy':16}{limit / 1e9:8.0f} GB/s")
    for name in BYTES:
        speed = ours(name, size)
        print(f"{name:16}{speed / 1e9:8.0f} GB/s{100 * speed / limit:6.0f} % of the copy", flush=True)
    for name in ("AdamW", "SGD"):
        print(f"{'PyTorch ' + name:16}{torch_fused(name, size) / 1e9:8.0f} GB/s", flush=True)


if __name__ == "__main__":
    main()
