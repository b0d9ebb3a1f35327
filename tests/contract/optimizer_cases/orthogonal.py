"""Muon, NorMuon, Scion, Dion, Dion2."""

import numpy as np
from keras import ops

from keras_lrsched._core import registry
from keras_lrsched.optimizers import Dion, Dion2, Muon, NorMuon, Scion

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

SCION = {"learning_rate": 0.01, "momentum": 0.1, "scale": 2.0}


def scion(run, norm=None, variables=("kernel",), transposed=True, **options):
    """A run of the authors' code; it has embeddings as (tokens, size), as here, where `transpose` is set there."""
    norms = {} if norm is None else {"norms": {"kernel": norm}}
    return Trajectory(run, {**SCION, **norms, **options}, variables=variables, transposed=transposed)


def with_basis_of_the_reference(optimizer, t, run):
    """The random numbers of the official run."""
    optimizer.first_basis = lambda shape, ctx: ops.convert_to_tensor(np.array(run["meta"]["Q0"]), "float32")


def dion(run, **options):
    return Trajectory(run, {"learning_rate": 0.02, **options}, before_update=with_basis_of_the_reference, **MATRIX)


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
    Case(
        Scion,
        (
            scion("scion_spectral"),
            scion("scion_auto_fp64NS", variables=("kernel", "bias")),
            scion("scion_spectral_max_unconstrained", {"norm": "spectral", "max": True}, constrained=False),
            scion("scion_spectral_unnormalized", {"norm": "spectral", "normalized": False}),
            scion("scion_sign_constrained", "sign", scale=20.0),
            scion("scion_sign_unnormalized", {"norm": "sign", "normalized": False}),
            scion("scion_colnorm_transpose", "column", transposed=False),
            scion("scion_colnorm_normalized", {"norm": "column", "normalized": True}),
            scion("scion_rownorm_unnormalized", {"norm": "row", "normalized": False}),
            scion("scion_rownorm_transpose", "row", transposed=False),
            scion("scion_biasrms", variables=("bias",), transposed=False),
        ),
        options={"learning_rate": 0.01, "momentum": 0.1, "scale": 10.0},
        digits_rate=3e-3,
        state_bytes=4,
        bad=(
            {"momentum": 0},
            {"momentum": 1.5},
            {"scale": 0},
            {"norms": ["kernel"]},
        ),
    ),
    Case(
        Dion,
        (dion("dion_official_r2", rank=2), dion("dion_official_fullrank", rank=3, weight_decay=None)),
        options={"learning_rate": 0.01},
        digits_rate=1e-2,
        state_bytes=4 + 64 * 8 * 4 / (64 * 32),
        differs={"test_weight_decay_and_its_exclusion": "AdamW has a weight decay of its own, as in Muon"},
        bad=(
            {"rank": 0},
            {"rank": 1.5},
            {"momentum": 1},
            {"adam_lr_ratio": 0},
            {"adam_beta_1": 1},
            {"adam_beta_2": None},
            {"epsilon": -1},
            {"adam_weight_decay": -0.1},
            {"seed": -1},
            {"exclude_layers": "bias"},
            {"input_axes": ["kernel"]},
        ),
    ),
    Case(
        Dion2,
        (
            Trajectory("dion2_official", {"learning_rate": 0.02, "fraction": 0.5}, **MATRIX),
            Trajectory(
                "dion2_official_rms_quarter",
                {"learning_rate": 0.02, "fraction": 0.25, "ef_decay": 0.9, "adjust_lr": "match_rms_adamw"},
                **MATRIX,
            ),
        ),
        options={"learning_rate": 0.01},
        digits_rate=3e-2,
        state_bytes=4,
        differs={"test_weight_decay_and_its_exclusion": "AdamW has a weight decay of its own, as in Muon"},
        bad=(
            {"fraction": 0},
            {"ef_decay": 1},
            {"adjust_lr": "original"},
            {"adam_lr_ratio": 0},
            {"adam_beta_1": 1},
            {"adam_beta_2": None},
            {"epsilon": -1},
            {"adam_weight_decay": -0.1},
            {"exclude_layers": "bias"},
            {"input_axes": ["kernel"]},
        ),
    ),
]
