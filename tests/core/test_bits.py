"""Bits read as numbers of another type."""

import numpy as np
import pytest
from keras import ops

from keras_lrsched._core.backends import bits

NUMBERS = np.array([0.0, -1.0, 1e-40, np.inf], "float32")


@pytest.mark.parametrize("old_keras", [False, True])
@pytest.mark.parametrize("shape", [(), (4,), (2, 0), (2, 2)])
def test_view_there_and_back(shape, old_keras, monkeypatch):
    if old_keras:
        monkeypatch.delattr(ops, "view", raising=False)
    x = np.resize(NUMBERS, shape).astype("float32")
    integers = bits.view(ops.convert_to_tensor(x), "int32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(integers), x.view("int32") if shape else x.reshape(1).view("int32")[0]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(bits.view(integers, "float32")), x)
