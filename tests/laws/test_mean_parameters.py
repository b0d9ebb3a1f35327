"""The mean number of parameters under pruning."""

import numpy as np
import pytest

from keras_lrsched.laws import ScalingLaw, mean_parameters


@pytest.mark.parametrize(
    ("sparsity", "of", "expected"),
    [
        (0.5, "compute", 0.645161290),
        (0.8, "compute", 4 / 11),
        (0.5, "steps", 0.6875),
        (0.8, "steps", 0.5),
        (0.0, "compute", 1.0),
    ],
)
def test_reference_values(sparsity, of, expected):
    assert mean_parameters(1.0, sparsity, of=of) == pytest.approx(expected, rel=2e-9)


@pytest.mark.parametrize("sparsity", [0.3, 0.9])
@pytest.mark.parametrize(("begin", "end"), [(0.25, 0.75), (0.1, 0.5), (0.4, 0.4)])
def test_shares_of_the_compute(sparsity, begin, end):
    """The mean of the ramp between the updates at which the compute reaches these shares."""
    mean = mean_parameters(1.0, sparsity, begin, end)
    first, last = begin * mean, 1 - (1 - end) * mean / (1 - sparsity)
    time = (np.arange(400_000) + 0.5) / 400_000
    done = np.clip((time - first) / max(last - first, 1e-12), 0, 1)
    left = 1 - sparsity * (1 - (1 - done) ** 3)
    assert left.mean() == pytest.approx(mean, rel=1e-5)
    assert left[time < first].sum() / left.sum() == pytest.approx(begin, abs=1e-4)
    assert left[time < last].sum() / left.sum() == pytest.approx(end, abs=1e-4)


@pytest.mark.filterwarnings("ignore:These are the rounded constants")
def test_loss_of_a_pruned_model():
    law = ScalingLaw.published("hoffmann")
    mean = mean_parameters(1.62e8, sparsity=0.8, of="steps")
    assert law.loss(mean, 3.2e9) == pytest.approx(3.41743083, rel=1e-8)
    assert law.loss(0.2 * 1.62e8, 3.2e9) == pytest.approx(3.72150931, rel=1e-8)


@pytest.mark.parametrize(
    "bad", [{"parameters": 0}, {"sparsity": 1.0}, {"sparsity": -0.1}, {"begin": 0.8}, {"end": 1.1}, {"of": "tokens"}]
)
def test_bad_input(bad):
    with pytest.raises(ValueError, match="Received: "):
        mean_parameters(**({"parameters": 1e9, "sparsity": 0.5} | bad))
