"""LANTON around Muon and Scion."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import AdamW, Muon, NoiseAdaptive, Scion
from tests.contract.optimizer_problem import MORE, RUNS, gradients, variables

EXACT = [[2.0, -1.5, 0.5]] * 3
"""Polynomials that converge, after those of NVIDIA."""


def of_matrices(shapes):
    return [keras.Variable(np.zeros(shape), dtype="float32", name=f"kernel_{i}") for i, shape in enumerate(shapes)]


def test_as_derived():
    """Two matrices, with exact polar factors."""
    w = variables()["kernel"]
    weights = [w, keras.Variable(np.array(ops.convert_to_numpy(w)).T.copy(), name="other")]
    table = [[8.2051, -22.9019, 16.4607], [4.0664, -2.8612, 0.5184], [3.9096, -2.8234, 0.525], [3.2856, -2.4153, 0.4853]]
    table += [[2.2779, -1.6198, 0.3985], [1.8726, -1.2307, 0.3585], [1.8564, -1.2132, 0.3568], *EXACT]
    inner = Muon(0.02, weight_decay=None, nesterov=False, rms_rate=None, orthogonalize=table, ns_steps=len(table))
    optimizer = NoiseAdaptive(inner)
    for t, expected in enumerate(RUNS["lanton_own"]["traj"], start=1):
        g = gradients(t)[0]
        optimizer.apply([g, ops.transpose(g) * (3 if t % 2 == 0 else 1)], weights)
        for variable, name in zip(weights, ("W", "V"), strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(variable).ravel(), expected[name], rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(optimizer.ratios(), expected["ratio"], rtol=1e-5)
    assert "exact" in MORE["orthogonalization"]["table"]


def test_noise_of_known_size():
    """Ratios of the specification: alpha 1, beta_2 0.9, squared noises (.04, 1), (.09, .25), (.01, 4)."""
    weights, optimizer = of_matrices([(1, 1)] * 2), NoiseAdaptive(Muon.original(1.0))
    values = np.cumsum([[0.0, 0.0], [0.2, 1.0], [0.3, 0.5], [0.1, 2.0]], axis=0)
    ratios = []
    for pair in values:
        optimizer.apply([ops.convert_to_tensor([[v]], "float32") for v in pair], weights)
        ratios.append(optimizer.ratios()[1])
    np.testing.assert_allclose(ratios, [1, 0.97742908, 0.97620441, 0.90584886], rtol=5e-3)  # of quintic polynomials


@pytest.mark.parametrize("inner", [lambda: Scion(1.0, momentum=0.5), lambda: Scion(1.0, norms={"": "sign"})])
def test_groups_of_scion(inner):
    """Noise slows a layer down within its group, and leaves the others alone."""
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(units) for units in (4, 4, 2))])
    optimizer, rng = NoiseAdaptive(inner()), np.random.default_rng(0)
    noise = [1.0, 0.0, 0.1, 0.0, 0.0, 0.0]
    weights = model.trainable_variables
    for _ in range(10):
        grads = [1 + size * rng.normal(size=v.shape) for v, size in zip(weights, noise, strict=True)]
        optimizer.apply([ops.convert_to_tensor(g, "float32") for g in grads], weights)
    ratios = optimizer.ratios()
    assert ratios[0] < 0.8
    assert (ratios[2] == 1.0) == (optimizer.inner_optimizer.norm_group(0) == "spectral")  # the calmest of two matrices
    np.testing.assert_array_equal(ratios[[1, 3, 4, 5]], 1.0)


def test_saved_state_goes_on(tmp_path):
    def make():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(2)])
        model.compile(NoiseAdaptive(Muon(0.1), alpha=0.5), "mse")
        return model

    x, y = np.random.default_rng(0).normal(size=(2, 32, 4)).astype("float32")
    model = make()
    model.fit(x, y[:, :2], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.alpha == 0.5
    for each in (model, again):
        each.fit(x, y[:, :2], epochs=1, verbose=0, shuffle=False)
    for one, other in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_is_inside():
    with pytest.raises(ValueError, match="NoiseAdaptive is for Muon and Scion"):
        NoiseAdaptive(AdamW())
