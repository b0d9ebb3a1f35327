"""Roles of variables: by the class of the layer, by name, by shape; the table; who owns what."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched._core import keras_private, roles
from keras_lrsched._core.role_rules import equation_axes
from keras_lrsched._core.roles import Role, Roles, roles_of

LAYERS = keras.layers


def by_name(table):
    return {row.path.split("/")[-1]: row for row in table}


def form(row):
    return row.kind, row.inputs, row.outputs, row.stack


BIAS, NORM, SCALE = ("bias", (), (), ()), ("normalization", (), (), ()), ("scale", (), (), ())
CASES = {
    "dense": (lambda: LAYERS.Dense(3), (4,), {"kernel": ("kernel", (0,), (1,), ()), "bias": BIAS}),
    "conv": (lambda: LAYERS.Conv2D(3, 2), (5, 5, 4), {"kernel": ("convolution_kernel", (0, 1, 2), (3,), ()), "bias": BIAS}),
    "conv_in_groups": (
        lambda: LAYERS.Conv2D(4, 2, groups=2, use_bias=False),
        (5, 5, 4),
        {"kernel": ("convolution_kernel", (0, 1, 2), (3,), ())},
    ),
    "conv_of_each_channel": (
        lambda: LAYERS.Conv1D(4, 2, groups=4, use_bias=False),
        (5, 4),
        {"kernel": ("depthwise_kernel", (0,), (), (1, 2))},
    ),
    "conv_transpose": (
        lambda: LAYERS.Conv2DTranspose(3, 2),
        (5, 5, 4),
        {"kernel": ("convolution_kernel", (3,), (0, 1, 2), ()), "bias": BIAS},
    ),
    "depthwise": (
        lambda: LAYERS.DepthwiseConv2D(2, use_bias=False),
        (5, 5, 4),
        {"kernel": ("depthwise_kernel", (0, 1), (3,), (2,))},
    ),
    "separable": (
        lambda: LAYERS.SeparableConv1D(3, 2),
        (5, 4),
        {
            "depthwise_kernel": ("depthwise_kernel", (0,), (2,), (1,)),
            "pointwise_kernel": ("convolution_kernel", (0, 1), (2,), ()),
            "bias": BIAS,
        },
    ),
    "embedding": (lambda: LAYERS.Embedding(5, 3), (4,), {"embeddings": ("embedding", (0,), (1,), ())}),
    "prelu": (lambda: LAYERS.PReLU(shared_axes=[1]), (5, 4), {"alpha": SCALE}),
    "norm_of_two_axes": (lambda: LAYERS.LayerNormalization(axis=[-2, -1]), (5, 4), {"gamma": NORM, "beta": NORM}),
    "batch_norm": (lambda: LAYERS.BatchNormalization(), (5, 4), {"gamma": NORM, "beta": NORM}),
    "rms_norm": (lambda: LAYERS.RMSNormalization(), (5, 4), {"scale": NORM}),
    "group_norm": (lambda: LAYERS.GroupNormalization(2), (5, 4), {"gamma": NORM, "beta": NORM}),
    "gru": (
        lambda: LAYERS.GRU(3),
        (5, 4),
        {"kernel": ("kernel", (0,), (1,), ()), "recurrent_kernel": ("recurrent_kernel", (0,), (1,), ()), "bias": BIAS},
    ),
    "lstm": (
        lambda: LAYERS.LSTM(3),
        (5, 4),
        {"kernel": ("kernel", (0,), (1,), ()), "recurrent_kernel": ("recurrent_kernel", (0,), (1,), ()), "bias": BIAS},
    ),
    "conv_lstm": (
        lambda: LAYERS.ConvLSTM1D(3, 2),
        (5, 6, 4),
        {
            "kernel": ("convolution_kernel", (0, 1), (2,), ()),
            "recurrent_kernel": ("convolution_kernel", (0, 1), (2,), ()),
            "bias": BIAS,
        },
    ),
    "gemma": (
        lambda: LAYERS.EinsumDense("btd,ndh->btnh", (None, 2, 3), bias_axes="nh"),
        (5, 4),
        {"kernel": ("kernel", (1,), (0, 2), ()), "bias": BIAS},
    ),
    "spectral": (
        lambda: LAYERS.SpectralNormalization(LAYERS.Dense(3)),
        (4,),
        {"kernel": ("kernel", (0,), (1,), ()), "bias": BIAS},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_layers(name):
    make, shape, expected = CASES[name]
    layer = make()
    layer.build((None, *shape))
    assert {name: form(row) for name, row in by_name(roles.roles(layer)).items()} == expected
    assert {row.source for row in roles.roles(layer)} == {"layer"}
    assert [form(row) for row in roles_of(layer.trainable_variables)] == [form(row) for row in roles.roles(layer)]


@pytest.mark.parametrize(
    ("equation", "inputs", "outputs", "stack"),
    [
        ("abc,cde->abde", (0,), (1, 2), ()),
        ("abcd,cde->abe", (0, 1), (2,), ()),
        ("btd,ndh->btnh", (1,), (0, 2), ()),
        ("btnh,nhd->btd", (0, 1), (2,), ()),
        ("...x,xy->...y", (0,), (1,), ()),
        ("ab,cb->ac", (1,), (0,), ()),
        ("ebd,edf->ebf", (1,), (2,), (0,)),
    ],
)
def test_equations(equation, inputs, outputs, stack):
    assert equation_axes(equation) == (inputs, outputs, stack)


@pytest.mark.parametrize(
    ("equation", "shape", "output_shape", "a", "b"),
    [
        ("abc,cde->abde", (5, 4), (None, 2, 3), ((0,), (1, 2)), ((0,), (1,))),
        ("btd,ndh->btnh", (5, 4), (None, 2, 3), ((1,), (0, 2)), ((0,), (1,))),
        ("btnh,nhd->btd", (5, 2, 3), (None, 4), ((0, 1), (2,)), ((0,), (1,))),
        ("ab,cb->ac", (4,), 3, ((1,), (0,)), ((1,), (0,))),
    ],
)
def test_factors_of_lora(equation, shape, output_shape, a, b):
    layer = LAYERS.EinsumDense(equation, output_shape)
    layer.build((None, *shape))
    layer.enable_lora(2)
    rows = by_name(roles.roles(layer))
    assert form(rows["lora_kernel_a"]) == ("lora_a", *a, ())
    assert form(rows["lora_kernel_b"]) == ("lora_b", *b, ())


def test_factors_of_lora_in_other_layers():
    dense, embedding = LAYERS.Dense(3), LAYERS.Embedding(5, 3)
    dense.build((None, 4))
    embedding.build((None, 4))
    dense.enable_lora(2)
    embedding.enable_lora(2)
    rows = by_name([*roles.roles(dense), *roles.roles(embedding)])
    kinds = {name: row.kind for name, row in rows.items() if name.startswith("lora")}
    assert kinds == {
        "lora_kernel_a": "lora_a",
        "lora_kernel_b": "lora_b",
        "lora_embeddings_a": "embedding",
        "lora_embeddings_b": "lora_b",
    }


@pytest.mark.parametrize(
    "attention", [lambda: LAYERS.MultiHeadAttention(2, 3), lambda: LAYERS.GroupQueryAttention(3, 2, 1)], ids=["mha", "gqa"]
)
def test_attention(attention):
    layer = attention()
    layer.build((None, 5, 4), (None, 5, 4))
    kernels = {row.block: row for row in roles.roles(layer) if row.kind == "kernel"}
    for block in ("query", "key", "value"):
        assert (kernels[block].inputs, kernels[block].outputs) == ((0,), (1, 2))
    assert (kernels["attention_output"].inputs, kernels["attention_output"].outputs) == ((0, 1), (2,))
    assert {row.block for row in roles.roles(layer) if row.kind == "bias"} == set(kernels)


class Attention(LAYERS.Layer):
    """Projections whose layers have no telling names, but attributes."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.proj = (LAYERS.Dense(4) for _ in range(4))

    def call(self, x):
        return self.proj(self.q(x) + self.k(x) + self.v(x))


