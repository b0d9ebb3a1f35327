"""Order statistics are those of a sort."""

import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision.recipes.fp4_dge import order_statistics
from tests.nightly import some


@pytest.mark.parametrize("seed", some([0, 1]))
def test_all_ranks_are_those_of_a_sort(seed):
    random = np.random.default_rng(seed)
    x = np.concatenate([random.standard_normal(50), random.integers(-2, 3, 30), [np.inf, -np.inf, 1e-42, -1e-42, 3e38]])
    x = random.permutation(x).astype("float32")
    found = order_statistics(ops.convert_to_tensor(x), ops.arange(x.size, dtype="int32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), np.sort(x))


def test_a_matrix_is_taken_as_one():
    x = np.arange(12, dtype="float32").reshape(3, 4)[::-1].copy()
    found = order_statistics(ops.convert_to_tensor(x), ops.convert_to_tensor([0, 5, 11], "int32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), [0, 5, 11])


def test_negative_zero_is_below_zero():
    found = order_statistics(ops.convert_to_tensor(np.float32([0.0, -0.0])), ops.convert_to_tensor([0, 1], "int32"))
    np.testing.assert_array_equal(np.signbit(ops.convert_to_numpy(found)), [True, False])
