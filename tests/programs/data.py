"""Small data, the same in each call: fourteen samples, so that the last of the batches of four has two."""

import numpy as np

SAMPLES = 14


def numbers(features=6, samples=SAMPLES, seed=0):
    """Features, and one number that depends on them."""
    x = np.random.default_rng(seed).normal(size=(samples, features)).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True)).astype("float32")


def classes(features=6, number=3, samples=SAMPLES, seed=0):
    """Features and a class."""
    random = np.random.default_rng(seed)
    return random.normal(size=(samples, features)).astype("float32"), random.integers(0, number, samples)


def images(size=8, channels=1, samples=SAMPLES, seed=0):
    """Images with values in [0, 1], and a class."""
    random = np.random.default_rng(seed)
    return random.uniform(size=(samples, size, size, channels)).astype("float32"), random.integers(0, 3, samples)


def tokens(length=6, vocabulary=12, samples=SAMPLES, seed=0, padded=False):
    """Sequences of integers from 1 on, and a class; if padded, with zeros at their ends."""
    random = np.random.default_rng(seed)
    x = random.integers(1, vocabulary, (samples, length)).astype("int32")
    if padded:
        x[np.arange(length)[None] >= random.integers(2, length + 1, samples)[:, None]] = 0
    return x, random.integers(0, 2, samples)
