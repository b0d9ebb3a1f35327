"""The Optuna part of the page on searches runs as it is written there; the parts for Ray are like tests/tune/test_ray.py."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "search.md"


def test_optuna():
    optuna = pytest.importorskip("optuna", reason="needs Optuna: pip install optuna")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (block,) = [block for block in blocks if "import optuna" in block]
    names: dict = {}
    exec(compile(block, str(PAGE), "exec"), names)
    study = names["study"]
    assert len(study.trials) == 6
    assert {trial.state for trial in study.trials} <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    assert study.best_value < 0.6


def test_code_for_ray_compiles():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        compile(block, str(PAGE), "exec")
    assert sum("keras_lrsched.tune" in block for block in blocks) == 2
