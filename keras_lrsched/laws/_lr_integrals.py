"""The two integrals of a learning rate that the annealing laws use: what was spent, and how far it has fallen, in time."""

from typing import NamedTuple

import numpy as np
import scipy

from keras_lrsched.laws._lr_decrements import counted

WARMUPS = ("peak", "sum", "full")


class LRIntegrals(NamedTuple):
    """S1 and S2 after each update."""

    spent: np.ndarray
    """S1(t) = lr_0 + ... + lr_t."""
    fallen: np.ndarray
    """S2(t) = m_0 + ... + m_t with m_0 = 0 and m_t = decay * m_(t-1) + (lr_(t-1) - lr_t)."""


def lr_integrals(learning_rate: np.ndarray, decay: float = 0.999, warmup: str = "peak") -> LRIntegrals:
    """The integrals of a run with these rates, in linear time.

    Args:
        learning_rate: The rates of all updates, an array.
        decay: Defaults to `0.999`.
        warmup: What counts in the first rise of the learning rate. Its peak, as if there were no warmup: `"peak"`; its
            own rates in S1 and its peak in S2: `"sum"`; its own rates in both, so that S2 becomes negative: `"full"`.
            Defaults to `"peak"`.

    Example:

    >>> lr_integrals(np.array([1.0, 1.0, 0.5, 0.5, 0.25]), decay=0.9).fallen
    array([0.   , 0.   , 0.5  , 0.95 , 1.605])
    """
    flat = counted(learning_rate, warmup)
    falls = -np.diff(flat, prepend=flat[0])
    spent = np.cumsum(flat if warmup == "peak" else learning_rate)
    return LRIntegrals(spent, np.cumsum(scipy.signal.lfilter([1.0], [1.0, -decay], falls)))
