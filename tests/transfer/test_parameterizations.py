"""Reference numbers, and the rules against each other and against networks of numbers."""

import numpy as np
import pytest

from keras_lrsched.optimizers.multipliers import mup_multiplier
from keras_lrsched.transfer import exponents, unit_scaled_residuals, width_multipliers
from keras_lrsched.transfer.parameterizations import depth_multipliers, muon_multiplier

REFERENCE = {
    ("standard", "adam"): (0, 1, 1),
    ("ntk", "adam"): (0, 0.5, 0.5),
    ("mup", "adam"): (0.5, 1, 0.5),
    ("mean_field", "adam"): (0, 0.5, 0),
    ("standard", "sgd"): (-0.5, 0.5, 1),
    ("ntk", "sgd"): (-0.5, -0.5, 0),
    ("mup", "sgd"): (0, 0, 0),
    ("mean_field", "sgd"): (-1, -1, -1),
    ("standard", "adafactor"): (0, 0.5, 0.5),
    ("ntk", "adafactor"): (0, 0.5, 0.5),
    ("mup", "adafactor"): (0, 0.5, 0),
    ("mean_field", "adafactor"): (0, 0.5, 0),
}


@pytest.mark.parametrize(("rule", "family"), REFERENCE)
def test_exponents(rule, family):
    embedding, hidden, output = REFERENCE[rule, family]
    assert exponents(rule, family) == pytest.approx((embedding, hidden, output))
    assert exponents(rule, family, alignment="none") == pytest.approx((embedding, hidden - 0.5, output - 0.5))


@pytest.mark.parametrize("family", ["adam", "sgd"])
def test_rates_are_those_of_mup_with_its_multiplier_in_the_kernel(family):
    shapes = {"input": ((10, 64), (10, 256)), "hidden": ((64, 32), (256, 64)), "output": ((64, 5), (256, 5))}
    for kind, (base, shape) in shapes.items():
        inputs, outputs = (new / old for old, new in zip(base, shape, strict=True))
        rate = width_multipliers(kind, inputs, outputs, family=family).learning_rate
        multiplier = 1 / inputs if kind == "output" else 1
        assert rate / multiplier ** (1 if family == "adam" else 2) == pytest.approx(mup_multiplier(base, shape, family))


def test_initial_values():
    assert [width_multipliers(kind, 4, 4).initial for kind in ("input", "vector", "hidden", "output")] == [1, 1, 0.5, 0.25]
    assert width_multipliers("output", 4, 1, rule="standard").initial == 0.5


@pytest.mark.parametrize(("one", "other"), [("mup", "mean_field"), ("standard", "ntk")])
@pytest.mark.parametrize("family", ["adam", "sgd", "adafactor"])
def test_parameterizations_of_equal_output_powers_are_one(one, other, family):
    for kind in ("input", "vector", "hidden", "output"):
        assert width_multipliers(kind, 3, 5, one, family) == width_multipliers(kind, 3, 5, other, family)


def test_depth():
    """The numbers of CompleteP and Depth-muP at 8 times the depth, beside a width of 4 times the base's."""
    complete, root = depth_multipliers(8, 1.0), depth_multipliers(8, 0.5)
    hidden = width_multipliers("hidden", 4, 4).learning_rate
    assert (complete.branch, hidden * complete.learning_rate, complete.learning_rate) == (0.125, 0.25, 1)
    assert 1e-12 / 4 * complete.epsilon == pytest.approx(3.125e-14)
    assert (root.branch, hidden * root.learning_rate) == pytest.approx((0.353553391, 0.0883883476))
    assert root.learning_rate == pytest.approx(0.353553391)
    assert 1e-12 / 4 * root.epsilon == pytest.approx(8.83883476e-14)
    assert depth_multipliers(8, 0.5, "sgd").learning_rate == 1


def test_sgd_on_many_branches_changes_the_output_equally():
    """Of a chain x + c w x of numbers, whose gradient is c x times that of the output: one step of each w."""
    for power in (0.5, 1.0):
        changes = []
        for branches in (16, 256):
            factors = depth_multipliers(branches, power, "sgd")
            step = 1e-3 * factors.learning_rate * factors.branch  # of each w, at w = 0
            changes.append((1 + factors.branch * step) ** branches - 1)
        assert changes[0] == pytest.approx(changes[1], rel=1e-2)


def test_muon():
    assert muon_multiplier((64, 64), (256, 256), 1, 1) == 1  # "original" and "spectral_norm"
    assert muon_multiplier((64, 64), (256, 256), 0.2 * 8, 0.2 * 16) == 0.5
    assert muon_multiplier((10, 64), (10, 256), 0.2 * 8, 0.2 * 16) == 1


@pytest.mark.parametrize(("multiplier", "ratio"), [(1.0, 1.0), (0.5, 2.0)])
def test_unit_scaled_residuals(multiplier, ratio):
    residuals = unit_scaled_residuals(6, multiplier, ratio)
    feed_forward = multiplier * np.sqrt(2 / (1 + ratio**2))
    a = np.array([ratio * feed_forward, feed_forward] * 3)
    tau = [a[i] / np.sqrt(3 + np.sum(a[:i] ** 2)) for i in range(6)]  # transformer_residual_scaling_rule
    assert [each.branch / each.skip for each in residuals] == pytest.approx(tau)
    assert [each.branch**2 + each.skip**2 for each in residuals] == pytest.approx(np.ones(6))
    stream, unscaled = np.array([1.0, *np.zeros(6)]), np.array([1.0, *np.zeros(6)])  # the share of each branch in the sum
    for i, each in enumerate(residuals):
        stream *= each.skip
        stream[i + 1] = each.branch
        unscaled[i + 1] = a[i] / np.sqrt(3)
    assert stream / stream[0] == pytest.approx(unscaled)


def test_arguments():
    with pytest.raises(ValueError, match=r"`kind` must be one of 'input', .*Received: kind='bias'"):
        width_multipliers("bias", 1, 1)
    with pytest.raises(ValueError, match=r"`rule` must be one of 'mup', .*Received: rule='sp'"):
        width_multipliers("hidden", 1, 1, rule="sp")
    with pytest.raises(ValueError, match=r"`family` must be one of"):
        exponents(family="muon")
    with pytest.raises(ValueError, match=r"`alignment` must be one of 'full', 'none'"):
        exponents(alignment="half")
    with pytest.raises(ValueError, match=r"`inputs` must be a positive number. Received: inputs=0"):
        width_multipliers("hidden", 0, 1)
    with pytest.raises(ValueError, match=r"`branches` must be a positive integer"):
        unit_scaled_residuals(0)
    with pytest.raises(ValueError, match=r"`residual_attention_ratio` must be a positive number"):
        unit_scaled_residuals(2, residual_attention_ratio=0)
