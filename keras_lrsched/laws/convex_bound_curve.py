"""The convex bound for every update of a run at once, in near-linear time and linear memory."""

import numpy as np

BLOCK = 256
SPACING = 0.3  # of the nodes below; the error of the sum is 1e-13 of it
DIGITS = 30  # e^-30 = 1e-13


def parts(learning_rate, norms):
    """For every update, what D^2 is multiplied by in the bound, and the rest of the bound."""
    used = learning_rate > 0
    eta, norms = learning_rate[used], norms[used]
    noise = eta * norms**2 + sums(eta, (eta * norms) ** 2)
    latest = np.maximum(np.cumsum(used) - 1, 0)
    return 0.5 / np.cumsum(eta)[latest], 0.5 * noise[latest]


def sums(rates, weights):
    """For each t, the sum over k < t of weights_k / (rates_(k+1) + ... + rates_t), with rates above 0.

    Within a block of updates it is added up as it stands. Older updates come in by 1 / x = integral of exp(u - x exp(u)) du:
    at each node u, their sum of weights_k * exp(-exp(u) * (rates_(k+1) + ... + rates_t)) is carried from block to block.
    Nothing is ever subtracted, so no digits are lost at the end of a long decay.
    """
    decay = np.exp(np.arange(-DIGITS - np.log(rates.sum()), np.log(1.2 * DIGITS) - np.log(rates.min()), SPACING))
    carried = np.zeros_like(decay)
    total = np.empty_like(rates)
    for start in range(0, len(rates), BLOCK):
        block = slice(start, start + BLOCK)
        spent = _tails(rates[block])
        within = np.divide(1.0, spent, out=np.zeros_like(spent), where=spent > 0)
        older = np.exp(-np.outer(np.cumsum(rates[block]), decay)) @ (SPACING * decay * carried)
        total[block] = within[:, 1:] @ weights[block][:-1] + older
        left = np.append(spent[-1, 1:], 0.0)
        carried = carried * np.exp(-spent[-1, 0] * decay) + weights[block] @ np.exp(-np.outer(left, decay))
    return total


def _tails(rates):
    """In row t and column j: rates_j + ... + rates_t; 0 where j > t."""
    lower = np.tril(np.broadcast_to(rates, (len(rates), len(rates))))
    return np.cumsum(lower[:, ::-1], axis=1)[:, ::-1]
