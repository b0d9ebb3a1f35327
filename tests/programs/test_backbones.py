"""The backbones of KerasHub: conversions pass no matrix over, what is saved comes back, each variable has its role."""

import gc
import importlib.util
import re
import warnings

import keras
import numpy as np
import pytest

from keras_lrsched.optimizers import AdamW, LayerwiseLearningRate, Muon, roles
from keras_lrsched.precision import get_recipe, quantize_model, restore_model
from keras_lrsched.precision.layers import Quantized
from keras_lrsched.precision.layers._gemm_layer import GemmLayer

if importlib.util.find_spec("keras_hub"):
    from tests.programs import backbones

    NAMES, GENERATORS = list(backbones.BACKBONES), list(backbones.GENERATORS)
else:
    NAMES, GENERATORS = [], []

pytestmark = pytest.mark.programs


@pytest.fixture(autouse=True)
def _frees_memory():
    yield
    keras.backend.clear_session()
    gc.collect()


def outputs(model, inputs):
    return [np.array(each, "float32") for each in keras.tree.flatten(model(inputs))]


def largest_difference(ones, others):
    return max(np.max(np.abs(one - other), initial=0) for one, other in zip(ones, others, strict=True))


def unlisted(model, conversion):
    """Trained variables with more than one axis longer than 1 whose layers are in no list of a conversion.

    The projections of a quantized attention layer are in none, but the layer is.
    """
    listed = {*conversion.quantized, *conversion.kept, *conversion.unsupported}
    within = tuple(f"{path}/" for path in conversion.quantized)
    inside = {
        id(variable)
        for layer in model._flatten_layers()
        if (layer.path or layer.name) in listed or (layer.path or "").startswith(within)
        for variable in layer._trainable_variables
    }
    matrices = [each for each in model.trainable_variables if sum(size != 1 for size in each.shape) > 1]
    return [each.path for each in matrices if id(each) not in inside]


def idle(model, inputs, monkeypatch):
    """Paths of quantized layers of which the call of a model takes no product."""
    taken = set()
    call = GemmLayer.call
    with monkeypatch.context() as patched:
        patched.setattr(
            GemmLayer, "call", lambda self, *args, **options: taken.add(id(self)) or call(self, *args, **options)
        )
        model(inputs)
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, Quantized)]
    return [layer.path for layer in layers for _, product in layer.gemms() if id(product) not in taken]


@pytest.mark.skipif(not NAMES, reason="needs KerasHub")
def test_every_backbone_is_here():
    assert sorted([*NAMES, *backbones.ABSTRACT]) == sorted(backbones.names())


