"""GaLore, Apollo, ApolloMini, Fira."""

import numpy as np
from keras import ops

from keras_lrsched.optimizers import Apollo, ApolloMini, Fira, GaLore

from . import Case, Trajectory


def signs(projection):
    """The sign by which each column must be multiplied to have a positive entry of the largest absolute value."""
    return np.sign(projection[np.abs(projection).argmax(axis=0), range(projection.shape[1])])


def with_signs_of_the_reference(optimizer, t, run):
    """Where its singular vectors change signs against ours, so must the moments that both have at that time."""
    if t > 1:
        old, new = np.array(run["meta"]["proj_each_step"])[t - 2 : t]
        m = optimizer._states[0]["m"]
        m.assign(m * ops.cast(signs(old) * signs(new), "float32")[:, None])


def with_projections_of_the_reference(optimizer, t, run):
    """The random numbers of the official run."""
    each = np.array(run["meta"]["proj_each_step"], "float32")
    optimizer.new_projection = lambda g, ctx: ops.take(each, ctx.iterations, axis=0)


def random(run, **options):
    return Trajectory(run, options, before_update=with_projections_of_the_reference)


def singular(run, **options):
    return Trajectory(run, {"rank": 2, "update_proj_gap": 3, **options}, before_update=with_signs_of_the_reference)


BAD = (
    {"rank": 0},
    {"rank": 1.5},
    {"rank": True},
    {"update_proj_gap": 0},
    {"proj": "qr"},
    {"beta_1": 1},
    {"beta_2": -0.1},
    {"epsilon": -1e-6},
    {"exclude_from_projection": "bias"},
    {"input_axes": ["kernel"]},
    {"seed": None},
    {"seed": -1},
)
ELEMENTS = 64 * 32

CASES = [
    Case(
        GaLore,
        (singular("galore_r2"),),
        options={"learning_rate": 0.01, "update_proj_gap": 20},
        digits_rate=1e-1,
        state_bytes=4 * 8 * (2 * 64 + 32) / ELEMENTS,
        bad=(*BAD, {"proj": "random"}, {"scale": 0}),
    ),
    Case(
        Apollo,
        (
            random("apollo_channel_r2", rank=2, update_proj_gap=3),
            random("apollo_mini_r1", rank=1, scale=128, scale_type="tensor"),
            random("apollo_mini_r1_front", rank=1, scale=128, scale_type="tensor", scale_front=True, weight_decay=0.1),
            singular("apollo_svd_r2", proj="svd"),
        ),
        options={"learning_rate": 0.01, "update_proj_gap": 20},
        digits_rate=3e-2,
        state_bytes=4 * (8 * 2 * 64 + 1) / ELEMENTS,
        bad=(*BAD, {"scale": -1}, {"scale_type": "row"}),
    ),
    Case(
        ApolloMini,
        (random("apollo_mini_r1"), random("apollo_mini_r1_front", scale_front=True, weight_decay=0.1)),
        options={"learning_rate": 0.01, "update_proj_gap": 20},
        digits_rate=3e-2,
        state_bytes=4 * (2 * 64 + 1) / ELEMENTS,
        bad=(*BAD, {"scale": -1}, {"scale_type": "row"}),
    ),
    Case(
        Fira,
        (singular("fira_r2", alpha=0.25),),
        options={"learning_rate": 0.01, "update_proj_gap": 20},
        digits_rate=3e-2,
        state_bytes=4 * (8 * (2 * 64 + 32) + 1) / ELEMENTS,
        bad=(*BAD, {"proj": "random"}, {"alpha": 0}),
    ),
]
