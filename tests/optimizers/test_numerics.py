"""The shared pieces of formulas."""

import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers._numerics import average, bias_correction, global_norm, norm


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 0.9999999])
@pytest.mark.parametrize("t", [1, 2, 1000, 10**6])
def test_bias_correction_is_precise(beta, t):
    exact = -np.expm1(t * np.log1p(beta - 1)) if beta else 1.0
    assert float(bias_correction(beta, ops.convert_to_tensor(t, "float32"))) == pytest.approx(exact, rel=3e-7)


def test_bias_correction_with_a_tensor():
    assert float(bias_correction(ops.convert_to_tensor(0.5), ops.convert_to_tensor(2.0))) == pytest.approx(0.75)


def test_norms():
    three, four = ops.convert_to_tensor([3.0]), ops.convert_to_tensor([[4.0]])
    assert float(norm(four)) == 4
    assert float(global_norm([three, four])) == 5


def test_average():
    assert average(0.75, 4.0, 8.0) == 5
