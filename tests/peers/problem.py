"""A noisy quadratic in NumPy alone, so that it can be imported beside every peer.

One gradient is ten times as large, another is zero. Both sides get the gradients at their own weights.
"""

import numpy as np

STEPS = 60
SPIKE, ZERO = 20, 55
SHAPES = {"kernel": (6, 4), "bias": (5,)}


def start():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def loss_and_gradients(t, weights):
    """Of update t = 1, 2, ..."""
    fixed, noisy = np.random.default_rng(1), np.random.default_rng([2, t])
    scale = {SPIKE: 10.0, ZERO: 0.0}.get(t, 1.0)
    loss, grads = 5.0, {}
    for name in (name for name in SHAPES if name in weights):  # peers may reorder them
        w, shape = weights[name], SHAPES[name]
        curvature, center = fixed.uniform(0.5, 2.0, shape), fixed.normal(size=shape)
        noise = 0.3 * noisy.normal(size=shape)
        loss += scale * float(np.sum(0.5 * curvature * (w - center) ** 2 + noise * w))
        grads[name] = scale * (curvature * (w - center) + noise)
    return loss, grads


def trajectory(read, update, steps=STEPS):
    """The weights after each update. `read()` returns them by name in float64; `update(t, loss, gradients)` moves them."""
    history = []
    for t in range(1, steps + 1):
        update(t, *loss_and_gradients(t, read()))
        history.append(read())
    return history


def deviation(ours, theirs):
    """The largest difference between two trajectories, relative to how far the weights of a variable go in all."""
    worst, before = 0.0, start()
    assert len(ours) == len(theirs) >= 50
    for name in theirs[0]:
        assert all(np.isfinite(weights[name]).all() for weights in theirs)
        way = max(np.abs(weights[name] - before[name]).max() for weights in theirs)
        assert way > 1e-3, f"{name} hardly moves: {way}"
        worst = max(worst, *(np.abs(a[name] - b[name]).max() / way for a, b in zip(ours, theirs, strict=True)))
    return float(worst)
