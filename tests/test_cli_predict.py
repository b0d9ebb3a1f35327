"""From recorded runs to a schedule that `compare` trains with."""

import json

import numpy as np
import pytest

from keras_lrsched import cli, schedules
from keras_lrsched.laws import Law, LossCurve, MultiPowerLaw
from keras_lrsched.schedules import Tabulated
from tests.nightly import nightly

PEAK, STEPS = 0.01, 300
TRUTH = MultiPowerLaw(1.5, 0.5, 0.5, 20.0, 2.0, 0.6, 0.6, warmup="sum")


@pytest.fixture
def runs(tmp_path):
    """Files of two runs that follow the law exactly."""
    files = []
    for label in ("constant", "cosine"):
        rates = schedules.get(label, PEAK, STEPS, warmup_steps=15).values(STEPS)
        at = np.arange(1, STEPS)
        files.append(str(tmp_path / f"{label}.npz"))
        LossCurve(TRUTH.predict(rates, at=at), rates, at).save(files[-1])
    return files


@pytest.fixture
def law(runs, tmp_path, capsys):
    path = str(tmp_path / "law.json")
    assert cli.main(["predict", "fit", *runs, "--law", "multi_power", "-o", path]) == 0
    capsys.readouterr()
    return path


def test_fit(runs, tmp_path, capsys):
    path = tmp_path / "law.json"
    assert cli.main(["predict", "fit", *runs, "--law", "multi_power", "-o", str(path)]) == 0
    assert "cosine" in capsys.readouterr().out
    wsd = schedules.get("wsd", PEAK, STEPS, warmup_steps=15)
    assert Law.load(path).final_loss(wsd, STEPS) == pytest.approx(TRUTH.final_loss(wsd, STEPS), rel=2e-3)


def test_one_of_several_runs(runs, tmp_path, capsys):
    """Of a file in which the second is the one that follows the law."""
    both = tmp_path / "both.csv"
    curve = LossCurve.load(runs[1])
    rows = [
        (step, loss, rate, 1) for step, loss, rate in zip(range(STEPS - 1), curve.loss, curve.learning_rate, strict=True)
    ]
    rows = [*((step, 9.0, 0.1, 0) for step in range(5)), *rows]
    both.write_text("\n".join(["step,loss,learning_rate,run", *(",".join(map(str, row)) for row in rows), ""]))
    path = str(tmp_path / "law.json")
    assert "holds several runs" in fails(capsys, "predict", "fit", runs[0], str(both), "-o", path)
    assert "no run 2" in fails(capsys, "predict", "fit", runs[0], f"{both}#2", "-o", path)
    assert cli.main(["predict", "fit", runs[0], f"{both}#1", "-o", path]) == 0
    assert "299" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["annealing", "convex_bound"])
def test_other_laws(kind, runs, tmp_path, capsys):
    path = str(tmp_path / "law.json")
    assert cli.main(["predict", "fit", *runs, "--law", kind, "-o", path]) == 0
    assert cli.main(["predict", "loss", path, "--schedules", "linear", "-o", str(tmp_path / "p.png")]) == 0


def test_loss(law, tmp_path, capsys):
    picture = tmp_path / "p.png"
    words = ["--schedules", "cosine,rex:a=0.1:b=0.9", "--steps", "300,600", "-o", str(picture)]
    assert cli.main(["predict", "loss", law, *words]) == 0
    out, err = capsys.readouterr()
    assert f"{Law.load(law).final_loss(schedules.get('cosine', PEAK, STEPS, warmup_steps=15), STEPS):.4f}" in out
    assert "loss after 600" in out
    assert "extrapolates: updates 600 is 2 times" in err
    assert picture.read_bytes().startswith(b"\x89PNG")


@nightly
def test_best_is_trained_with(law, tmp_path, capsys):
    best = tmp_path / "best.json"
    assert cli.main(["predict", "best", law, "--steps", "40", "-o", str(best)]) == 0
    assert Tabulated.load(best).values(40).max() == pytest.approx(PEAK)
    words = ["--schedules", f"cosine,file:{best}", "--budget", "40", "--seeds", "1", "--evaluations", "2"]
    assert cli.main(["compare", *words, "--out", str(tmp_path / "out")]) == 0
    assert "best.json" in (tmp_path / "out" / "report.md").read_text()


def test_the_usual_law(runs, tmp_path, capsys):
    """The convex bound for two schedules, the multi-power law for three; another seed is no other schedule."""
    linear = LossCurve.load(runs[1])
    rates = schedules.get("linear", PEAK, STEPS, warmup_steps=15).values(STEPS)
    three = [*runs, str(tmp_path / "linear.npz")]
    LossCurve(TRUTH.predict(rates, at=linear.step), rates, linear.step).save(three[-1])
    path = str(tmp_path / "law.json")
    for files, kind in (
        (runs, "ConvexBound"),
        ([*runs, runs[0]], "ConvexBound"),
        (three, "MultiPowerLaw"),
    ):
        assert cli.main(["predict", "fit", *files, "-o", path, "--force"]) == 0
        assert type(Law.load(path)).__name__ == kind
    assert "good" in capsys.readouterr().out


