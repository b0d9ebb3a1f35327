import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import quest
from keras_lrsched.precision._quest import CLIPS
from tests.precision.compiled import gradient
from tests.precision.vectors import VECTORS, numbers

ROTATIONS = {"TrustQuantizer": "none", "HalfHadamardTrustQuantizer": "half", "HadamardTrustQuantizer": "full"}
CASES = {f"{case['class']}-{case['bits']}": case for case in VECTORS["quest"]["cases"]}
X = numbers(VECTORS["quest"]["input_2x128"]).reshape(2, 128)


@pytest.mark.parametrize("name", CASES)
def test_values_of_the_authors(name, run):
    case = CASES[name]
    values = run(lambda x: quest(x, case["bits"], ROTATIONS[case["class"]]), X)
    np.testing.assert_allclose(values.ravel(), numbers(case["out"]), atol=4e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["grad_in_for_linspace(-1,1,256)"]])
def test_gradients_of_the_authors(name):
    case = CASES[name]
    upstream = np.linspace(-1, 1, 256, dtype="float32").reshape(2, 128)
    values = gradient(lambda x: quest(x, case["bits"], ROTATIONS[case["class"]]), X, upstream)
    np.testing.assert_allclose(values.ravel(), numbers(case["grad_in_for_linspace(-1,1,256)"]), atol=2e-6)


def test_clips():
    assert {str(bits): clip for bits, clip in CLIPS.items()} == {
        bits: value for bits, value in VECTORS["quest"]["optimal_gaussian_scales"].items() if bits != "1.585"
    }


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_clip_has_the_smallest_error(bits):
    x = np.random.default_rng(0).standard_normal((1, 400_000)).astype("float32")

    def error(clip):
        step = 2 * clip / (2**bits - 1)
        return np.square(step * np.round(np.clip(x, -clip, clip) / step + 0.5) - step / 2 - x).mean()

    ours = np.square(ops.convert_to_numpy(quest(x, bits, "none")) - x).mean()
    assert ours <= 1.001 * min(error(CLIPS[bits] * factor) for factor in (0.96, 1, 1.04))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_levels(bits):
    x = np.random.default_rng(1).standard_normal((1, 4096)).astype("float32")
    assert len(np.unique(ops.convert_to_numpy(quest(x, bits, "none")).round(4))) == 2**bits


def test_bad_input():
    with pytest.raises(ValueError, match="`bits` must be one of 1, 2"):
        quest(X, bits=9)
    with pytest.raises(ValueError, match="`rotation` must be one of"):
        quest(X, rotation="quarter")
    with pytest.raises(ValueError, match="`size` must divide"):
        quest(X[:, :100])
