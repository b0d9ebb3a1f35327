"""EfficientTrain: what its stages have in common."""

import itertools

import numpy as np

from keras_lrsched.schedules import EfficientTrainStages


def test_efficient_train_has_the_same_compute_in_all_stages():
    stages = EfficientTrainStages(1_000_000)
    ends = [0, *stages.boundaries, stages.total_steps]
    compute = [(b - a) * size**2 for (a, b), size in zip(itertools.pairwise(ends), stages.sizes, strict=True)]
    np.testing.assert_allclose(compute, compute[0], rtol=1e-4)
    sizes = EfficientTrainStages.for_full_size_steps(1000, sizes=[112, 224], full_size=224)
    assert (sizes.boundaries, sizes.total_steps) == ([2000], 2500)
