"""LossCurve: what it refuses, how it is read from files and histories, and its means."""

import keras
import numpy as np
import pytest

from keras_lrsched.laws import LossCurve
from keras_lrsched.schedules import LinearDecay

HEADER = "step,loss,learning_rate,batch_size,tokens\n"
ROWS = "0,4.0,0.1,32,320\n1,3.0,0.1,32,320\n2,2.5,0.05,16,160\n"


@pytest.fixture
def csv(tmp_path):
    def write(text, name="run.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def curve(loss=(4.0, 3.0, 2.5, 2.5), rates=(0.1, 0.1, 0.1, 0.05), **options):
    return LossCurve(list(loss), list(rates), **options)


def ten():
    return LossCurve(np.arange(10, 0, -1), np.linspace(0.1, 1, 10), batch_size=np.arange(10), name="ten")


def test_arrays():
    made = curve([4, 3], step=[1, 3], batch_size=[8, 9])
    assert made.learning_rate.tolist() == [0.1, 0.05]
    assert made.loss.dtype == made.rates.dtype == made.batch_size.dtype == float
    assert made.step.dtype == int
    assert made.tokens is None
    assert curve().step.tolist() == [0, 1, 2, 3]
    assert curve([4, 3], step=[1.0, 3.0]).step.tolist() == [1, 3]
    assert made.subsample(1).batch_size.tolist() == [8]


def test_what_it_is_made_from_stays_untouched():
    loss = np.ones(4)
    made = LossCurve(loss, np.ones(4))
    loss[:] = 2
    assert made.loss.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": [4.0, np.nan, 2.5, 2.5]}, "loss=nan at step 1"),
        ({"loss": [4.0, 3.0, np.inf, np.inf]}, r"loss=inf at step 2 \(2 such values\)"),
        ({"loss": [4.0, 3.0, 2.5, 0.0]}, "loss=0.0 at step 3"),
        ({"loss": [4.0, 3.0, 2.5, -1.0], "name": "cosine"}, "loss=-1.0 at step 3.* in cosine"),
        ({"loss": [4.0, 3.0]}, r"'loss': \(2,\).* and 4 learning rates"),
        ({"loss": []}, r"'loss': \(0,\)"),
        ({"loss": [], "step": []}, r"'loss': \(0,\)"),
        ({"loss": np.ones((4, 1))}, r"'loss': \(4, 1\)"),
        ({"batch_size": [32, 32]}, r"'batch_size': \(2,\)"),
        ({"tokens": 320}, r"'tokens': \(\)"),
        ({"rates": []}, "Learning rates must"),
        ({"rates": [0.1, np.nan, 0.1, 0.1]}, "nan at update 1"),
        ({"rates": [0.1, -0.1, 0.1, 0.1]}, "-0.1 at update 1"),
        ({"loss": [4.0, 3.0], "step": [1, 4]}, r"within \[0, 4\)"),
        ({"loss": [4.0, 3.0], "step": [-1, 2]}, r"within \[0, 4\)"),
        ({"loss": [4.0, 3.0], "step": [2, 2]}, "must increase"),
        ({"loss": [4.0, 3.0], "step": [2, 1]}, "must increase"),
        ({"loss": [4.0, 3.0], "step": [0.5, 1.5]}, "whole numbers"),
        ({"loss": [4.0, 3.0], "step": [0, np.nan]}, "whole numbers"),
        ({"loss": [4.0], "step": [[0]]}, "in one dimension"),
    ],
)
def test_bad_curves(options, message):
    with pytest.raises(ValueError, match=message):
        curve(**options)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.2, 0.1], 2),
        ([0.2, 0.2, 0.1], 0),
        ([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.2, 0.3], 4),  # in steps of two batches
        ([0.1, 0.2, 0.3], 2),
        ([0.1], 0),
    ],
)
def test_peak_step(rates, expected):
    assert LossCurve(np.ones(len(rates)), rates).peak_step == expected


def test_csv(csv):
    made = LossCurve.load(csv(HEADER + ROWS))
    assert made.loss.tolist() == [4.0, 3.0, 2.5]
    assert made.rates.tolist() == [0.1, 0.1, 0.05]
    assert made.batch_size.tolist() == [32, 32, 16]
    assert made.tokens.tolist() == [320, 320, 160]
    assert made.name == "run"