@pytest.mark.parametrize("name", NAMES)
def test_backbone(name, tmp_path, monkeypatch):
    case = backbones.BACKBONES[name]
    keras.utils.set_random_seed(0)
    model = case.build()
    inputs = backbones.inputs_of(name, model)
    exact = outputs(model, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that stay as they are
        conversion = quantize_model(model, "mxfp8", case.keep, strict=False, head=())
    assert conversion.quantized
    assert unlisted(model, conversion) == []

    assert all(case.unreached and case.unreached in path for path in idle(model, inputs, monkeypatch))
    rounded = outputs(model, inputs)
    assert all(np.isfinite(each).all() for each in rounded)
    assert largest_difference(rounded, exact) > 0

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(outputs(loaded, inputs), rounded)
    model.save_weights(tmp_path / "model.weights.h5")
    keras.utils.set_random_seed(1)
    twin = case.build()
    twin.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_equal(outputs(twin, inputs), exact)
    restore_model(model)
    np.testing.assert_equal(outputs(model, inputs), exact)


@pytest.mark.parametrize("name", GENERATORS)
def test_texts_follow_a_conversion(name, tmp_path):
    """`generate` is compiled at its first call; the head is the table of tokens, which is quantized as well."""
    recipe = get_recipe("mxfp8", head=True)
    converted = backbones.generator(name)
    assert "token_embedding" in quantize_model(converted, recipe).quantized
    wanted = backbones.generate(converted)

    model = backbones.generator(name)
    exact = backbones.generate(model)
    assert (exact != wanted).any()
    quantize_model(model, recipe)
    np.testing.assert_array_equal(backbones.generate(model), wanted)
    restore_model(model)
    np.testing.assert_array_equal(backbones.generate(model), exact)

    converted.save_to_preset(str(tmp_path))
    loaded = backbones.greedy(getattr(backbones.models, name).from_preset(str(tmp_path)))
    np.testing.assert_array_equal(backbones.generate(loaded), wanted)


WITH_WEIGHTS_OF_THEIR_OWN = (
    *("CLIPHead", "CLIPVisionEmbedding", "MetaCLIP2Head", "MetaCLIP2VisionEmbedding", "SigLIPHead"),
    *("SigLIPMultiHeadAttentionPooling", "VideoPrismAttenTokenPoolingLayer", "VideoPrismPerDimScale"),
    *("Gemma3nTextAltUp", "GptOssAttention", "Qwen3_5GatedDeltaNet", "RWKV7ChannelMix", "RWKV7TimeMix"),
    *("XLNetAttentionMaskLayer", "XLNetEncoder"),
)
"""Layers of which some variables have their roles from their shapes: vectors, but for those of RWKV and XLNet."""

OUTSIDE_OF_BLOCKS = (
    r"pooled_dense|embeddings?_projection|(vision|text|language)_projection|text_encoder_head|image_classifier|^dense(_7)?/|"
    r"rel_attn/encoding|altup|laurel|per_layer|router|sparse_feedforward_gate|shared_expert_gate|in_proj_[zab]|"
    r"patch_embedding|downsample/reduction|geometry_encoder|_head/|mask_embedder|dot_product_scoring|"
    r"modulation|single_stream|last_layer|gateway|enc_(score|output)|class_embed|segment_encoding|"
    r"pooling_attention_query|^linear_|sampling_offsets|attention_weights|clip_._projection|"
    r"context_embedding|vector_embedding|ada_layer_norm|^output_dense"
)
"""Matrices of Transformers that are in no block of attention or of a feed-forward network."""


@pytest.mark.parametrize("name", NAMES)
def test_roles(name):
    model = backbones.BACKBONES[name].build()
    variables, table = model.trainable_variables, roles(model)
    found = table.of(variables)
    assert {id(variable) for variable in variables} <= {id(variable) for variable in table.variables}
    assert {row.layer for row in found if row.source == "shape"} <= set(WITH_WEIGHTS_OF_THEIR_OWN)
    kernels = [row for row in found if row.path.endswith("/kernel") and row.kind != "depthwise_kernel"]
    assert all(row.kind in ("kernel", "convolution_kernel") and row.inputs and row.outputs for row in kernels)
    assert not {row.kind for row in found if sum(size != 1 for size in row.shape) > 1} & {"normalization", "other"}

    optimizer = AdamW(weight_decay=0.1, exclude_from_weight_decay=["bias", "normalization"])
    optimizer.build(variables)
    decayed = {row.kind for row, is_decayed in zip(found, optimizer._decayed, strict=True) if is_decayed}
    left_out = {row.kind for row, is_decayed in zip(found, optimizer._decayed, strict=True) if not is_decayed}
    assert not decayed & {"bias", "normalization"}
    assert left_out <= {"bias", "normalization", "embedding", "scale"}  # tables and scales by their names

    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if name == "XLNetBackbone" else "error")  # of (segments, heads, size)
        Muon(exclude_layers=["bias", "normalization"]).build(variables)


@pytest.mark.parametrize("name", NAMES)
def test_blockwise(name):
    """Refused, with the word to leave out, where a block is missing; else each matrix of a block has its rate."""
    model = backbones.BACKBONES[name].build()
    found = roles(model).of(model.trainable_variables)
    words = {
        "query_key": ("query", "query_key_value"),
        "feed_forward": ("feed_forward",),
        "value_output": ("value", "query_key_value"),
    }
    present = {row.block for row in found} | {row.kind for row in found}
    missing = {word: None for word, parts in words.items() if not present & set(parts)}
    missing |= {} if "embedding" in present else {"embedding": None}
    if missing:
        with pytest.raises(ValueError, match=f"'role:({'|'.join(missing)})' is for; there are "):
            LayerwiseLearningRate.blockwise(AdamW()).build(model.trainable_variables)
    if "query_key" in missing:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if "query_key_value" in present else "error")
        optimizer = LayerwiseLearningRate.blockwise(AdamW(), **missing)
        optimizer.build(model.trainable_variables)
    rates = zip(found, optimizer.inner_optimizer._multipliers, strict=True)
    untouched = [row.path for row, rate in rates if rate == 1 and row.kind == "kernel" and not row.head]
    assert [path for path in untouched if not re.search(OUTSIDE_OF_BLOCKS, path)] == []
