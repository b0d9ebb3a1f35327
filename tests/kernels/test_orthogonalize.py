"""The compiled Newton-Schulz iterations, beside NumPy in double precision and the plain operations."""

import numpy as np
import pytest
from keras import ops

from keras_lrsched.kernels import orthogonalize
from keras_lrsched.optimizers import _newton_schulz
from tests.precision.compiled import MODES_AND_NIGHTLY, compiled

SHAPES = [(1, 1), (3, 5), (64, 64), (33, 70), (130, 40), (3, 20, 40), (2, 2, 9, 4), (0, 4), (520, 600)]
TABLE = [(3.4445, -4.7750, 2.0315), (3.4445, -4.7750, 2.0315), (2.0, -1.5, 0.0)]
SAFETY, EPSILON = 1.02, 1e-3


def matrices(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in SHAPES]


def in_double_precision(g):
    x = g.astype("float64")
    x = x / (SAFETY * np.sqrt(np.sum(x**2, axis=(-2, -1), keepdims=True)) + EPSILON)
    for a, b, c in TABLE:
        gram = x @ np.swapaxes(x, -2, -1)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def run(xs):
    assert orthogonalize.usable(xs)
    return orthogonalize.orthogonalize(xs, TABLE, SAFETY, EPSILON)


@pytest.mark.parametrize("mode", MODES_AND_NIGHTLY)
def test_as_in_double_precision(mode):
    given = matrices()
    for g, result in zip(given, compiled(run, mode)([*map(ops.convert_to_tensor, given)]), strict=True):
        assert result.shape == g.shape
        np.testing.assert_allclose(ops.convert_to_numpy(result), in_double_precision(g), rtol=0, atol=3e-6)


def test_as_plain_operations(monkeypatch):
    given = [ops.convert_to_tensor(g) for g in matrices() if len(g.shape) < 4]
    fused = _newton_schulz.orthogonalized_all(given, 3, table=TABLE)
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0")
    for one, other in zip(fused, _newton_schulz.orthogonalized_all(given, 3, table=TABLE), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=0, atol=3e-6)


def test_zeros_stay_zeros():
    (result,) = run([ops.zeros((5, 3))])
    np.testing.assert_array_equal(ops.convert_to_numpy(result), np.zeros((5, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_matrix(bad):
    first, second = run([ops.full((20, 30), bad), ops.eye(4)])
    assert np.isnan(ops.convert_to_numpy(first)).all()
    assert np.isfinite(ops.convert_to_numpy(second)).all()


def test_other_dtypes_are_left_to_plain_operations():
    assert not orthogonalize.usable([ops.zeros((3, 3)), ops.zeros((3, 3), "bfloat16")])


def test_the_setting(monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0")
    assert not orthogonalize.usable([ops.zeros((3, 3))])
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    monkeypatch.setattr(orthogonalize, "cannot_call", lambda *given: "It is switched off.")
    with pytest.raises(RuntimeError, match=r"no compiled code here: It is switched off"):
        orthogonalize.usable([ops.zeros((3, 3))])
