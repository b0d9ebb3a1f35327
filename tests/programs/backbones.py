"""The backbones of KerasHub at tiny random size. Nothing is downloaded."""

import dataclasses
from collections.abc import Callable

import keras
import keras_hub
import numpy as np
from keras_hub import layers, models
from keras_hub.src.models.blip2.blip2_custom_opt import BLIP2CustomOPT
from keras_hub.src.models.blip2.blip2_qformer import BLIP2QFormer
from keras_hub.src.models.blip2.blip2_vision_encoder import BLIP2VisionEncoder
from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder
from keras_hub.src.models.metaclip_2.metaclip_2_text_encoder import MetaCLIP2TextEncoder
from keras_hub.src.models.metaclip_2.metaclip_2_vision_encoder import MetaCLIP2VisionEncoder
from keras_hub.src.models.siglip.siglip_text_encoder import SigLIPTextEncoder
from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder
from keras_hub.src.models.vae.vae_backbone import VAEBackbone

TOKENS = 6
"""The length of texts, and the size of the smallest vocabulary."""

ABSTRACT = {
    "Backbone": "the base class of all",
    "FeaturePyramidBackbone": "the base class of those with outputs of several sizes",
}
"""Names in `keras_hub.models` that are built in no form, with the reason."""


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A backbone at tiny size.

    Attributes:
        build: A function of nothing that returns it.
        sizes: Of its inputs, where its graph leaves them open: name -> shape without the batch.
        inputs: Inputs that are not random numbers, random tokens or masks of ones: name -> array.
        keep: Of `quantize_model`: layers that it makes and never calls, which have no weights; and those whose kernels a
            layer around multiplies with itself.
        unreached: A part of the paths of layers that have weights and are not called with these inputs.
    """

    build: Callable
    sizes: dict = dataclasses.field(default_factory=dict)
    inputs: dict = dataclasses.field(default_factory=dict)
    keep: tuple = ()
    unreached: str | None = None


BACKBONES: dict[str, Tiny] = {}


def tiny(name, sizes=None, inputs=None, keep=(), unreached=None, parts=dict, **settings):
    """Registers a class of `keras_hub.models` by its settings, and by a function that makes those that are models."""

    def build():
        return getattr(models, name)(**settings, **parts())

    BACKBONES[name] = Tiny(build, sizes or {}, inputs or {}, keep, unreached)


def inputs_of(name, backbone):
    """Random inputs of a backbone, by the names, shapes and dtypes of its graph."""
    random = np.random.default_rng(0)
    case = BACKBONES[name]

    def values(tensor):
        if tensor.name in case.inputs:
            return case.inputs[tensor.name]
        shape = (2, *case.sizes.get(tensor.name, tensor.shape[1:]))
        shape = tuple(TOKENS if size is None else size for size in shape)
        if "mask" in tensor.name and tensor.dtype != "float32":
            return np.ones(shape, tensor.dtype)
        if "int" in tensor.dtype:
            return random.integers(0, 2 if "segment" in tensor.name else TOKENS, shape).astype(tensor.dtype)
        return random.normal(size=shape).astype(tensor.dtype)

    return keras.tree.map_structure(values, backbone.input)


# Encoders of texts.

TEXT = {"vocabulary_size": TOKENS, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 16}
HEADS = {"num_heads": 2}
GROUPED = {"num_query_heads": 2, "num_key_value_heads": 1}
LENGTH = {"max_sequence_length": TOKENS}

tiny("AlbertBackbone", **TEXT, **HEADS, **LENGTH, embedding_dim=4)
tiny("BertBackbone", **TEXT, **HEADS, **LENGTH)
tiny("DebertaV3Backbone", **TEXT, **HEADS, **LENGTH, bucket_size=4)
tiny("DistilBertBackbone", **TEXT, **HEADS, **LENGTH)
tiny(
    "ElectraBackbone", vocab_size=TOKENS, num_layers=1, hidden_dim=8, embedding_dim=4, intermediate_dim=16, **HEADS, **LENGTH
)
tiny("ESMBackbone", **TEXT, **HEADS)
tiny("ESM2Backbone", **TEXT, **HEADS)
tiny("FNetBackbone", **TEXT, **LENGTH)
tiny("RobertaBackbone", **TEXT, **HEADS, **LENGTH)
tiny("RoformerV2Backbone", **TEXT, **HEADS, head_size=4)
tiny("XLMRobertaBackbone", **TEXT, **HEADS, **LENGTH)
tiny("XLNetBackbone", **TEXT, **HEADS)

# Decoders of texts.

EXPERTS = {"num_experts": 2, "top_k": 1}
SMOL = {
    "vocabulary_size": TOKENS,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "num_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True],
    "layer_types": ["attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 8,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 2,
}
QWEN_MOE = {**TEXT, **GROUPED, **EXPERTS, "moe_intermediate_dim": 8}

tiny("BloomBackbone", **TEXT, **HEADS)
tiny("FalconBackbone", **TEXT, num_attention_heads=2)
tiny("GPT2Backbone", **TEXT, **HEADS, **LENGTH)
tiny("GPTNeoXBackbone", **TEXT, **HEADS, **LENGTH, rotary_percentage=0.5)
tiny("GemmaBackbone", **TEXT, **GROUPED, head_dim=4)
tiny("Gemma3Backbone", **TEXT, **GROUPED, head_dim=4, image_size=16)
tiny("Gemma4Backbone", keep=("ffw_",), **TEXT, **GROUPED, head_dim=4, image_size=16)
tiny(
    "Gemma3nBackbone",
    text_vocab_size=TOKENS,
    text_hidden_size=4,
    num_hidden_layers=1,
    pad_token_id=0,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=4,
    intermediate_size=[8],
    hidden_activation="gelu_approximate",
    layer_types=["full_attention"],
    sliding_window=4,
    rope_theta=10000.0,
    max_position_embeddings=TOKENS,
    vocab_size_per_layer_input=TOKENS,
    hidden_size_per_layer_input=2,
    altup_num_inputs=2,
    laurel_rank=1,
)
tiny("GptOssBackbone", **TEXT, **GROUPED, **EXPERTS)
tiny("LlamaBackbone", **TEXT, **GROUPED)
tiny("Llama3Backbone", **TEXT, **GROUPED)
tiny("MistralBackbone", **TEXT, **GROUPED)
tiny("MixtralBackbone", **TEXT, **GROUPED, **EXPERTS)
tiny("OPTBackbone", **TEXT, **HEADS, **LENGTH)
tiny("Phi3Backbone", **TEXT, **GROUPED)
tiny("QwenBackbone", **TEXT, **GROUPED)
tiny("Qwen2Backbone", **TEXT, **GROUPED)
tiny("Qwen3Backbone", **TEXT, **GROUPED, head_dim=4)
tiny("QwenMoeBackbone", **QWEN_MOE, shared_expert_intermediate_dim=8)
tiny("Qwen3MoeBackbone", **QWEN_MOE, head_dim=4)
tiny("Qwen3_5Backbone", **{**TEXT, **LINEAR_ATTENTION, "num_layers": 2}, **GROUPED, head_dim=8)
tiny(
    "Qwen3_5MoeBackbone",
    vocabulary_size=TOKENS,
    num_layers=2,
    hidden_dim=8,
    head_dim=8,
    moe_intermediate_dim=8,
    shared_expert_intermediate_size=8,
    **GROUPED,
    **EXPERTS,
    **LINEAR_ATTENTION,
)
tiny(
    "RWKV7Backbone",
    sizes={"token_ids": (16,), "padding_mask": (16,)},
    vocabulary_size=TOKENS,
    hidden_size=8,
    num_layers=1,
    head_size=4,
    intermediate_dim=16,
    gate_lora=4,
    mv_lora=4,
    aaa_lora=4,
    decay_lora=4,
)
tiny("SmolLMBackbone", **SMOL)
tiny("SmolLM3Backbone", **SMOL)

# Encoders and decoders of texts and sounds.


def _both_ends(**settings):
    return {f"{end}_{name}": value for end in ("encoder", "decoder") for name, value in settings.items()}


T5GEMMA = _both_ends(
    hidden_dim=8,
    intermediate_dim=16,
    num_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
    layer_types=["full_attention"],
)

tiny("BartBackbone", **TEXT, **HEADS, **LENGTH)
tiny("EdRecBackbone", vocab_size=TOKENS, num_layers_enc=1, num_layers_dec=1, hidden_dim=8, intermediate_dim=16, **HEADS)
tiny("T5Backbone", **TEXT, **HEADS)
tiny("T5GemmaBackbone", vocabulary_size=TOKENS, cross_attention_hidden_size=8, **T5GEMMA)
tiny("T5Gemma2Backbone", vocabulary_size=TOKENS, cross_attention_hidden_size=8, **T5GEMMA)
tiny(
    "MoonshineBackbone",
    sizes={"encoder_input_values": (2000, 1), "encoder_padding_mask": (2000,)},
    vocabulary_size=TOKENS,
    filter_dim=8,
    hidden_dim=8,
    intermediate_dim=16,
    **_both_ends(num_layers=1, num_heads=2),
)
tiny(
    "WhisperBackbone",
    **TEXT,
    **HEADS,
    num_mels=4,
    max_encoder_sequence_length=8,
    max_decoder_sequence_length=TOKENS,
    sizes={"encoder_features": (8, 4)},
)

# Images.

VIT = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8}
IMAGE = {"image_shape": (16, 16, 3)}
MIX = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.0,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [4, 8],
}
HG = {
    "depths": [1, 1],
    "embedding_size": 8,
    "hidden_sizes": [16, 16],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [[8, 8, 16, 1, 1, 3], [16, 8, 16, 1, 1, 3]],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
    "out_features": ["stage1", "stage2"],
}


def resnet(blocks=2, **settings):
    """A residual network, also as a part of others."""
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64] * blocks,
        stackwise_num_blocks=[1] * blocks,
        stackwise_num_strides=[1] + [2] * (blocks - 1),
        block_type="basic_block",
        **settings,
    )


def _named(**makers):
    """A function that makes parts."""
    return lambda: {name: make() for name, make in makers.items()}


BACKBONES["ResNetBackbone"] = Tiny(lambda: resnet(**IMAGE))
tiny(
    "BASNetBackbone",
    unreached="conv1_conv",
    image_shape=(32, 32, 3),
    num_classes=1,
    parts=_named(image_encoder=lambda: resnet(4)),
)
tiny(
    "CSPNetBackbone",
    stem_filters=8,
    stem_kernel_size=3,
    stem_strides=1,
    stackwise_depth=[1, 1],
    stackwise_strides=2,
    stackwise_num_filters=[8, 8],
    block_type="dark_block",
    stage_type="csp",
    stem_padding="same",
    expand_ratio=[2.0],
    **IMAGE,
)
tiny(
    "DeepLabV3Backbone",
    spatial_pyramid_pooling_key="P3",
    low_level_feature_key="P2",
    projection_filters=4,
    upsampling_size=2,
    dilation_rates=[2],
    image_shape=(32, 32, 3),
    parts=_named(image_encoder=lambda: resnet(image_shape=(32, 32, 3))),
)
tiny("DINOV2Backbone", **VIT, **IMAGE, patch_size=4, intermediate_dim=16, position_embedding_shape=(16, 16, 3))
tiny("DINOV3Backbone", **VIT, **IMAGE, patch_size=4, intermediate_dim=16)
tiny("DeiTBackbone", **VIT, **IMAGE, patch_size=4, intermediate_dim=16)
tiny("DenseNetBackbone", stackwise_num_repeats=[1, 1], growth_rate=2, **IMAGE)
tiny(
    "DepthAnythingBackbone",
    unreached="fusion_stage_0/residual_layer1",
    reassemble_factors=[2, 1],
    neck_hidden_dims=[4, 8],
    fusion_hidden_dim=8,
    head_hidden_dim=4,
    head_in_index=-1,
    feature_keys=["stage1", "stage2"],
    parts=_named(
        image_encoder=lambda: models.DINOV2Backbone(
            4,
            2,
            8,
            2,
            16,
            1.0,
            0,
            image_shape=(16, 16, 3),
            position_embedding_shape=(16, 16, 3),
            apply_layernorm=True,
            name="image_encoder",
        )
    ),
)
tiny(
    "EfficientNetBackbone",
    keep=("block1a_se_",),
    stackwise_kernel_sizes=[3, 3],
    stackwise_num_repeats=[1, 1],
    stackwise_input_filters=[8, 8],
    stackwise_output_filters=[8, 8],
    stackwise_expansion_ratios=[1, 2],
    stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
    stackwise_strides=[1, 2],
    stackwise_block_types=["fused", "unfused"],
    stackwise_force_input_filters=[0, 0],
    stackwise_nores_option=[False, False],
    width_coefficient=1.0,
    depth_coefficient=1.0,
    input_shape=(16, 16, 3),
)
tiny("HGNetV2Backbone", **HG, **IMAGE)
tiny("MiTBackbone", **MIX, image_shape=(32, 32, 3))
tiny(
    "MobileNetBackbone",
    stackwise_expansion=[[8, 8]],
    stackwise_num_blocks=[2],
    stackwise_num_filters=[[8, 8]],
    stackwise_kernel_size=[[3, 3]],
    stackwise_num_strides=[[2, 1]],
    stackwise_se_ratio=[[0.25, None]],
    stackwise_activation=[["relu", "relu"]],
    stackwise_padding=[[1, 1]],
    output_num_filters=8,
    depthwise_filters=8,
    depthwise_stride=2,
    depthwise_residual=False,
    last_layer_filter=8,
    squeeze_and_excite=0.5,
    input_num_filters=8,
    **IMAGE,
)
tiny(
    "MobileNetV5Backbone",
    stackwise_block_types=[["er"], ["uir"]],
    stackwise_num_blocks=[1, 1],
    stackwise_num_filters=[[8], [8]],
    stackwise_strides=[[2], [2]],
    stackwise_act_layers=[["relu"], ["relu"]],
    stackwise_exp_ratios=[[2.0], [2.0]],
    stackwise_se_ratios=[[0.0], [0.0]],
    stackwise_dw_kernel_sizes=[[0], [5]],
    stackwise_dw_start_kernel_sizes=[[0], [0]],
    stackwise_dw_end_kernel_sizes=[[0], [0]],
    stackwise_exp_kernel_sizes=[[3], [0]],
    stackwise_pw_kernel_sizes=[[1], [0]],
    stackwise_num_heads=[[0], [0]],
    stackwise_key_dims=[[0], [0]],
    stackwise_value_dims=[[0], [0]],
    stackwise_kv_strides=[[0], [0]],
    stackwise_use_cpe=[[False], [False]],
    stem_size=8,
    use_msfa=False,
    **IMAGE,
)
tiny(
    "RetinaNetBackbone",
    min_level=3,
    max_level=5,
    use_p5=True,
    image_shape=(32, 32, 3),
    parts=_named(image_encoder=lambda: resnet(4, image_shape=(32, 32, 3))),
)
tiny(
    "SegFormerBackbone",
    projection_filters=8,
    parts=_named(image_encoder=lambda: models.MiTBackbone(**MIX, image_shape=(32, 32, 3))),
)
tiny(
    "SwinTransformerBackbone",
    image_shape=(16, 16, 3),
    embed_dim=8,
    depths=(1, 1),
    num_heads=(2, 2),
    window_size=2,
    patch_size=4,
    drop_path=0.0,
)
tiny("VGGBackbone", stackwise_num_repeats=[1, 1], stackwise_num_filters=[4, 8], **IMAGE)
tiny("ViTBackbone", **VIT, **IMAGE, patch_size=4, mlp_dim=16)
tiny(
    "ViTDetBackbone",
    hidden_size=4,
    num_layers=2,
    intermediate_dim=16,
    num_heads=2,
    global_attention_layer_indices=[1],
    patch_size=2,
    num_output_channels=2,
    window_size=2,
    **IMAGE,
)
tiny(
    "VideoPrismBackbone",
    num_frames=2,
    patch_size=4,
    intermediate_dim=16,
    num_spatial_layers=1,
    num_temporal_layers=1,
    num_auxiliary_layers=1,
    num_heads=2,
    hidden_dim=8,
    vocabulary_size=TOKENS,
    num_text_layers=1,
    **IMAGE,
)
tiny("XceptionBackbone", stackwise_conv_filters=[[4, 8], [8, 8]], stackwise_pooling=[False, True], image_shape=(32, 32, 3))

# Images with boxes, texts or noise.


def _sam3(name, **settings):
    return lambda: getattr(layers, f"SAM3{name}")(**{"hidden_dim": 8, "num_heads": 2, **settings})


SAM3_LAYERS = {"num_layers": 1, "intermediate_dim": 16}
SAM3_IMAGE = {"image_shape": (28, 28, 3), "patch_size": 14}


def _clip(vision, text):
    """The two towers of CLIP and its relatives."""
    return _named(
        vision_encoder=lambda: vision(4, 8, 1, 2, 16, image_shape=(16, 16, 3), name="vision_encoder"),
        text_encoder=lambda: text(TOKENS, 8, 8, 1, 2, 16, max_sequence_length=TOKENS, name="text_encoder"),
    )


def _clip_text(width, activation, name):
    return lambda: CLIPTextEncoder(TOKENS, width, width, 2, 2, 2 * width, activation, -2, TOKENS, name=name)


tiny("CLIPBackbone", projection_dim=8, parts=_clip(CLIPVisionEncoder, CLIPTextEncoder))
tiny("MetaCLIP2Backbone", projection_dim=8, parts=_clip(MetaCLIP2VisionEncoder, MetaCLIP2TextEncoder))
tiny("SigLIPBackbone", parts=_clip(SigLIPVisionEncoder, SigLIPTextEncoder))
tiny(
    "BLIP2Backbone",
    parts=_named(
        vision_encoder=lambda: BLIP2VisionEncoder(
            image_size=16,
            patch_size=4,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            dropout_rate=0.0,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
            dtype="float32",
        ),
        qformer=lambda: BLIP2QFormer(
            num_query_tokens=2,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            vision_dim=8,
            cross_attention_frequency=1,
            dropout=0.0,
            layer_norm_epsilon=1e-6,
            dtype="float32",
        ),
        language_model=lambda: BLIP2CustomOPT(
            **TEXT,
            **HEADS,
            num_query_tokens=2,
            qformer_hidden_dim=8,
            max_sequence_length=10,
            dropout=0.0,
            language_projection=None,
            dtype="float32",
        ),
    ),
)
tiny(
    "DFineBackbone",
    decoder_in_channels=[8, 8],
    encoder_hidden_dim=8,
    num_labels=4,
    num_denoising=0,
    learn_initial_query=False,
    num_queries=4,
    anchor_image_size=(32, 32),
    feat_strides=[4, 8],
    num_feature_levels=2,
    hidden_dim=8,
    encoder_in_channels=[16, 16],
    encode_proj_layers=[1],
    num_attention_heads=2,
    encoder_ffn_dim=16,
    num_encoder_layers=1,
    hidden_expansion=0.5,
    depth_multiplier=0.5,
    eval_idx=-1,
    num_decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=16,
    decoder_n_points=[2, 2],
    lqe_hidden_dim=8,
    num_lqe_layers=2,
    out_features=["stage1", "stage2"],
    image_shape=(32, 32, 3),
    seed=0,
    parts=_named(backbone=lambda: models.HGNetV2Backbone(**HG, image_shape=(32, 32, 3))),
)
tiny(
    "FluxBackbone",
    input_channels=8,
    hidden_size=24,
    mlp_ratio=2.0,
    num_heads=2,
    depth=1,
    depth_single_blocks=1,
    axes_dim=[4, 4, 4],
    theta=10000,
    use_bias=True,
    guidance_embed=True,
    image_shape=(4, 8),
    text_shape=(4, 8),
    image_ids_shape=(4, 3),
    text_ids_shape=(4, 3),
    y_shape=(8,),
)
tiny(
    "PARSeqBackbone",
    vocabulary_size=TOKENS,
    max_label_length=TOKENS,
    decoder_hidden_dim=8,
    num_decoder_layers=1,
    num_decoder_heads=2,
    decoder_mlp_dim=16,
    parts=_named(image_encoder=lambda: models.ViTBackbone(**VIT, **IMAGE, patch_size=4, mlp_dim=16, use_class_token=False)),
)
tiny(
    "PaliGemmaBackbone",
    **TEXT,
    **GROUPED,
    head_dim=4,
    image_size=16,
    vit_patch_size=8,
    vit_num_layers=1,
    vit_num_heads=2,
    vit_hidden_dim=8,
    vit_intermediate_dim=16,
)
tiny(
    "SAMBackbone",
    unreached="mask_downscaler",
    keep=(r"^dense_\d+$",),  # its mask decoder, which a task calls
    inputs={"masks": np.zeros((2, 0, 16, 16, 1), "float32")},
    sizes={"points": (1, 2), "labels": (1,), "boxes": (1, 2, 2)},
    parts=_named(
        image_encoder=lambda: models.ViTDetBackbone(
            hidden_size=8,
            num_layers=1,
            intermediate_dim=16,
            num_heads=2,
            global_attention_layer_indices=[0],
            patch_size=4,
            num_output_channels=8,
            window_size=2,
            image_shape=(16, 16, 3),
        ),
        prompt_encoder=lambda: layers.SAMPromptEncoder(
            hidden_size=8, image_embedding_size=(4, 4), input_image_size=(16, 16), mask_in_channels=4
        ),
        mask_decoder=lambda: layers.SAMMaskDecoder(
            num_layers=1,
            hidden_size=8,
            intermediate_dim=16,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=2,
            iou_head_hidden_dim=8,
        ),
    ),
)
tiny(
    "SAM3PromptableConceptBackbone",
    keep=("conv_layer_2$",),
    sizes={"boxes": (1, 5)},
    inputs={"box_labels": np.ones((2, 1), "int32")},
    parts=_named(
        vision_encoder=_sam3(
            "VisionEncoder",
            **SAM3_IMAGE,
            **SAM3_LAYERS,
            fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[0],
        ),
        text_encoder=_sam3("TextEncoder", **SAM3_LAYERS, vocabulary_size=TOKENS, embedding_dim=8),
        geometry_encoder=_sam3("GeometryEncoder", **SAM3_LAYERS, roi_size=2),
        detr_encoder=_sam3("DetrEncoder", **SAM3_LAYERS),
        detr_decoder=_sam3("DetrDecoder", **SAM3_LAYERS, **SAM3_IMAGE, num_queries=4),
        mask_decoder=_sam3("MaskDecoder", num_upsampling_stages=3),
    ),
)
tiny(
    "StableDiffusion3Backbone",
    inputs={"num_steps": np.ones(2, "int32")},
    mmdit_patch_size=2,
    mmdit_hidden_dim=16,
    mmdit_num_layers=1,
    mmdit_num_heads=2,
    mmdit_position_size=8,
    mmdit_qk_norm=None,
    mmdit_dual_attention_indices=None,
    image_shape=(16, 16, 3),
    parts=_named(
        vae=lambda: VAEBackbone([32, 32], [1, 1], [32, 32], [1, 1], sampler_method="mode", name="vae"),
        clip_l=_clip_text(8, "quick_gelu", "clip_l"),
        clip_g=_clip_text(8, "gelu", "clip_g"),
    ),
)


def names():
    """All backbones that KerasHub exports."""
    return [name for name in dir(keras_hub.models) if name.endswith("Backbone")]


# Tasks that generate texts.

VOCABULARY = 64
SIZES = {**TEXT, "vocabulary_size": VOCABULARY}
GENERATORS = {
    "GPT2CausalLM": lambda: models.GPT2Backbone(**SIZES, **HEADS, max_sequence_length=12),
    "Llama3CausalLM": lambda: models.Llama3Backbone(**SIZES, **GROUPED),
    "GemmaCausalLM": lambda: models.GemmaBackbone(**SIZES, **GROUPED, head_dim=4),
    "BartSeq2SeqLM": lambda: models.BartBackbone(**SIZES, **HEADS, max_sequence_length=12),
}
"""Names of tasks and what makes their backbones."""


def generator(name):
    """A task with weights so large that texts depend on the prompt."""
    model = getattr(models, name)(GENERATORS[name](), preprocessor=None)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(random.normal(scale=0.5, size=variable.shape))
    return greedy(model)


def greedy(model):
    """A task that takes the likeliest token."""
    model.compile(sampler="greedy", jit_compile=False)
    return model


def generate(model):
    """Texts for four prompts of three tokens."""
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (4, 12)).astype("int32")
    text = {"token_ids": tokens, "padding_mask": np.tile(np.arange(12) < 3, (4, 1)).astype("int32")}
    if "encoder_token_ids" in model.input:
        text = {f"decoder_{name}": values for name, values in text.items()}
        text |= {"encoder_token_ids": tokens, "encoder_padding_mask": np.ones_like(tokens)}
    texts = model.generate(text, stop_token_ids=None)
    return next(np.array(values) for name, values in texts.items() if name in ("token_ids", "decoder_token_ids"))
