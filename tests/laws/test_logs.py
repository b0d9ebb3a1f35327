"""Logs of other programs: what is read from each form, and what each refusal asks for."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lrsched.laws import LossCurve
from keras_lrsched.schedules import LinearDecay

# files in the forms of real ones
FILES = Path(__file__).parent / "files"
BOXES = ["train/box_loss", "train/cls_loss", "train/dfl_loss"]


@pytest.fixture
def log(tmp_path):
    def write(text, name="run.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "options", "step", "loss", "rates"),
    [
        ("csv_logger.csv", {"steps_per_epoch": 3}, [1, 4, 7], [1.412, 1.0381, 0.9011], [1e-3] * 6 + [1e-4] * 3),
        ("csv_logger.csv", {"steps_per_epoch": 3, "loss": "val_loss"}, [2, 5, 8], [1.1872, 0.9725, 0.9154], None),
        ("history.json", {"steps_per_epoch": 2}, [0, 2, 4, 6], [1.4, 1.0, 0.9, 0.85], [1e-3] * 4 + [5e-4] * 4),
        ("history.json", {"steps_per_epoch": 2, "loss": "val_loss"}, [3, 7], [1.1, 0.95], None),
        ("trainer_state.json", {}, [124, 374, 624, 874], [2.81, 2.13, 1.9, 1.82], None),
        ("trainer_state.json", {"loss": "eval_loss"}, [499, 999], [2.05, 1.88], None),
        ("metrics.csv", {}, [49, 99, 149, 199], [3.2, 2.7, 2.4, 2.3], None),
        ("metrics.csv", {"loss": "val_loss"}, [99, 199], [2.65, 2.33], None),
        ("wandb_chart.csv", {"learning_rate": 0.1, "run": "cosine-3"}, [0, 10, 20, 40], [4.1, 3.1, 2.6, 2.2], [0.1] * 41),
        ("wandb_chart.csv", {"learning_rate": 0.1, "run": "linear-1"}, [0, 20, 40], [4.2, 3.3, 2.9], [0.1] * 41),
        ("wandb_history.jsonl", {}, [9, 19, 29], [3.9, 3.0, 2.7], None),
        ("tensorboard.csv", {"learning_rate": 0.1, "total_steps": 300}, [0, 100, 200], [3.4, 2.8, 2.5], [0.1] * 300),
        ("nanogpt.log", {}, [0, 10, 20], [4.2586, 3.1234, 2.4333], np.interp(range(21), [0, 10, 20], [0, 1e-3, 5e-4])),
        ("nanogpt.log", {"loss": "val_loss"}, [0, 20], [4.2823, 2.4702], None),
        ("llmc.log", {}, [0, 1, 2, 3], [10.99, 9.5, 8.9, 8.5], [1e-4, 2e-4, 2e-4, 1e-4]),
        ("megatron.log", {}, [99, 199, 299], [6.21, 5.02, 4.63], None),
        ("results.csv", {"steps_per_epoch": 2, "loss": BOXES}, [0, 2, 4], [6.206, 4.815, 4.205],
         [3.3e-3, 3.3e-3, 6e-3, 6e-3, 7e-3, 7e-3]),
        ("german.csv", {}, [0, 1, 2], [3.5, 3.25, 3.0], [0.1, 0.1, 0.05]),
    ],
)  # fmt: skip
def test_real_forms(name, options, step, loss, rates):
    curve = LossCurve.read(FILES / name, **options)
    assert curve.step.tolist() == step
    assert curve.loss == pytest.approx(loss)
    assert curve.name == Path(name).stem
    if rates is not None:
        assert curve.rates == pytest.approx(np.array(rates), rel=1e-6)


def test_rates_between_those_that_are_logged():
    state = LossCurve.read(FILES / "trainer_state.json").rates
    assert state[[0, 249, 499, 749, 999]] == pytest.approx([4e-5, 4e-5, 3e-5, 1e-5, 0.0])
    assert state[374] == pytest.approx(3.5e-5)
    assert LossCurve.read(FILES / "metrics.csv").rates[[0, 50, 100, 199]] == pytest.approx([0.01, 0.0075, 0.005, 0.005])


def test_event_files(tmp_path):
    from tensorboard.summary import Writer

    for folder, offset in (("train", 0.0), ("validation", 1.0)):
        writer = Writer(str(tmp_path / folder))
        for step in (0, 10, 20):
            writer.add_scalar("loss", 4.0 + offset - step / 10, step=step)
            writer.add_scalar("learning_rate", 0.5, step=step)
        writer.close()
    for path, run in ((tmp_path, "train"), (tmp_path / "train", None), (next((tmp_path / "train").iterdir()), None)):
        curve = LossCurve.read(path, run=run)
        assert curve.step.tolist() == [0, 10, 20]
        assert curve.loss.tolist() == [4.0, 3.0, 2.0]
        assert curve.rates.tolist() == [0.5] * 21
    with pytest.raises(ValueError, match=r"holds 2 runs: pass run=..., one of 'train', 'validation'"):
        LossCurve.read(tmp_path)


def test_event_files_without_tensorboard(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.1").touch()
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_file_loader", None)
    with pytest.raises(ValueError, match="read by the package tensorboard: pip install tensorboard"):
        LossCurve.read(tmp_path)


def test_our_own_files(tmp_path):
    LossCurve([3.0, 2.0], [0.1, 0.1]).save(tmp_path / "run.npz")
    assert LossCurve.read(tmp_path / "run.npz").loss.tolist() == [3.0, 2.0]
    path = tmp_path / "run.csv"
    path.write_text("step,loss,learning_rate,batch_size,tokens,run\n0,3.0,0.1,8,,0\n1,2.0,0.1,8,,0\n2,1.0,0.1,8,,1\n")
    curve = LossCurve.read(path, name="mine")
    assert curve.loss.tolist() == [3.0, 2.0, 1.0]
    assert curve.name == "mine"
    assert curve.batch_size is not None


def test_a_keras_history():
    history = keras.callbacks.History()
    history.history = {"loss": [3.0, 2.0]}
    curve = LossCurve.read(history, LinearDecay(0.1, 4), steps_per_epoch=2)
    assert curve.step.tolist() == [0, 2]
    assert curve.rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize(
    ("text", "options", "step", "rates"),
    [
        ("step,loss,lr\n0,3,.1\n1,2,.2\n", {}, [0, 1], [0.1, 0.2]),
        ("step,loss,lr\n1,3,.1\n2,2,.2", {}, [0, 1], [0.1, 0.2]),  # no newline at the end
        ("step,loss,lr\n25,3,.1\n50,2,.1\n", {}, [24, 49], [0.1] * 50),
        ("step,loss,lr\n24,3,.1\n49,2,.1\n", {}, [24, 49], [0.1] * 50),
        ("step,loss,lr\n1,3,.1\n25,3,.1\n50,2,.1\n", {"first": 1}, [0, 24, 49], [0.1] * 50),
        ("step,loss\n0,3\n1,2\n", {"learning_rate": [0.3, 0.2, 0.1]}, [0, 1], [0.3, 0.2, 0.1]),
        ("step,loss,a\n0,3,.3\n1,2,.2\n", {"learning_rate": "a"}, [0, 1], [0.3, 0.2]),
        (" Step ; Loss ; LR \n 0.0 ; 3,0 ; 0,1 \n\n 1.0 ; 2,0 ; 0,1 \n", {}, [0, 1], [0.1, 0.1]),
        ("epoch,step,loss,lr\n0,0,4,.1\n0,1,3,.1\n1,0,2,.1\n1,1,1,.1\n", {"steps_per_epoch": 2}, [0, 1, 2, 3], [0.1] * 4),
        ("# made by hand\nstep\tloss\tlr\n0\t3\t.1\n1\t2\t.1\n", {}, [0, 1], [0.1, 0.1]),
        ("epoch,loss,lr\n0,3,.1\n3,2,.1\n", {"steps_per_epoch": 1}, [0, 3], [0.1] * 4),
        ("step,loss,lr\n0,3,.1\n1,2,.1\n2,1", {}, [0, 1], [0.1, 0.1]),  # cut off
    ],
)
def test_tables(text, options, step, rates, log):
    curve = LossCurve.read(log(text), **options)
    assert curve.step.tolist() == step
    assert curve.rates == pytest.approx(rates)


def test_other_json(log):
    columns = {"step": {"0": 0, "1": 1}, "loss": {"0": 3.0, "1": 2.0}, "lr": {"0": 0.1, "1": 0.1}}
    assert LossCurve.read(log(json.dumps(columns), "a.json")).loss.tolist() == [3.0, 2.0]
    assert LossCurve.read(log("[[1.5, 0, 3.0], [2.5, 1, 2.0]]", "b.json"), 0.1).loss.tolist() == [3.0, 2.0]
    assert LossCurve.read(log('{"step": 0, "loss": 3}\n{"step": 1, "lo', "c.jsonl"), 0.1).loss.tolist() == [3.0]


SEVERAL = "budget,schedule,seed,step,loss,learning_rate\n" + "".join(
    f"{steps},{name},{seed},{step},{level + seed - 0.1 * step},0.1\n"
    for name, steps, level in (("constant", 4, 3), ("cosine", 2, 5))
    for seed in (0, 1)
    for step in range(steps)
)


def test_several_runs_by_columns(log):
    message = (
        r"distinguished by schedule, seed: pass run=..., as \{'schedule': 'constant', 'seed': '0'\}. It has schedule: const"
    )
    with pytest.raises(ValueError, match=message):
        LossCurve.read(log(SEVERAL))
    assert LossCurve.read(log(SEVERAL), run={"schedule": "cosine", "seed": 1}).loss == pytest.approx([6.0, 5.9])
    assert LossCurve.read(log(SEVERAL), run={"schedule": "constant", "seed": 0.0}).loss[0] == 3.0
    with pytest.raises(ValueError, match="distinguished by seed"):
        LossCurve.read(log(SEVERAL), run={"schedule": "cosine"})
    with pytest.raises(ValueError, match=r"no rows with run=.*it has"):
        LossCurve.read(log(SEVERAL), run={"schedule": "linear"})
    with pytest.raises(ValueError, match="no column width: it has budget, schedule"):
        LossCurve.read(log(SEVERAL), run={"width": 3})
    header, *rows = SEVERAL.splitlines()
    by_step = "\n".join([header, *sorted(rows, key=lambda row: row.split(",")[3]), ""])
    with pytest.raises(ValueError, match="several runs, distinguished by schedule, seed"):
        LossCurve.read(log(by_step))
    assert LossCurve.read(log(by_step), run={"schedule": "cosine", "seed": 1}).loss == pytest.approx([6.0, 5.9])


@pytest.mark.parametrize("between", ["", "epoch,loss,lr\n"])
def test_runs_that_follow_one_another(between, log):
    path = log(f"epoch,loss,lr\n0,3,.1\n1,2,.1\n2,1,.1\n{between}0,6,.1\n1,5,.1\n")
    with pytest.raises(ValueError, match=r"pass run=..., the number of one. It has 2: 0 \(from 0 to 2\), 1 \(from 0 to 1\)"):
        LossCurve.read(path, steps_per_epoch=1)
    assert LossCurve.read(path, run=1, steps_per_epoch=1).loss.tolist() == [6, 5]
    with pytest.raises(ValueError, match=r"no run 2: It has 2"):
        LossCurve.read(path, run=2, steps_per_epoch=1)


def test_runs_that_go_on_from_each_other(log):
    path = log("step,loss,lr\n0,4,.1\n1,3,.1\n2,9,.1\n2,2,.1\n", "a.csv")
    with pytest.raises(ValueError, match="two values of loss at step 2, 9 and 2"):
        LossCurve.read(path)
    path = log("step,loss,lr\n0,4,.1\n1,3,.1\n2,9,.1\n1,2,.1\n2,1,.1\n", "b.csv")
    assert LossCurve.read(path, run=[0, 1]).loss.tolist() == [4, 2, 1]


def test_rows_that_are_not_finite(log):
    path = log("step,loss,lr\n0,3,.1\n1,nan,.1\n2,inf,.1\n3,2,.1\n")
    with pytest.raises(
        ValueError, match="2 losses or learning rates that are not finite, the first nan at 1: pass drop_nan=True"
    ):
        LossCurve.read(path)
    with pytest.warns(UserWarning, match="2 of 4 losses or learning rates are not finite and left out"):
        curve = LossCurve.read(path, drop_nan=True)
    assert curve.step.tolist() == [0, 3]
    assert curve.rates.tolist() == [0.1] * 4


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "The file is empty"),
        ("hello\nworld\n", {}, "no training loss under a usual name: pass loss="),
        ("step,loss\n0,3\n", {}, "no learning rate under a usual name: pass learning_rate=.*It has: step, loss"),
        ("step,loss,lr-a,lr-b\n0,3,1,2\n", {}, "several learning rates, lr-a, lr-b: pass learning_rate="),
        ("step,loss,lr\n0,3,.1\n", {"loss": "val_loss"}, "no 'val_loss': pass loss=..., one of step, loss, lr"),
        ("step,loss,lr\n0,3,.1\n", {"learning_rate": "rate"}, "no 'rate': pass learning_rate=..., one of"),
        ("epoch,loss,lr\n0,3,.1\n", {}, "counts epochs: pass steps_per_epoch="),
        (
            "epoch,step,loss,lr\n0,0,4,.1\n0,1,3,.1\n1,0,2,.1\n",
            {},
            "'step' begins anew in each epoch: pass steps_per_epoch=",
        ),
        ("loss,lr\n3,.1\n", {}, r"does not count updates or epochs.*LossCurve\(loss=..., rates=..., step=...\)"),
        ("step,loss,lr\n7,3,.1\n9,2,.1\n", {}, "begins with 7, 9, .*pass first=0 or first=1"),
        (
            "step,loss,lr\n0,3,.1\n1.5,2,.1\n",
            {},
            "'step' counts updates or epochs and must hold whole numbers: it has '1.5'",
        ),
        ("step,loss,lr\n0,high,.1\n", {}, "'loss' must hold numbers: it has 'high'"),
        ("step,loss,lr\n0,3,.1,4\n", {}, "Line 2 of the table has 4 cells, and the first one 3"),
        ("step,loss,loss\n0,3,.1\n", {}, "must have different names"),
        (
            "step,loss\n0,3\n1,2\n",
            {"learning_rate": [0.1]},
            "losses up to update 1, counted from 0, and there are 1 learning",
        ),
        ("step,loss,lr\n0,3,\n1,3,\n2,3,\n3,2,.1\n4,1,.1\n", {}, "no 'lr' in the first 3 updates: pass learning_rate="),
        (
            "step,loss,lr\n0,3,.1\n5,2,.1\n",
            {"total_steps": 3},
            "has 6 updates: pass total_steps=... with as many or more, not 3",
        ),
        ("step,loss,lr\n0,3,.1\n1000000000000,2,.1\n", {}, "counts 1000000000001 updates"),
        ("step,loss,lr\n0,3,.1\n", {"run": "a"}, "have no names: pass run=None, a number, or a dictionary, not 'a'"),
        ("seed,step,loss,lr\n0,0,3,.1\n1,1,2,.1\n", {}, "several runs, distinguished by seed"),
        ("step,loss,lr\n0,nan,.1\n", {"drop_nan": False}, "pass drop_nan=True"),
        ('{"a": 1}', {}, "must be a `history.history`, a trainer_state.json"),
        ("[1, 2]", {}, "no rows of a known form, which are a table"),
        ('{"loss": [1, 2], "lr": [1]}', {}, "as many values of each metric as epochs"),
        ('{"loss": []}', {}, "no epochs"),
    ],
)
def test_refusals(text, options, message, log):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: path="):
        LossCurve.read(log(text), **options)


def test_binary_and_nested_files(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    (tmp_path / "b.json").write_text(100_000 * "[")
    for name in ("a.csv", "b.json"):
        with pytest.raises(ValueError, match=f"holds no log of a run.*{name}"):
            LossCurve.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        LossCurve.read(tmp_path / "c.csv")


def test_load_names_the_columns_that_tell_runs_apart(log):
    with pytest.raises(
        ValueError, match=r"several runs.*distinguished by schedule, seed, too, as run=\{'schedule': 'constant'"
    ):
        LossCurve.load(log(SEVERAL))


def test_load_and_others_name_read(log):
    with pytest.raises(ValueError, match=r"no column learning_rate.*`LossCurve.read` takes the logs of other programs"):
        LossCurve.load(log("step,loss\n0,3\n"))
    with pytest.raises(ValueError, match=r"`LossCurve.read` takes files. Received: history='training.log'"):
        LossCurve.from_history("training.log")
    with pytest.raises(ValueError, match="an epoch or more"):
        LossCurve.from_history({"loss": []}, 0.1)
    with pytest.raises(ValueError, match=r"schedule.values\(steps\)"):
        LossCurve([3.0, 2.0], LinearDecay(0.1, 2))