class Fused(LAYERS.Layer):
    def __init__(self, name="attn"):
        super().__init__(name=name)
        self.qkv, self.out = LAYERS.Dense(12), LAYERS.Dense(4)

    def call(self, x):
        return self.out(self.qkv(x)[..., :4])


class Block(LAYERS.Layer):
    """A block of a Transformer by a user; the networks behind attention are layers of it, or of a layer in it."""

    def __init__(self, attention):
        super().__init__()
        self.attention, self.norm = attention, LAYERS.LayerNormalization()
        self.up, self.mlp = LAYERS.Dense(8), keras.Sequential([LAYERS.Dense(4)], name="mlp")

    def call(self, x):
        return self.mlp(self.up(self.norm(self.attention(x))))


def transformer(attention=Attention):
    inputs = keras.Input((3,), dtype="int32")
    x = LAYERS.Embedding(5, 4)(inputs)
    x = Block(attention())(x)
    return keras.Model(inputs, LAYERS.Activation("softmax")(LAYERS.Dense(5, name="logits")(x)))


def test_blocks_of_a_transformer():
    rows = list(roles.roles(transformer()))
    blocks = sorted(str(row.block) for row in rows if row.kind == "kernel")
    assert blocks == ["None", "attention_output", "feed_forward", "feed_forward", "key", "query", "value"]
    assert [row.path for row in rows if row.head] == ["logits/kernel", "logits/bias"]
    assert {row.depth for row in rows} == {0, 1, 2}
    blocks = {row.block for row in roles.roles(transformer(Fused)) if row.kind == "kernel"}
    assert blocks == {"query_key_value", "attention_output", "feed_forward", None}


