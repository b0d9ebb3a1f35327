"""The table of results: verdicts, and the way through a file."""

import sys
import types

import pytest

from keras_lrsched.study import claims
from keras_lrsched.study.claims import Claim


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


@pytest.mark.parametrize(
    "text", ["claim,margin\nx,0\n", "claim,source,paper,measure,workload,advantages,margin\na,b,c,d,e,f,g\n"]
)
def test_a_file_of_something_else(text, tmp_path):
    (tmp_path / "claims.csv").write_text(text)
    with pytest.raises(ValueError, match=r"holds no claims: .*Received: path="):
        claims.load(tmp_path / "claims.csv")


def test_markdown():
    lines = claims.markdown([claim(0.1, 0.3)]).splitlines()
    assert len(lines) == 3
    assert "+0.2 ± 0.14" in lines[2]
    assert lines[2].endswith("| 2 | agrees |")


def test_show_displays_markdown_in_a_notebook(monkeypatch, capsys):
    claims.show([claim(0.1, 0.3)])
    assert capsys.readouterr().out == claims.markdown([claim(0.1, 0.3)]) + "\n"
    shown = []
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: "a running notebook"
    ipython.display = types.SimpleNamespace(display=shown.append, Markdown=lambda text: ("Markdown", text))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    claims.show([claim(0.1, 0.3)])
    assert shown == [("Markdown", claims.markdown([claim(0.1, 0.3)]))]
    assert not capsys.readouterr().out


def test_bad_input():
    for bad in ((), (0.1, float("nan"))):
        with pytest.raises(ValueError, match=r"a number a seed. Received: advantages="):
            claim(*bad)
    with pytest.raises(ValueError, match="margin=-1"):
        claim(0.1, margin=-1)