@pytest.mark.parametrize("rest", ["3", "3,", "3,2.", "3,2.4,0.05,16,1", "nonsense"])
def test_a_cut_off_line_is_left_out(rest, csv):
    assert LossCurve.load(csv(HEADER + ROWS + rest)).loss.tolist() == [4.0, 3.0, 2.5]


def test_repeated_updates_count_as_the_last_time(csv):
    resumed = "1,3.5,0.2,32,320\n2,2.0,0.02,32,320\n3,1.0,0.01,32,320\n"
    made = LossCurve.load(csv(HEADER + ROWS + resumed))
    assert made.loss.tolist() == [4.0, 3.5, 2.0, 1.0]
    assert made.rates.tolist() == [0.1, 0.2, 0.02, 0.01]


def test_runs(csv):
    path = csv("step,loss,learning_rate,run\n0,4.0,0.1,0\n0,9.0,0.2,3\n1,3.0,0.1,0\n1,8.0,0.2,3\n")
    assert LossCurve.load(path, run=0).loss.tolist() == [4.0, 3.0]
    assert LossCurve.load(path, run=3).rates.tolist() == [0.2, 0.2]
    message = r"not one curve: it holds several runs.*: 0 \(steps 0 to 1\), 3 \(steps 0 to 1\). Received: path=.*, run="
    with pytest.raises(ValueError, match=message):
        LossCurve.load(path)
    with pytest.raises(ValueError, match="there is no run 1, but 0"):
        LossCurve.load(path, run=1)


def test_a_file_of_an_older_version_with_two_runs(csv):
    path = csv(HEADER + ROWS + "2,2.0,0.05,32,320\n0,9.0,0.1,32,320\n1,8.0,0.1,32,320\n")
    assert LossCurve.load(path, run=0).loss.tolist() == [4.0, 3.0, 2.0]
    assert LossCurve.load(path, run=1).loss.tolist() == [9.0, 8.0]
    with pytest.raises(ValueError, match=r"0 \(steps 0 to 2\), 1 \(steps 0 to 1\)"):
        LossCurve.load(path)


def test_runs_that_other_columns_tell_apart(csv):
    """The file of steps that `compare` writes."""
    rows = [f"{name},{seed},{step},{loss}.0,0.1" for loss, (name, seed) in enumerate(SEVERAL, 1) for step in (0, 1)]
    path = csv("\n".join(["schedule,seed,step,loss,learning_rate", *sorted(rows, key=lambda row: row.split(",")[2]), ""]))
    for loss, (name, seed) in enumerate(SEVERAL, 1):
        assert LossCurve.load(path, run={"schedule": name, "seed": seed}).loss.tolist() == [loss, loss]
    for choice in (None, {"seed": 0}):
        with pytest.raises(ValueError, match=r"several runs"):
            LossCurve.load(path, run=choice)
    with pytest.raises(ValueError, match="no column width"):
        LossCurve.load(path, run={"width": 8})
    with pytest.raises(ValueError, match="it has no updates"):
        LossCurve.load(path, run={"seed": 8})


SEVERAL = [("cosine", 0), ("cosine", 1), ("constant", 0)]


def test_rows_of_two_runs_in_turns(csv):
    with pytest.raises(ValueError, match=r"distinguished by seed: choose one, as by run=\{'seed': '1'\}"):
        LossCurve.load(csv("step,loss,learning_rate,seed\n0,4.0,0.1,0\n1,3.0,0.1,0\n1,3.5,0.1,1\n"))


