"""`keras-lrsched study`: a model and data of a module, from the command line to the report."""

import sys

import pytest

from keras_lrsched import cli
from tests.nightly import nightly

MODULE = """
import keras
import numpy as np

numbers = np.random.default_rng(0)
x = numbers.normal(size=(96, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)
train, validation = (x[:64], y[:64]), (x[64:], y[64:])


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
"""
OPTIONS = "--train {0}:train --validation {0}:validation --loss mse --budget 20 --seeds 2 --learning-rates 0.1"


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"module_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def fails(capsys):
    """A function that returns the one line on stderr of a command that fails, before anything is written."""

    def run(*words):
        assert cli.main(["study", *words]) == 2
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == 1
        return captured.err

    return run


def words(module, extra=""):
    return [f"{module}:build", *OPTIONS.format(module).split(), *extra.split()]


def test_a_study_is_run_reported_shown_and_not_run_again(module, tmp_path, capsys):
    assert cli.main(["study", *words(module, "--schedules constant,linear -o s")]) == 0
    out = capsys.readouterr().out
    assert "Report: s/report.html" in out
    assert (tmp_path / "s" / "report.html").exists()
    lines = (tmp_path / "s" / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 2
    assert cli.main(["study", "show", "s"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# ")
    assert shown in out
    assert cli.main(["study", *words(module, "--schedules constant,linear -o s")]) == 0
    assert (tmp_path / "s" / "runs.jsonl").read_text().splitlines() == lines
    assert cli.main(["study", "--score", "s", "s"]) == 0
    assert "adamw, " in capsys.readouterr().out


@nightly
def test_a_folder_of_other_settings_is_refused(module, fails, capsys):
    assert cli.main(["study", *words(module, "--schedules constant -o s --seeds 1")]) == 0
    capsys.readouterr()
    message = fails(*words(module, "--schedules constant -o s --seeds 1 --budget 10"))
    assert "Received: budget=10, there budget=20" in message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Give MODULE:FUNCTION"),
        (["show"], "Give the folder of a study"),
        (["show", "nowhere"], "There is no folder 'nowhere'"),
        (["m:build", "extra"], "There is nothing to do with 'extra'"),
        (["m:build", "--schedules", "rx"], "Did you mean rex?"),
        (["m:build", "--optimizers", "lyon"], "Did you mean lion?"),
        (["m:build"], "--train is missing"),
        (["m:build", "--train", "m:a", "--validation", "m:b"], "Give --budget"),
        (["build", "--train", "m:a", "--validation", "m:b", "--budget", "3"], "MODULE:FUNCTION must be MODULE:NAME"),
        (["no_such_module:b", "--train", "m:a", "--validation", "m:b", "--budget", "3"], "No module named 'no_such_module'"),
        (["os:build", "--train", "m:a", "--validation", "m:b", "--budget", "3"], "the module 'os' has no 'build'"),
        (["m:build", "--score", "a"], "--score takes the folders"),
    ],
)
def test_mistakes_end_in_one_line(given, message, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(*given)
    assert not [*tmp_path.iterdir()]


@nightly
def test_a_recommendation(module, capsys):
    pytest.importorskip("sklearn")
    extra = "--schedules constant,linear --budget 400 --budget-fraction 0.5"
    command = ["study", "recommend", *words(module, extra)]
    command[command.index("--learning-rates") + 1] = "tuned"
    assert cli.main(command) == 0
    assert "adamw" in capsys.readouterr().out
