"""Local AdamW of a linear model, by its formulas, in NumPy and float64."""

import numpy as np


def weights(x, y, batch, rates, averages, workers, weight_decay=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """The final weights of `workers` that each train on a part of every batch, and average after the updates `averages`."""
    x, y = x.astype(float), y.astype(float)
    w = [np.zeros((x.shape[1], 1)) for _ in range(workers)]
    m, v = ([np.zeros_like(each) for each in w] for _ in range(2))
    size = batch // workers
    for t, rate in enumerate(rates, start=1):
        for k in range(workers):
            start = (t - 1) * batch + k * size
            part = slice(start, start + size)
            g = 2 * x[part].T @ (x[part] @ w[k] - y[part]) / size
            m[k] = beta_1 * m[k] + (1 - beta_1) * g
            v[k] = beta_2 * v[k] + (1 - beta_2) * g**2
            u = m[k] / (1 - beta_1**t) / (np.sqrt(v[k] / (1 - beta_2**t)) + epsilon)
            w[k] = w[k] - rate * (u + weight_decay * w[k])
        if t in averages:
            w = [sum(w) / workers] * workers
    return w[0]