def test_columns_that_some_update_lacks_are_left_out(csv):
    made = LossCurve.load(csv(HEADER + "0,4.0,0.1,,320\n1,3.0,0.1,32,320\n"))
    assert made.batch_size is None
    assert made.tokens.tolist() == [320, 320]
    assert LossCurve.load(csv("learning_rate,step,loss,note\n0.1,0,4.0,hello\n")).loss.tolist() == [4.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column learning_rate, loss, step"),
        ("step,loss\n0,4.0\n", "no column learning_rate"),
        (HEADER, "no updates"),
        (HEADER.strip(), "no column"),
        (HEADER + "0,4.0,0.1,32,320", "no updates"),
        (HEADER + "0,4.0,0.1,,\n2,3.0,0.1,,\n", "lacks update 1"),
        (HEADER + "1,4.0,0.1,,\n2,3.0,0.1,,\n", "lacks update 0"),
        (HEADER + "-1,4.0,0.1,,\n0,3.0,0.1,,\n", "lacks update 1"),
        (HEADER + ROWS + "3,2.x,0.1,,\n", "line 5 is malformed, .*2.x"),
        (HEADER + ROWS + "x,2.0,0.1,,\n", "line 5 is malformed"),
        (HEADER + ROWS + "3.5,2.0,0.1,,\n", "line 5 is malformed"),
        (HEADER + ROWS + "3,,0.1,,\n", "line 5 is malformed"),
        (HEADER + ROWS + "3,2.0,,,\n", "line 5 is malformed"),
        (HEADER + ROWS + "3,2.4,0.4,2.2,0.1,32,320\n", "line 5 is malformed, its fields"),
        (HEADER + ROWS + "3,2.4,0.4\n4,2.2,0.1,,\n", "line 5 is malformed, its fields"),
        (HEADER + ROWS + "3,nan,0.1,,\n", "loss=nan at step 3"),
        (HEADER + ROWS + "3,2.0,nan,,\n", "nan at update 3"),
        (HEADER + ROWS + "3,2.0,-0.1,,\n", "-0.1 at update 3"),
        (HEADER + "0," + 200_000 * "1" + ",0.1,,\n", "field larger than"),
    ],
)
def test_bad_csv(text, message, csv):
    with pytest.raises(ValueError, match=rf"holds no curve: .*{message}.*Received: path=.*run\.csv"):
        LossCurve.load(csv(text))


def test_a_binary_file_is_no_csv(tmp_path):
    (tmp_path / "run.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"holds no curve.*run\.csv"):
        LossCurve.load(tmp_path / "run.csv")


def test_save_refuses_a_name_that_load_takes_for_a_table(tmp_path):
    with pytest.raises(ValueError, match=r"written into an \.npz file. Received: path=.*run.csv"):
        LossCurve([3.0, 2.0], [0.1, 0.1]).save(tmp_path / "run.csv")


@pytest.mark.parametrize("options", [{}, {"batch_size": [8.0, 9.0], "tokens": [1.0, 2.0]}])
def test_npz(options, tmp_path):
    made = curve([4.0, 3.0], step=[1, 3], **options)
    made.save(tmp_path / "a run.npz")
    loaded = LossCurve.load(tmp_path / "a run.npz")
    for name in ("loss", "rates", "step", "batch_size", "tokens"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))
    assert loaded.name == "a run"
    assert LossCurve.load(tmp_path / "a run.npz", run=0).loss.tolist() == [4.0, 3.0]
    with pytest.raises(ValueError, match=r"it has one run. Received: run=1"):
        LossCurve.load(tmp_path / "a run.npz", run=1)


def write_npz(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 and so on"),
        lambda path: path.write_text("step,loss\n"),
        lambda path: np.save(path.open("wb"), np.ones(3)),
        lambda path: write_npz(path, loss=np.ones(3), step=np.arange(3)),
        lambda path: write_npz(path, loss=np.ones(3), step=np.arange(3), rates=np.ones(2)),
        lambda path: write_npz(path, loss=np.array(["a"]), step=np.arange(1), rates=np.ones(1)),
        lambda path: write_npz(path, loss=np.array(1.0), step=np.array(0), rates=np.array(1.0)),
        lambda path: write_npz(path, loss=np.array([{}]), step=np.arange(1), rates=np.ones(1)),
    ],
)
def test_bad_npz(write, tmp_path):
    write(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"holds no curve.*run\.npz"):
        LossCurve.load(tmp_path / "run.npz")


def test_a_damaged_npz(tmp_path):
    path = tmp_path / "run.npz"
    LossCurve(np.random.default_rng(0).uniform(1, 2, 500), np.ones(500)).save(path)
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no curve"):
        LossCurve.load(path)
    path.write_bytes(content[:-50])
    with pytest.raises(ValueError, match="holds no curve"):
        LossCurve.load(path)


@pytest.mark.parametrize("name", ["run.csv", "run.npz"])
def test_no_file(name, tmp_path):
    with pytest.raises(FileNotFoundError):
        LossCurve.load(tmp_path / name)


def history(**logs):
    made = keras.callbacks.History()
    made.history = logs
    return made


