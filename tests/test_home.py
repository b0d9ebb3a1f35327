"""Every path that a user gives may begin with `~`."""

import numpy as np
import pytest

from keras_lrsched import cli, schedules
from keras_lrsched.callbacks import GradientNormRecorder, LearningRateLogger, LossRecorder, TrainingState
from keras_lrsched.laws import ConvexBound, Law, LossCurve
from keras_lrsched.schedules import RefinedSchedule, Tabulated
from keras_lrsched.study import claims
from keras_lrsched.tune import Policy


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_schedules(home):
    Tabulated([0.1, 0.2]).save("~/t.json")
    assert (home / "t.json").exists()
    assert Tabulated.load("~/t.json").total_steps == 2
    assert schedules.get("file:~/t.json", 1.0, 2).total_steps == 2
    np.savez(home / "norms.npz", gradient_norm=[1.0, 2.0, 3.0])
    assert RefinedSchedule.from_run("~/norms.npz")


def test_laws(home):
    curve = LossCurve(np.array([3.0, 2.0, 1.5]), np.full(3, 0.1))
    curve.save("~/c.npz")
    assert (home / "c.npz").exists()
    assert len(LossCurve.load("~/c.npz").loss) == len(LossCurve.read("~/c.npz").loss) == 3


def test_a_law(home):
    law = ConvexBound(1.0, 1.0)
    law.save("~/law.json")
    assert (home / "law.json").exists()
    assert isinstance(Law.load("~/law.json"), ConvexBound)


def test_policies_and_claims(home):
    Policy([{"optimizer.learning_rate": 0.1}], [2]).save("~/p.json")
    assert (home / "p.json").exists()
    assert Policy.load("~/p.json").ends == [2]
    claims.save([], "~/claims.csv")
    assert claims.load("~/claims.csv") == []


@pytest.mark.parametrize("callback", [GradientNormRecorder, LearningRateLogger, LossRecorder, TrainingState])
def test_callbacks(home, callback):
    assert callback("~/run.csv").path == home / "run.csv"


def test_commands(home, capsys):
    assert cli.main(["plot", "rex", "--out=~/p.png"]) == 0
    assert (home / "p.png").exists()
    assert cli.main(["plot", "rex", "--out=~/p.png"]) == 2
    assert "exists: give another one" in capsys.readouterr().err
