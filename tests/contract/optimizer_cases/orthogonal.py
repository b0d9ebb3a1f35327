"""Muon, NorMuon."""

from keras_lrsched._core import registry
from keras_lrsched.optimizers import Muon, NorMuon

from . import Case, Trajectory

ORIGINAL = registry.find("optimizers", "muon").options
MUON = {**ORIGINAL, "learning_rate": 0.02, "weight_decay": 0.01, "adam_weight_decay": 0.01}
DION = {**MUON, "orthogonalize": "polar_express", "adjust_lr": "spectral_norm"}
MATRIX = {"variables": ("kernel",), "transposed": True}
BAD = (
    {"momentum": 1},
    {"ns_steps": 0},
    {"ns_dtype": "float16"},
    {"adjust_lr": "rms"},
    {"exclude_layers": "bias"},
    {"muon_a": None},
    {"rms_rate": 0},
    {"adam_weight_decay": -0.1},
    {"input_axes": ["kernel"]},
    {"adam_lr_ratio": 0},
    {"adam_beta_1": 1},
    {"adam_beta_2": None},
    {"epsilon": -1},
    {"orthogonalize": "svd"},
    {"orthogonalize": [(1.0, 2.0)]},
    {"blocks": ["kernel"]},
)

CASES = [
    Case(
        Muon,
        (
            Trajectory("muon_patched_fp64NS", MUON, **MATRIX),
            Trajectory("muon_keras", MUON, **MATRIX),
            Trajectory("muon_keras_rms", {**MUON, "adjust_lr": "match_rms_adamw"}, **MATRIX),
            Trajectory("muon_torch_adamw", {**MUON, "exclude_layers": ["kernel"]}),
            Trajectory("muon_polar_express", DION, **MATRIX),
            Trajectory("muon_per_head", {**DION, "blocks": {"kernel": 3}}, rtol=3e-6, **MATRIX),
            Trajectory("muon_split_sizes", {**DION, "blocks": {"kernel": [1, 2]}}, **MATRIX),
            Trajectory(
                "muon_quintic5",
                {**DION, "orthogonalize": "quintic", "adjust_lr": "match_rms_adamw", "rms_rate": None},
                **MATRIX,
            ),
            Trajectory(
                "muon_nvidia_moonshot", {**MUON, "orthogonalize": "quintic", "adjust_lr": "match_rms_adamw"}, **MATRIX
            ),
        ),
        options={**ORIGINAL, "learning_rate": 0.01, "adam_lr_ratio": 1.0},
        digits_rate=3e-2,
        state_bytes=4,
        differs={"test_weight_decay_and_its_exclusion": "AdamW has a weight decay of its own; test_muon.py has the test"},
        bad=BAD,
    ),
    Case(
        NorMuon,
        (
            Trajectory("normuon_patched_fp64NS", MUON, **MATRIX),
            Trajectory("normuon_paperform_own", {**MUON, "nesterov": False, "adjust_lr": "match_rms_adamw"}, **MATRIX),
        ),
        options={"learning_rate": 0.01, "adam_lr_ratio": 1.0},
        digits_rate=3e-2,
        state_bytes=4 + 32 * 4 / (64 * 32),
        bad=(*BAD, {"beta_2": 1}, {"beta_2": None}),
    ),
]
