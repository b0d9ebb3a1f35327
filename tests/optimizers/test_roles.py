"""The treatment of variables by their roles."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import (
    AdamMini,
    AdamW,
    Fira,
    GaLore,
    LayerwiseLearningRate,
    Muon,
    NorMuon,
    multipliers,
    roles,
)
from keras_lrsched.optimizers._newton_schulz import orthogonalized

LAYERS = keras.layers


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def number(x):
    return np.array(ops.convert_to_numpy(x))


def gradient_of(variable, seed=0):
    return np.random.default_rng(seed).normal(size=variable.shape).astype("float32")


def move(optimizer, variable, seed=0):
    """By what the first update moves a variable."""
    before = number(variable)
    optimizer.apply([ops.convert_to_tensor(gradient_of(variable, seed))], [variable])
    return number(variable) - before


def einsum(equation, shape, output_shape):
    return built(LAYERS.EinsumDense(equation, output_shape), *shape)


# Muon


def test_a_transposed_convolution_is_a_matrix_from_its_last_axis():
    layer = built(LAYERS.Conv2DTranspose(64, 4, use_bias=False), 8, 8, 8)
    optimizer = Muon.original(1.0)
    moved = move(optimizer, layer.kernel)
    assert optimizer.matrix_shape(layer.kernel) == (8, 1024)
    matrix = gradient_of(layer.kernel).reshape(1024, 8)
    expected = -np.sqrt(128) * number(orthogonalized(ops.convert_to_tensor(matrix.T), 5, "float32"))
    np.testing.assert_allclose(moved.reshape(1024, 8), expected.T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", [Muon, NorMuon, Fira])
def test_heads_in_any_place_are_the_same_matrix(optimizer):
    """Gemma has (heads, features, size), where Keras has (features, heads, size)."""
    gemma, plain = einsum("btd,ndh->btnh", (5, 6), (None, 2, 4)), einsum("btd,dnh->btnh", (5, 6), (None, 2, 4))
    plain.kernel.assign(ops.transpose(gemma.kernel, (1, 0, 2)))
    one, other = optimizer(), optimizer()
    for seed in range(3):
        gradient = gradient_of(gemma.kernel, seed)
        one.apply([ops.convert_to_tensor(gradient)], [gemma.kernel])
        other.apply([ops.convert_to_tensor(gradient.transpose(1, 0, 2))], [plain.kernel])
    np.testing.assert_allclose(number(gemma.kernel).transpose(1, 0, 2), number(plain.kernel), rtol=1e-4, atol=1e-6)
    if optimizer is not Fira:
        assert one.matrix_shape(gemma.kernel) == other.matrix_shape(plain.kernel) == (6, 8)


@pytest.mark.parametrize("optimizer", [Muon, NorMuon])
def test_matrices_in_one_variable_move_as_they_would_alone(optimizer):
    experts = einsum("bed,edf->bef", (3, 4), (3, 6))
    alone = [built(LAYERS.Dense(6, use_bias=False), 4) for _ in range(3)]
    for i, layer in enumerate(alone):
        layer.kernel.assign(experts.kernel[i])
    one, other = optimizer(weight_decay=0.1), optimizer(weight_decay=0.1)
    for seed in range(3):
        gradient = gradient_of(experts.kernel, seed)
        one.apply([ops.convert_to_tensor(gradient)], [experts.kernel])
        other.apply([ops.convert_to_tensor(each) for each in gradient], [layer.kernel for layer in alone])
    np.testing.assert_allclose(number(experts.kernel), [number(layer.kernel) for layer in alone], rtol=1e-4, atol=1e-6)
    assert one.matrix_shape(experts.kernel) == (4, 6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: LAYERS.DepthwiseConv2D(3, use_bias=False), (8, 8, 4)),
        (lambda: LAYERS.PReLU(), (8, 4)),
        (lambda: LAYERS.LayerNormalization(axis=[-2, -1]), (8, 4)),
        (lambda: LAYERS.Embedding(8, 4), (8,)),
    ],
    ids=["depthwise", "slopes", "norm", "embedding"],
)
def test_what_is_no_hidden_matrix_goes_to_adamw(layer, shape):
    owner = built(layer(), *shape)
    weights = owner.trainable_variables
    optimizer = Muon()
    optimizer.build(weights)
    assert [optimizer.matrix_shape(w) for w in weights] == [None] * len(weights)


@pytest.mark.parametrize("equation", ["abc,cde->abde", "btd,ndh->btnh"])
def test_factors_of_lora_are_matrices(equation):
    layer = einsum(equation, (5, 8), (None, 2, 4))
    layer.enable_lora(3)
    optimizer = Muon()
    optimizer.build([layer.lora_kernel_a, layer.lora_kernel_b])
    assert [optimizer.matrix_shape(w) for w in (layer.lora_kernel_a, layer.lora_kernel_b)] == [(8, 6), (3, 4)]


def test_a_guess_is_warned_of():
    with pytest.warns(UserWarning, match=r"All axes but the last .*: w of shape \(2, 3, 4\)\. Set `input_axes`, or"):
        Muon().build([keras.Variable(np.zeros((2, 3, 4)), dtype="float32", name="w")])


# Low rank, Adam-mini, muP


def test_what_is_projected():
    layers = [
        einsum("btd,ndh->btnh", (5, 16), (None, 1, 8)),
        einsum("bed,edf->bef", (3, 4), (3, 6)),
        built(LAYERS.Conv1D(4, 3, use_bias=False), 8, 4),
        built(LAYERS.PReLU(), 8, 4),
        built(LAYERS.Embedding(16, 8), 8),
    ]
    weights = [layer.trainable_variables[0] for layer in layers]
    optimizer = GaLore()
    optimizer.build(weights)
    assert [m and (m.rows, m.columns) for m in optimizer._matrices] == [(8, 16), None, None, None, (8, 16)]


def test_blocks_of_adam_mini():
    attention = LAYERS.MultiHeadAttention(2, 3)
    attention.build((None, 5, 4), (None, 5, 4))

    class GemmaAttention(LAYERS.Layer):
        def __init__(self):
            super().__init__()
            self.query_dense = einsum("btd,ndh->btnh", (5, 4), (None, 2, 3))
            self.value_dense = einsum("btd,ndh->btnh", (5, 4), (None, 2, 3))

    gemma, tied = GemmaAttention(), einsum("ab,cb->ac", (4,), 3)
    weights = [
        *(getattr(attention, f"_{name}_dense").kernel for name in ("query", "value", "output")),
        gemma.query_dense.kernel,
        gemma.value_dense.kernel,
        tied.kernel,
    ]
    optimizer = AdamMini()
    optimizer.build(weights)
    shapes = [tuple(state["v"].shape) for state in optimizer._states]
    assert shapes == [(1, 2, 1), (1, 2, 3), (1, 1, 4), (2, 1, 1), (2, 1, 3), (3, 1)]


def decoder(width, heads):
    inputs = keras.Input((3,), dtype="int32", name="tokens")
    x = LAYERS.Embedding(7, width, name="embedding")(inputs)
    x = LAYERS.EinsumDense("btd,ndh->btnh", (None, heads, 4), name="query")(x)
    x = LAYERS.EinsumDense("btnh,nhd->btd", (None, width), name="output")(x)
    x = LAYERS.Conv1DTranspose(2 * width, 2, name="up")(x)
    return keras.Model(inputs, LAYERS.Dense(5, name="logits")(x))


def test_mup_by_roles():
    """Inputs and outputs come from the layers: both axes of a kernel that follow heads are wide on one side only."""
    rates = {rule: multipliers.mup(decoder(8, 2), decoder(32, 4), rule=rule)[0] for rule in ("adam", "sgd")}
    assert rates["adam"] == {"^query/kernel$": 1 / 4, "^output/kernel$": 1 / 2, "^up/kernel$": 1 / 4}
    assert rates["sgd"] == {
        "^embedding/embeddings$": 4,
        "^query/kernel$": 2 / 4,  # outputs by 2, inputs by 4
        "^output/kernel$": 4 / 2,
        "^up/bias$": 4,
        "^logits/kernel$": 4,
    }


# Tables, and rules by role


def classifier(*names):
    names = names or ("body", "logits")
    return keras.Sequential([keras.Input((4,)), *(LAYERS.Dense(4, name=name) for name in names)], name="m")


def test_a_table_shows_the_output_layer():
    model = classifier()
    optimizer = Muon(roles=roles(model))
    optimizer.build(model.trainable_variables)
    assert [optimizer.matrix_shape(w) for w in model.trainable_variables] == [(4, 4), None, None, None]
    optimizer = Muon(
        roles=roles(model).correct("body/kernel", kind="other", inputs=(), outputs=()).correct("log", head=False)
    )
    optimizer.build(model.trainable_variables)
    assert [optimizer.matrix_shape(w) for w in model.trainable_variables] == [None, None, (4, 4), None]


def test_output_layers_are_found_in_the_graph():
    """Of functional and sequential models, also nested; of a model that shows activations as well, and of parts of it."""
    model = classifier("body", "logits")
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, keras.layers.Softmax()(model(inputs)))
    layers = [layer for layer in model.layers if layer.trainable_variables]
    activations = keras.Model(model.inputs, [layers[0].output, model.outputs[0]])
    optimizer = Muon()
    optimizer.build(nested.trainable_variables)
    assert [optimizer.matrix_shape(w) for w in activations.trainable_variables] == [(4, 4), None, None, None]
    alone = Muon()
    alone.build(layers[1].trainable_variables)
    assert alone.matrix_shape(layers[1].kernel) is None

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.top = built(LAYERS.Dense(3), 4)

    own, unknown = Own(), Muon()
    unknown.build(own.top.trainable_variables)
    assert unknown.matrix_shape(own.top.kernel) == (4, 3)
    with pytest.raises(ValueError, match=r"'role:head' is for; there are bias, kernel\. Output layers are found in func"):
        AdamW(exclude_from_weight_decay=["role:head"]).build(Own().top.trainable_variables)


def test_an_optimizer_shows_its_roles():
    model, optimizer = classifier(), Muon()
    with pytest.raises(ValueError, match="No roles are known before the optimizer is built"):
        optimizer.roles()
    optimizer.roles(model).correct("logits", head=False)
    optimizer.build(model.trainable_variables)
    assert [optimizer.matrix_shape(w) for w in model.trainable_variables] == [(4, 4), None, (4, 4), None]
    assert optimizer.roles()["m/logits/kernel"].source == "given"
    with pytest.raises(ValueError, match=r"this one is\. Received: model=m"):
        optimizer.roles(model)
    found = Muon()
    found.build(model.trainable_variables)
    assert [role.head for role in found.roles()] == [False, False, True, True]
    assert found.get_config()["roles"] is None
    wrapper = LayerwiseLearningRate(AdamW(), {"role:head": 2.0})
    wrapper.roles(model).correct("body", head=True)
    wrapper.build(model.trainable_variables)
    assert wrapper.inner_optimizer._multipliers == [2, 2, 2, 2]
    assert wrapper.roles() is wrapper.inner_optimizer.roles()


def test_a_table_is_saved_with_the_optimizer():
    model = classifier()
    wrapper = LayerwiseLearningRate(
        AdamW(roles=roles(model).correct("body/kernel", block="query")), {"role:query": 2.0}, roles=roles(model)
    )
    wrapper.roles().correct("body/kernel", block="query")
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(wrapper))
    loaded.build(classifier().trainable_variables)
    assert loaded.inner_optimizer._multipliers == [2, 1, 1, 1]
    assert loaded.inner_optimizer.roles().rows == wrapper.inner_optimizer.roles().rows


def test_rules_by_role():
    model = keras.Sequential(
        [keras.Input((3,)), LAYERS.Embedding(5, 4, name="words"), LAYERS.Dense(4, name="top")], name="m"
    )
    optimizer = AdamW(weight_decay=0.1, exclude_from_weight_decay=["role:embedding", "bias", "normalization"])
    optimizer.build(model.trainable_variables)
    assert optimizer._decayed == [False, True, False]
    optimizer = Muon(exclude_layers=["role:kernel"], learning_rate_multipliers={"role:kernel": 0.5})
    optimizer.build(model.trainable_variables)
    assert (optimizer._views, optimizer._multipliers) == ([None] * 3, [1, 0.5, 1])


def test_normalization_is_found_by_the_class_of_the_layer():
    """Also over two axes, and under any name."""
    layer = built(LAYERS.LayerNormalization(axis=[-2, -1], name="ln"), 5, 4)
    optimizer = AdamW(weight_decay=0.1, exclude_from_weight_decay=["normalization"])
    optimizer.build(layer.trainable_variables)
    assert optimizer._decayed == [False, False]


def test_fused_projections_take_the_rule_of_values():
    class Attention(LAYERS.Layer):
        def __init__(self):
            super().__init__(name="attention")
            self.qkv, self.out = built(LAYERS.Dense(12), 4), built(LAYERS.Dense(4), 4)

    layer = Attention()
    optimizer = LayerwiseLearningRate.blockwise(AdamW(), embedding=None, feed_forward=None)
    with pytest.warns(UserWarning, match="query, key and value are one matrix in .*/kernel, .* put a pattern"):
        optimizer.build(layer.trainable_variables)
    assert set(optimizer.inner_optimizer._multipliers) == {4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AdamW(exclude_from_weight_decay=["role:router"]),
            r"none of 2 variables is what 'role:router' is for; there are bias, head, kernel\. Leave .* give it as `roles`",
        ),
        (
            lambda: AdamW(exclude_from_weight_decay=["role:heads"]),
            "after 'role:' there must be one of .*'role:heads'",
        ),
        (lambda: AdamW(roles={}), "`roles` must be the table that `roles.model.` returns. Received: roles={}"),
        (lambda: AdamW(roles=roles(classifier())), r"The table of roles has no row for 'm/dense.*make it from this model"),
        (
            lambda: AdamW(exclude_from_weight_decay=["m/dense_99/bias"]),
            r"found in none .*numbers layers .*: give",
        ),
    ],
)
def test_refusals(make, message):
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(4)], name="m")
    with pytest.raises(ValueError, match=message):
        make().build(model.trainable_variables)


def test_paths_that_two_variables_share():
    one, two = built(LAYERS.Dense(3, name="same"), 4), built(LAYERS.Dense(2, name="same"), 4)
    optimizer = AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[one.kernel])
    with pytest.raises(ValueError, match=r"one of 2 variables with the path 'same/kernel', of shapes \(4, 3\), \(4"):
        optimizer.build([one.kernel, two.kernel])

    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = one, two

    model = Twice()
    model.built = True
    with pytest.raises(ValueError, match=r"Two variables have the path 'same/kernel', the second .* in the layer 'same'"):
        multipliers.layer_decay(0.5, model)
    with pytest.raises(ValueError, match=r"have the path 'same/kernel', of shapes \(4, 3\) and \(4, 2\): rules go by path"):
        multipliers.mup(model, model)
