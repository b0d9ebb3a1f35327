import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import LayerContext, get_recipe
from keras_lrsched.precision.recipes import DoubleRounding
from keras_lrsched.precision.recipes.double_rounding import LearnedScale, SharedScale
from tests.precision.compiled import gradient, quickly
from tests.precision.recipes.life import batches, check_life, tiny_model, values
from tests.precision.vectors import VECTORS

BITS = (8, 6, 4, 3, 2)
RULE = SharedScale(BITS, (1.0,) * 5)


def one_of(bits):
    return ops.convert_to_tensor([float(each == bits) for each in BITS])


def test_name():
    assert type(get_recipe("double_rounding")) is DoubleRounding


@pytest.mark.parametrize("case", VECTORS["double_rounding_int8_to_l"]["cases"], ids=lambda case: f"{case['l']} bits")
def test_second_rounding(case):
    codes = np.arange(-128, 128, dtype="float32")
    rounded, _ = quickly(lambda x: RULE.weight_grid(one_of(case["l"])).round(x), codes)
    np.testing.assert_array_equal(rounded / 2 ** (8 - case["l"]), case["out_codes"])


def test_first_rounding_comes_first():
    """72.4 is 72 in 8 bits, a tie in 4 bits, which goes to 4 times 16."""
    rounded, _ = RULE.weight_grid(one_of(4)).round(ops.convert_to_tensor([72.4, 87.6]))
    np.testing.assert_array_equal(ops.convert_to_numpy(rounded), [64, 96])  # at once: 80, 80


@pytest.mark.parametrize(("signed", "expected"), [(True, [-8, 7, 2]), (False, [0, 15, 2])])
def test_activations(signed, expected):
    grid = RULE.input_grid(one_of(4), ops.convert_to_tensor(signed))
    rounded, inside = grid.round(ops.convert_to_tensor([-9.0, 15.2, 2.4]))
    np.testing.assert_array_equal(ops.convert_to_numpy(rounded), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(inside), [0, 0, 1])


def test_gradients():
    """That by the scale of LSQ: rounded minus exact where nothing is clipped, the clipped number elsewhere."""
    x = np.array([0.3, 1.26, -9.0, 7.9], "float32")
    dy = np.array([1.0, 2.0, 3.0, 4.0], "float32")
    start, factor = 0.5, 0.1
    learned = LearnedScale(RULE.weight_grid(one_of(4)), *map(ops.convert_to_tensor, (start, [factor] * 5)), one_of(4), 4)
    moves = np.array([1, 0, 1, 0, 0], "float32")
    scale = start * 1.2
    v = x / scale / 16
    q = np.clip(np.round(np.round(x / scale) / 16), -8, 7)
    np.testing.assert_allclose(quickly(lambda x: learned(x, ops.convert_to_tensor(moves)), x), q * 16 * scale, rtol=1e-6)
    inside = np.abs(v) < 7
    np.testing.assert_array_equal(gradient(lambda x: learned(x, ops.convert_to_tensor(moves)), x, dy), dy * inside)
    by_moves = gradient(lambda moves: learned(ops.convert_to_tensor(x), moves), moves, dy)
    expected = np.sum(dy * (q - v * inside)) * 16 * start / np.sqrt(4 * 127)
    np.testing.assert_allclose(by_moves, [0, 0, expected, 0, 0], rtol=1e-5, atol=1e-6)


def test_clipped_numbers_have_no_gradient():
    learned = LearnedScale(RULE.weight_grid(one_of(4)), *map(ops.convert_to_tensor, (1.0, [1.0] * 5)), one_of(4), 2)
    x, dy = np.array([120.0, -200.0], "float32"), np.ones(2, "float32")
    np.testing.assert_array_equal(gradient(lambda x: learned(x, ops.zeros((5,))), x, dy), [0, 0])


def test_bits_take_turns_and_moves_go_by_their_factor():
    model = tiny_model(DoubleRounding(), keras.optimizers.SGD(0.0))
    state = model.layers[1].gemm.state
    outputs = []
    for _ in range(4):
        outputs.append(ops.convert_to_numpy(model(batches(1)[0][0], training=True)))
    assert int(state["turn"]) == 4
    assert not np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[1], outputs[2])
    np.testing.assert_array_equal(outputs[0], outputs[3])


def test_a_move_for_each_width():
    model = tiny_model(DoubleRounding(), keras.optimizers.SGD(0.1))
    state, seen = model.layers[1].gemm.state, []
    for batch in batches(3):
        model.train_on_batch(*batch)
        seen.append(values([state["input_scale_moves"], state["weight_scale_moves"]]))
    for step, (inputs, weights) in enumerate(seen):
        assert np.count_nonzero(inputs) == np.count_nonzero(weights) == step + 1


def test_scale_is_start_and_moves():
    rule = SharedScale((8, 4), (1.0, 0.01))
    numbers = {"largest_weight": 12.7, "largest_input": 15.0, "lowest_input": 0.0, "inference_bits": 4}
    variables = {name: ops.convert_to_tensor(number) for name, number in numbers.items()}
    for name in ("weight_scale_moves", "input_scale_moves"):
        variables[name] = ops.convert_to_tensor([0.0, 10.0])  # 10 times 0.01: scales grow by a tenth
    w = np.array([[1.76]], "float32")  # a step in 4 bits, 16 times 0.1 times 1.1
    y = rule(ops.convert_to_tensor([[2.0]]), ops.convert_to_tensor(w), variables, None, False)
    np.testing.assert_allclose(ops.convert_to_numpy(y), [[2.2 * 1.76]], rtol=1e-6)


def test_set_bits():
    recipe = DoubleRounding()
    model = tiny_model(recipe)
    model.train_on_batch(*batches(1)[0])
    x = batches(1)[0][0]
    outputs = {}
    for bits in (8, 6, 4, 8):
        recipe.set_bits(model, bits)
        result = model.predict(x, verbose=0)
        np.testing.assert_array_equal(outputs.setdefault(bits, result), result)
    recipe_free = tiny_model(get_recipe("wta_crs"))
    assert not np.array_equal(outputs[8], outputs[4])
    with pytest.raises(ValueError, match="double rounding"):
        recipe.set_bits(recipe_free, 8)
    with pytest.raises(ValueError, match="Received: bits=5"):
        recipe.set_bits(model, 5)


def test_rate_factors():
    recipe = DoubleRounding((8, 7, 6, 5, 4))
    assert [recipe.rate_factor(bits) for bits in recipe.bits] == pytest.approx([1, 0.5, 0.1, 0.05, 0.01], rel=1e-12)
    assert float(recipe.learning_rate(0.5, [0.2, -0.4, 3.0], 6)) == 0
    assert float(recipe.learning_rate(0.5, [0.2, -0.4, 0.3], 6)) == pytest.approx(0.02, rel=1e-6)


def test_first_layer_and_head_stay():
    assert DoubleRounding().rule(LayerContext("linear", 0, 3)) is None
    assert DoubleRounding().rule(LayerContext("head", 2, 3)) is None
    assert DoubleRounding([8, 4]).rule(LayerContext("linear", 1, 3)).bits == (8, 4)


def test_life(tmp_path):
    check_life(DoubleRounding(), tmp_path)


@pytest.mark.parametrize("bits", [(), (4, 8), (8, 8), (9, 4), (8, 1), (8, 4.5)], ids=str)
def test_bad_input(bits):
    with pytest.raises(ValueError, match="Received"):
        DoubleRounding(bits)
