"""The table of results: verdicts, and the way through a file."""

import pytest

from keras_lrsched.workloads import claims
from keras_lrsched.workloads.claims import Claim


def claim(*advantages, **options):
    return Claim("REX beats cosine", "2107.04197", "7 settings", "loss, cosine - REX", "digits", advantages, **options)


@pytest.mark.parametrize(
    ("advantages", "margin", "verdict"),
    [
        ((0.1, 0.2), 0, "agrees"),
        ((-0.1, 0.2), 0, "weaker"),
        ((0.1, -0.2), 0, "does not show at this scale"),
        ((0.0, 0.0), 0, "does not show at this scale"),
        ((-0.1, 0.2), 0.15, "agrees"),
    ],
)
def test_verdict(advantages, margin, verdict):
    assert claim(*advantages, margin=margin).verdict == verdict


def test_through_a_file(tmp_path):
    held = [claim(0.1, 0.25, 1e-7), claim(-0.5, margin=0.01)]
    claims.save(held, tmp_path / "claims.csv")
    assert claims.load(tmp_path / "claims.csv") == held


def test_markdown():
    lines = claims.markdown([claim(0.1, 0.3)]).splitlines()
    assert len(lines) == 3
    assert "+0.2 ± 0.14" in lines[2]
    assert lines[2].endswith("| 2 | agrees |")


def test_bad_input():
    with pytest.raises(ValueError, match="a number a seed"):
        claim()
    with pytest.raises(ValueError, match="margin=-1"):
        claim(0.1, margin=-1)
