"""Multigrid training: the official schedule, and frames and crops beside the batch size."""

import numpy as np

from keras_lrsched.schedules import MultigridShapes
from keras_lrsched.schedules.multigrid_shapes import Shape

SLOWFAST = MultigridShapes(32, 224, milestones=(94, 154, 196), epochs=239, steps_per_epoch=3200)


def test_multigrid_of_the_official_code():
    """Spec 17, for SlowFast at B 64, T 32, S 224; epochs of the fine-tuning: 343, where the learning rate drops, to 358."""
    ends = [73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 343, 358]
    rates = [8, 4, 2, 1, 0.8, 0.4, 0.2, 0.1, 0.08, 0.04, 0.02, 0.01, 0.01, 0.001]
    assert SLOWFAST.epoch_ends == ends
    starts = [0, *SLOWFAST.boundaries]
    np.testing.assert_allclose(SLOWFAST.learning_rate(1.0).values(np.array(starts)), rates, rtol=1e-12)


def test_multigrid_shapes():
    """The short cycle at each of the shapes of the long one; the batch grows as the clip shrinks."""
    crops = {0: [112, 158, 158], 1: [112, 158, 158], 2: [112, 158, 224], 3: [112, 158, 224]}
    batches = {0: [16, 8, 8], 1: [8, 4, 4], 2: [8, 4, 2], 3: [4, 2, 1]}
    starts = [0, *SLOWFAST.boundaries]
    for stage, frames in enumerate((8, 16, 16, 32)):
        first = -(-starts[stage] // 3) * 3
        shapes = [SLOWFAST.shape(first + i) for i in range(3)]
        assert shapes == [Shape(b, frames, s) for b, s in zip(batches[stage], crops[stage], strict=True)]
        assert [shape.batch_factor for shape in shapes] == SLOWFAST.values(first + np.arange(3)).tolist()
    assert SLOWFAST.shape(10**9).frames == 32


def test_multigrid_without_the_short_cycle():
    grid = MultigridShapes(32, 224, [94, 154, 196], 239, 3200, short_cycle=False)
    shapes = [grid.shape(start) for start in [0, *grid.boundaries[:3]]]
    assert shapes == [(8, 8, 158), (4, 16, 158), (2, 16, 224), (1, 32, 224)]