def test_from_history_with_learning_rates():
    made = LossCurve.from_history(history(loss=[3.0, 2.0], learning_rate=[0.1, 0.01]), steps_per_epoch=4, name="h")
    assert made.rates.tolist() == [0.1] * 4 + [0.01] * 4
    assert made.step.tolist() == [1, 5]
    assert made.loss.tolist() == [3.0, 2.0]
    assert made.name == "h"


def test_from_history_with_a_schedule():
    made = LossCurve.from_history({"loss": [3.0, 2.0], "val_loss": [4.0, 3.5]}, LinearDecay(1.0, 4), 2, loss="val_loss")
    assert made.rates.tolist() == [1.0, 0.75, 0.5, 0.25]
    assert made.step.tolist() == [1, 3]
    assert made.loss.tolist() == [4.0, 3.5]


def test_from_a_real_history():
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    found = model.fit(np.ones((4, 1)), np.full((4, 1), 3.0), batch_size=2, epochs=3, verbose=0)
    made = LossCurve.from_history(found, 0.1, steps_per_epoch=2)
    assert made.loss.tolist() == pytest.approx(found.history["loss"])
    assert made.rates.tolist() == [0.1] * 6


@pytest.mark.parametrize(
    ("logs", "options", "message"),
    [
        ({"loss": [3.0]}, {}, "no 'learning_rate'. It has: loss"),
        ({"loss": [3.0]}, {"schedule": 0.1, "loss": "val_loss"}, "no 'val_loss'"),
        ({"loss": [3.0, 2.0], "val_loss": [3.0]}, {"schedule": 0.1, "loss": "val_loss"}, "each of its 2 epochs"),
        ({"loss": [3.0, np.nan]}, {"schedule": 0.1}, "loss=nan at step 1"),
        ({"loss": [3.0, 2.0], "learning_rate": [0.1]}, {}, "updates that have a learning rate"),
        ({"loss": [3.0]}, {"schedule": 0.1, "steps_per_epoch": 0}, "steps_per_epoch=0"),
    ],
)
def test_bad_histories(logs, options, message):
    with pytest.raises(ValueError, match=message):
        LossCurve.from_history(logs, **options)


def test_between():
    assert ten().between(3, 6).step.tolist() == [3, 4, 5]
    assert ten().between(8).loss.tolist() == [2, 1]
    assert ten().between(8).rates.tolist() == ten().rates.tolist()
    assert ten().between(8).name == "ten"
    with pytest.raises(ValueError, match=r"'loss': \(0,\)"):
        ten().between(10)


def test_smooth():
    made = LossCurve([1.0, 4.0, 1.0, 4.0, 7.0], np.ones(5))
    assert made.smooth(3).loss == pytest.approx([2.0, 3.0, 4.0])
    assert made.smooth(3).step.tolist() == [1, 2, 3]
    assert made.smooth(2).loss == pytest.approx([2.5, 2.5, 2.5, 5.5])
    assert made.smooth(2).step.tolist() == [0, 1, 2, 3]
    assert made.smooth(1).loss == pytest.approx(made.loss)
    assert made.smooth(5).loss == pytest.approx([3.4])
    assert made.smooth(5).step.tolist() == [2]
    assert len(made.smooth(3).rates) == 5


@pytest.mark.parametrize("width", [0, -1, 1.5, 11])
def test_bad_widths(width):
    with pytest.raises(ValueError, match=f"width={width}"):
        ten().smooth(width)


def test_subsample():
    made = ten().subsample(5)
    assert made.loss == pytest.approx([9.5, 7.5, 5.5, 3.5, 1.5])
    assert made.step.tolist() == [0, 2, 4, 6, 8]
    assert made.batch_size.tolist() == [0, 2, 4, 6, 8]
    assert ten().subsample(3).loss == pytest.approx([9.0, 6.0, 2.5])
    assert ten().subsample(100).loss.tolist() == ten().loss.tolist()
    assert ten().subsample(1).loss == pytest.approx([5.5])
    with pytest.raises(ValueError, match="points=0"):
        ten().subsample(0)


def test_plot():
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = ten().plot()
    assert ten().plot(ax=axes, label="again") is axes
    assert [line.get_label() for line in axes.get_lines()] == ["ten", "again"]
    assert axes.get_lines()[0].get_ydata().tolist() == ten().loss.tolist()
    plt.close("all")