class Own(LAYERS.Layer):
    """Weights of its own."""

    def build(self, shape):
        self.matrix = self.add_weight((shape[-1], 3), name="matrix")
        self.cube = self.add_weight((2, shape[-1], 3), name="cube")
        self.token = self.add_weight((1, 1, 3), name="cls_token")
        self.gain = self.add_weight((3,), name="gain")


class ScaledDense(LAYERS.Dense):
    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight((1, self.units), name="scale")


class SquareNorm(LAYERS.Layer):
    def build(self, shape):
        self.weight = self.add_weight(shape[1:], name="w")


def test_layers_of_users():
    own, dense, norm = Own(), ScaledDense(3), SquareNorm()
    for layer in (own, dense, norm):
        layer.build((None, 5, 4))
    rows = by_name(roles.roles(own))
    assert form(rows["matrix"]) == ("kernel", (0,), (1,), ())
    assert form(rows["cube"]) == ("kernel", (0, 1), (2,), ())
    assert (rows["cls_token"].kind, rows["gain"].kind) == ("other", "other")
    assert {rows[name].source for name in ("matrix", "cube", "gain")} == {"shape"}
    rows = by_name(roles.roles(dense))
    assert {name: (row.kind, row.source) for name, row in rows.items()} == {
        "kernel": ("kernel", "layer"),
        "bias": ("bias", "layer"),
        "scale": ("normalization", "name"),
    }
    assert by_name(roles.roles(norm))["w"].kind == "normalization"


def test_owners_are_found_from_variables_alone(tmp_path):
    """In nested models, also subclassed, after loading, in copies, and in several models with the same names."""

    class Outer(keras.Model):
        def __init__(self):
            super().__init__(name="outer")
            self.inner = keras.Sequential([LAYERS.Conv1DTranspose(3, 2, name="up")], name="inner")

        def call(self, x):
            return self.inner(x)

    one, two = Outer(), Outer()
    for model in (one, two):
        model(np.zeros((1, 5, 4), "float32"))
    assert [v.path for v in one.trainable_variables] == [v.path for v in two.trainable_variables]
    sequential = keras.Sequential([keras.Input((5, 4)), LAYERS.Conv1DTranspose(3, 2)])
    sequential.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for model in (one, two, sequential, loaded, keras.models.clone_model(sequential), copy.deepcopy(sequential)):
        kernel = roles_of(model.trainable_variables)[0]
        assert (kernel.layer, kernel.inputs, kernel.outputs) == ("Conv1DTranspose", (2,), (0, 1))


