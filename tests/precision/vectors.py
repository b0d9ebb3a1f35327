"""Reference values for formats: inputs and results of pytorch/ao, microxcaling, TransformerEngine, QuEST and MS-AMP."""

import json
from pathlib import Path

import numpy as np

VECTORS = json.loads((Path(__file__).parents[1] / "contract" / "lowprec_vectors.json").read_text())
MX_NAMES = {
    "fp4_e2m1": "MXFP4",
    "fp8_e4m3": "MXFP8_E4M3",
    "fp8_e5m2": "MXFP8_E5M2",
    "fp6_e2m3": "MXFP6_E2M3",
    "fp6_e3m2": "MXFP6_E3M2",
    "int8": "MXINT8",
}
MX_CASES = [
    (case["name"], vector_format, rule)
    for case in VECTORS["mx"]
    for vector_format, results in case["formats"].items()
    for rule in ("floor", "rceil")
    if f"out_{rule}" in results
]
NVFP4_RESULTS = {"NVFP4": "out_te_1d", "NVFP4_2D": "out_te_2d", "NVFP4_FOUR_OVER_SIX": "out_te_4over6_MAE_max256"}
NVFP4_CASES = [(case["name"], name) for case in VECTORS["nvfp4"] for name, key in NVFP4_RESULTS.items() if key in case]


def case_of(group, name):
    return next(case for case in VECTORS[group] if case["name"] == name)


def numbers(values):
    return np.array([float(value) for value in values], "float32")


def input_of(case):
    if "input_hex" not in case:
        return numbers(case["input"])
    return np.array([int(word, 16) if isinstance(word, str) else word for word in case["input_hex"]], "uint32").view(
        "float32"
    )


def assert_same_bits(values, expected):
    """Equal bit for bit, and NaN where NaN is expected."""
    values, expected = np.asarray(values), np.asarray(expected)
    same = (values.view("uint32") == expected.view("uint32")) | (np.isnan(values) & np.isnan(expected))
    assert same.all(), (values[~same][:5], expected[~same][:5])
