import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision._blocks import pack, unpack


def test_the_first_element_has_the_low_bits():
    assert ops.convert_to_numpy(pack(ops.convert_to_tensor([[1, 15], [2, 3]]), 4)).tolist() == [[0xF1], [0x32]]
    assert ops.convert_to_numpy(pack(ops.convert_to_tensor([63, 0, 1, 32]), 6)).tolist() == [0x3F, 0x10, 0x80]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_unpack_undoes_pack(bits):
    codes = np.random.default_rng(0).integers(0, 2**bits, (3, 5, 12), dtype="int32")
    packed = ops.convert_to_numpy(pack(ops.convert_to_tensor(codes), bits))
    assert packed.dtype == "uint8"
    assert packed.shape == (3, 5, 12 * bits // 8)
    np.testing.assert_array_equal(ops.convert_to_numpy(unpack(packed, bits)), codes)
