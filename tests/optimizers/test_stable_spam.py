"""StableSPAM: spikes, norms and resets."""

import keras
import numpy as np
from keras import ops

from keras_lrsched.optimizers import StableSPAM
from tests.nightly import nightly


def run(gradients, **options):
    """The steps, and the numbers of the variable after each."""
    w, optimizer, steps = keras.Variable(np.zeros(2), dtype="float32"), StableSPAM(1.0, **options), []
    for g in gradients:
        before = np.array(ops.convert_to_numpy(w))
        optimizer.apply([ops.convert_to_tensor(np.array(g), "float32")], [w])
        steps.append(np.array(ops.convert_to_numpy(w)) - before)
    return np.array(steps), {name: np.array(ops.convert_to_numpy(v)) for name, v in optimizer._states[0].items()}


def test_reset_makes_a_first_update():
    """The step of an update that resets is that of a first one, of the gradient alone: its sign."""
    gradients = np.random.default_rng(0).normal(size=(6, 2))
    steps, _ = run(gradients, reset_interval=3)
    np.testing.assert_allclose(steps[[0, 2, 5]], -np.sign(gradients[[0, 2, 5]]), rtol=1e-5)
    assert np.all(np.abs(np.abs(steps[[1, 3, 4]]) - 1) > 1e-3)


@nightly
def test_official_reset_shortens_a_step():
    """That of mature moments by sqrt(1 - beta_2) / (1 - beta_1), in the authors' code."""
    gradients = np.ones((400, 2))
    ours, theirs = (
        run(gradients, reset_interval=400, beta_1=0.5, beta_2=0.9, official_reset=official)[0][-1]
        for official in (False, True)
    )
    np.testing.assert_allclose(theirs / ours, 0.1**0.5 / 0.5, rtol=1e-3)


def test_spikes_are_cut_after_a_reset_as_before():
    """The largest entry has a history, whose correction does not start anew with the moments."""
    gradients = np.tile([1.0, -1.0], (30, 1))
    gradients[25] = [100.0, -1.0]
    _, state = run(gradients[:26], reset_interval=20, theta=0.9, gamma_1=0.0)
    largest = 0.9 * (1 - 0.9**25) + 0.1 * 100
    np.testing.assert_allclose(state["largest"], largest, rtol=1e-5)
    limit = largest / (1 - 0.9**26)
    np.testing.assert_allclose(state["norm"], np.hypot(limit, 1.0), rtol=1e-5)


def test_the_scale_of_the_loss_does_not_count():
    gradients = np.random.default_rng(1).normal(size=(5, 2))
    small, large = (run(scale * gradients, epsilon=1e-12)[0] for scale in (1e-3, 1e3))
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_decay_rates_stay_where_the_cosine_ends():
    optimizer = StableSPAM(total_steps=4, eta_min=0.25)
    scales = [float(ops.convert_to_numpy(optimizer._scale(ops.convert_to_tensor(float(t))))) for t in (0, 2.5, 5, 100)]
    np.testing.assert_allclose(scales, [1.0, 0.625, 0.25, 0.25], rtol=1e-6)
