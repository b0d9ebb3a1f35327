"""FedHyper in NumPy: two workers with SGD, averaged at times."""

import numpy as np


def weights(x, gradients, outer, learning_rate, period):
    """The weights after each update, of each worker; and 1 + a after each round. `gradients(t, k)` are those of worker k."""
    workers, last, total, all_weights, factors = [x.copy(), x.copy()], np.zeros_like(x), 0.0, [], []
    rates, moves = [1.0, 1.0], [last, last]
    for t in range(1, 4 * period + 1):
        for k in range(2):
            move = -learning_rate * rates[k] * gradients(t, k)
            workers[k] = workers[k] + move
            if outer == "fedhyper_client" and t % period != 1:
                growth = min(1.1, 1 + 0.1 * np.sum(move * last) / 2 + np.sum(move * moves[k]))
                rates[k], moves[k] = float(np.clip(rates[k] * growth, 0.1, 10)), move
        if t % period == 0:
            delta = (workers[0] + workers[1]) / 2 - x
            total = global_rate(total, last, delta) if outer == "fedhyper" else 0.0
            factors.append(1 + total)
            x, last = x + (1 + total) * delta, delta
            workers, rates, moves = [x.copy(), x.copy()], [1.0, 1.0], [last, last]
        all_weights.append([worker.copy() for worker in workers])
    return all_weights, factors


def global_rate(total, last, delta):
    return float(np.clip(total + np.sum(last * delta), -0.8, 4))
