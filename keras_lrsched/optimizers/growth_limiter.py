"""The norm-growth limiter of Fira, which APOLLO has too."""

from keras import ops

from keras_lrsched.optimizers.maths import norm

GROWTH = 1.01


def limited(x, slots):
    """`x`, shortened if its norm is more than 1.01 times that of the last one, which is `slots.length`.

        a = max(||x|| / (length + 1e-8), 1.01) / 1.01
        x = x / a;  length = ||x|| / a

    There is no limit after a length of 0, at first or from a gradient of 0: it would hold the next ones at about 1e-8.
    """
    length = norm(x)
    excess = ops.maximum(length / (slots.length + 1e-8), GROWTH) / GROWTH
    excess = ops.where(slots.length > 0, excess, 1.0)
    slots.length = length / excess
    return x / excess