def test_logs_of_other_programs(runs, tmp_path, capsys):
    """Both runs in one table that counts from 1, with other names."""
    rows = ["name,iter,train loss,rate"]
    for path in runs:
        curve = LossCurve.load(path)
        table = zip(curve.step, curve.loss, curve.learning_rate, strict=True)
        rows += [f"{curve.name},{step + 1},{loss},{rate}" for step, loss, rate in table]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(rows))
    path = str(tmp_path / "law.json")
    words = ["--learning-rate", "rate", "--first", "1", "-o", path]
    assert "distinguished by name" in fails(capsys, "predict", "fit", str(log), *words)
    assert "pass first=0 or first=1" in fails(capsys, "predict", "fit", f"{log}#name=cosine", "-o", path)
    assert "no learning rate under a usual name" in fails(
        capsys, "predict", "fit", f"{log}#name=cosine", "--first", "1", "-o", path
    )
    assert cli.main(["predict", "fit", f"{log}#name=constant", f"{log}#name=cosine", *words]) == 0
    again = str(tmp_path / "again.json")
    assert cli.main(["predict", "fit", *runs, "-o", again]) == 0
    assert Law.load(path).distance == pytest.approx(Law.load(again).distance, rel=1e-2)


def test_a_poor_law_is_called_so(runs, tmp_path, capsys):
    curve = LossCurve.load(runs[0])
    bent = LossCurve(np.where(curve.step < 200, 3.0, 2.0), curve.rates, curve.step)
    bent.save(tmp_path / "bent.npz")
    assert cli.main(["predict", "fit", str(tmp_path / "bent.npz"), runs[1], "-o", str(tmp_path / "law.json")]) == 0
    out, err = capsys.readouterr()
    assert out.count("poor") >= 2
    assert "do not trust" in out
    assert "ConvexBound does not fit" in err


def test_no_file_is_lost(runs, law, tmp_path, capsys):
    picture = tmp_path / "p.png"
    picture.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for words in (
        ["predict", "fit", *runs, "-o", runs[0]],
        ["predict", "fit", *runs, "-o", f"{tmp_path}/../{tmp_path.name}/constant.npz", "--force"],
        ["predict", "best", law, "-o", law],
        ["predict", "loss", law, "-o", law, "--force"],
        ["plot", f"file:{law}", "-o", law, "--force"],
    ):
        assert "is an input, which would be lost" in fails(capsys, *words)
    for words in (["predict", "fit", *runs], ["predict", "best", law], ["predict", "loss", law], ["plot", "rex"]):
        assert f"'{picture}' exists: give another one by --out, or replace it by --force." in fails(
            capsys, *words, "-o", str(picture)
        )
    assert before == {path: path.read_bytes() for path in before}
    assert cli.main(["plot", "rex", "-o", str(picture), "--force"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def fails(capsys, *words):
    assert cli.main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_mistakes(law, tmp_path, capsys):
    table = tmp_path / "table.json"
    Tabulated([0.1, 0.2]).save(table)
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("epoch\n0\n")
    out = ["-o", str(tmp_path / "no.png")]
    assert "No such file" in fails(capsys, "predict", "fit", str(tmp_path / "none.csv"), *out)
    assert "no training loss under a usual name: pass loss=" in fails(capsys, "predict", "fit", str(nothing), *out)
    assert "holds no law" in fails(capsys, "predict", "loss", str(table), *out)
    assert "Unknown schedule 'cosinus'" in fails(capsys, "predict", "loss", law, "--schedules", "cosinus", *out)
    assert "one for 2 updates" in fails(capsys, "predict", "loss", law, "--schedules", f"file:{table}", *out)
    assert "give --steps once" in fails(capsys, "predict", "best", law, "--steps", "30,40", *out)
    assert "holds no schedule" in fails(capsys, "compare", "--schedules", f"file:{law}", "--out", out[1])
    assert "a type that Matplotlib writes" in fails(capsys, "predict", "loss", law, "-o", str(tmp_path / "no"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("no.")]


def test_a_law_made_from_numbers_needs_a_run(tmp_path, capsys):
    path = tmp_path / "law.json"
    TRUTH.save(path)
    assert "give --steps and --peak" in fails(capsys, "predict", "loss", str(path))
    words = ["--steps", "50", "--peak", "0.01", "-o", str(tmp_path / "best.json")]
    assert cli.main(["predict", "best", str(path), *words]) == 0


def test_a_law_that_cannot_optimize(tmp_path, capsys):
    path = tmp_path / "law.json"
    content = {"law": "AnnealingLaw", "fitted": {}, "L0": 2.0, "A": 0.5, "alpha": 0.5, "C": 0.1}
    path.write_text(json.dumps(content))
    words = ["--steps", "50", "--peak", "0.01", "-o", str(tmp_path / "best.json")]
    assert "cannot find the best" in fails(capsys, "predict", "best", str(path), *words)
