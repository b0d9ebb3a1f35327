"""Kaplan's law: values of the formula, and its fit."""

import itertools

import numpy as np
import pytest

from keras_lrsched.laws import KaplanLaw, RunTable

LAW = KaplanLaw.published()


def test_published_values():
    assert LAW.loss([1e8, 1e9], [1e10, 2e10]) == pytest.approx([2.85441741, 2.43543128], rel=3e-9)


def test_fit_recovers_a_formula():
    grid = np.array(list(itertools.product([1e7, 1e8, 1e9], [1e9, 4e9, 2e10]))).T
    found = KaplanLaw.fit(RunTable(parameters=grid[0], tokens=grid[1], loss=LAW.value_at(*grid)))
    assert (found.alpha_N, found.alpha_D) == pytest.approx((0.076, 0.095), abs=1e-6)
    assert (found.N_c, found.D_c) == pytest.approx((8.8e13, 5.4e13), rel=1e-3)


def test_what_follows():
    best = LAW.optimal(1e21)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
    assert LAW.tokens_for(best.loss, best.parameters) == pytest.approx(best.tokens, rel=1e-9)
    assert LAW.tokens_for(best.loss, best.parameters / 100) == np.inf
    for factor in (0.9, 1.1):
        assert LAW.loss(factor * best.parameters, best.tokens / factor) > best.loss