def test_layers_from_before_the_recording(monkeypatch):
    layer = LAYERS.Conv1DTranspose(3, 2, name="early")
    layer.build((None, 5, 4))
    recorded = keras_private.layers._layers
    del recorded[id(layer)]
    monkeypatch.setattr(keras_private.layers, "_is_complete", False)
    assert roles_of(layer.trainable_variables)[0].layer == "Conv1DTranspose"
    assert id(layer) in recorded
    assert not keras_private.record_earlier_layers()


def test_a_variable_of_two_layers_belongs_to_its_maker():
    table = LAYERS.Embedding(5, 4, name="tokens")
    table.build((None, 3))

    class Tied(LAYERS.Dense):
        def build(self, shape):
            self._kernel = table.embeddings
            self.bias = None
            self.built = True

    head = Tied(4, name="logits")
    head.build((None, 5))
    assert head.trainable_variables[0] is table.embeddings
    row = roles_of([table.embeddings])[0]
    assert (row.layer, row.kind) == ("Embedding", "embedding")


def test_a_frozen_layer_is_in_the_table():
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(3, name="body"), LAYERS.Dense(2, name="head")], name="m")
    model.layers[0].trainable = False
    assert [row.path for row in roles.roles(model)] == ["m/body/kernel", "m/body/bias", "m/head/kernel", "m/head/bias"]


def model_of(*names):
    return keras.Sequential([keras.Input((4,)), *(LAYERS.Dense(3, name=name) for name in names)], name="m")


def test_corrections_survive_saving():
    table = roles.roles(model_of("body", "top"))
    assert table.correct("body/kernel", kind="embedding", block=None) is table
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(table))
    assert loaded.rows == table.rows
    assert (loaded["m/body/kernel"].kind, loaded["m/body/kernel"].source) == ("embedding", "given")
    assert [row.path for row in loaded.of(model_of("body", "top").trainable_variables)] == [row.path for row in table]


def test_it_is_printed():
    titles, kernel, _ = [" ".join(line.split()) for line in str(roles.roles(model_of("body"))).splitlines()]
    assert titles == "path shape kind inputs outputs stack block head depth layer source"
    assert kernel == "m/body/kernel (4, 3) kernel (0,) (1,) True 0 Dense layer"
    assert "2 variables" in repr(roles.roles(model_of("body")))


def test_two_variables_of_one_path():
    """By identity where they are given; by path the table is ambiguous."""
    one, two = LAYERS.Dense(3, name="same"), LAYERS.Conv1DTranspose(3, 2, name="same")
    for layer in (one, two):
        layer.build((None, 5, 4))
    variables = [*one.trainable_variables, *two.trainable_variables]
    rows = roles_of(variables)
    table = Roles(rows, variables)
    assert [row.layer for row in table.of(two.trainable_variables)] == ["Conv1DTranspose"] * 2
    with pytest.raises(ValueError, match=r"2 variables of different roles have the path 'same/kernel': Role\(.*Give their"):
        Roles(rows).of(two.trainable_variables)


def test_tables_that_do_not_fit():
    table = roles.roles(model_of("body"))
    with pytest.raises(ValueError, match=r"no row for 'm/other/kernel'; the nearest are .*numbers layers.*`roles\(model\)`"):
        table.of(model_of("other").trainable_variables)
    wide = keras.Sequential([keras.Input((4,)), LAYERS.Dense(9, name="body")], name="m")
    with pytest.raises(ValueError, match=r"of another model: 'm/body/kernel' has the shape \(4, 3\) there, and \(4, 9\)"):
        table.of(wide.trainable_variables)
    with pytest.raises(ValueError, match="'tail' is found in none of 2 paths; the nearest are m/body/"):
        table.correct("tail", head=True)
    with pytest.raises(ValueError, match=r"`kind` must be one of 'kernel', .*Received: kind='matrix'"):
        table.correct("body", kind="matrix")
    with pytest.raises(ValueError, match=r"must have each axis of a variable once. Received: inputs=\(0,\), outputs=\(0,\)"):
        Role("w", (3, 4), "kernel", inputs=(0,), outputs=(0,))
    with pytest.raises(ValueError, match=r"has no trainable variables: build it first. Received: model=unbuilt"):
        roles.roles(keras.Sequential([LAYERS.Dense(2)], name="unbuilt"))
