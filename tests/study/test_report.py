"""The report holds what the runs were."""

import csv
import dataclasses

import numpy as np
import pytest

from keras_lrsched.study import report, workloads
from keras_lrsched.study.compare import Run, plan


@pytest.fixture(scope="module")
def runs():
    """Made-up curves: the linear schedule ends at 0.1 plus a hundredth of the seed, the constant one at 0.5."""
    jobs = plan([workloads.load("digits")], ["constant", "linear:alpha=0.1"], seeds=2, budgets=[4])
    return [
        Run(
            job,
            loss=np.array([4.0, 3.0, 2.0, 1.0]),
            learning_rate=job.schedule.values(4),
            evaluated_at=np.array([2, 4]),
            validation_loss=np.array([1.0, 0.5 if job.label == "constant" else 0.1 + job.seed / 100]),
            metric=np.array([0.5, 0.9 if job.label == "constant" else 0.99]),
            seconds=1.5,
        )
        for job in jobs
    ]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_puts_the_best_first(runs):
    text = report.markdown(runs, planned=4, command="keras-lrsched compare")
    best, worst = (line for line in text.splitlines() if line.startswith(("| linear", "| constant")))
    assert best == "| linear:alpha=0.1 | 0.1050 ± 0.0071 | 0.9900 ± 0.0000 | 4 (2/2) | 1.5 ± 0.0 |"
    assert worst == "| constant | 0.5000 ± 0.0000 | 0.9000 ± 0.0000 | - (0/2) | 1.5 ± 0.0 |"
    assert "Partial" not in text


def test_a_partial_report_says_so(runs):
    assert "**Partial: 3 of 4 runs" in report.markdown(runs[:3], planned=4)
    assert "**Partial: 0 of 4 runs" in report.markdown([], planned=4)


def test_one_label_at_two_peaks_is_not_merged(runs, tmp_path):
    others = plan([workloads.load("digits")], ["constant"], seeds=2, budgets=[4], peak_learning_rate=0.5)
    both = [*runs, *(dataclasses.replace(runs[0], job=job, learning_rate=job.schedule.values(4)) for job in others)]
    lines = [line for line in report.markdown(both, planned=6).splitlines() if line.startswith("| constant")]
    assert [line.split(" |")[0] for line in lines] == ["| constant (peak 0.1)", "| constant (peak 0.5)"]
    report.write(both, tmp_path, planned=6)
    assert {row["schedule"] for row in rows(tmp_path / "steps.csv")} == {
        "constant (peak 0.1)",
        "constant (peak 0.5)",
        "linear:alpha=0.1",
    }


def test_one_seed_has_no_spread(runs):
    assert "| 0.1000 | 0.9900 | 4 (1/1) | 1.5 |" in report.markdown(runs[:2], planned=2)


def test_files(runs, tmp_path):
    folder = report.new_folder(tmp_path / "a" / "b")
    report.write(runs, folder, planned=4)
    steps = rows(folder / "steps.csv")
    assert len(steps) == 16
    assert [float(row["loss"]) for row in steps[:4]] == [4, 3, 2, 1]
    np.testing.assert_allclose([float(row["learning_rate"]) for row in steps[4:8]], runs[1].learning_rate)
    assert [row["val_accuracy"] for row in rows(folder / "evaluations.csv")[:2]] == ["0.5", "0.9"]
    assert [row["steps_to_target"] for row in rows(folder / "runs.csv")] == ["", "4", "", "4"]
    assert (folder / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert "digits: 4 updates" in (folder / "report.md").read_text()


def test_runs_are_written_as_they_end(runs, tmp_path):
    """In the end as `write` does; what was left of a killed one is replaced on request."""
    journal = report.Journal(report.new_folder(tmp_path / "a"), [run.job for run in runs], "the command")
    assert "**Partial: 0 of 4 runs" in (tmp_path / "a" / "report.md").read_text()
    for i in range(len(runs)):
        journal.add(runs[: i + 1])
        assert len(rows(tmp_path / "a" / "runs.csv")) == i + 1
    report.write(runs, report.new_folder(tmp_path / "b"), 4, "the command")
    for name in ("runs.csv", "steps.csv", "evaluations.csv", "report.md"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    (tmp_path / "a" / "report.md.new").touch()
    assert report.new_folder(tmp_path / "a", replace=True) == tmp_path / "a"


def test_tensorboard_reads_the_event_files(runs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report.write(runs[:2], tmp_path, planned=4)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "digits" / "4" / "linear_alpha=0.1" / "0")).Reload()
    loss = events.Tensors("loss")
    assert [event.step for event in loss] == [0, 1, 2, 3]
    assert loss[3].tensor_proto.float_val[0] == 1.0


def test_an_output_folder_is_new(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        report.new_folder(tmp_path)
    with pytest.raises(OSError, match="cannot be written to"):
        report.new_folder(tmp_path / "mine.txt")
    with pytest.raises(OSError, match="cannot be written to"):
        report.new_folder(tmp_path / "mine.txt" / "below")


def test_an_earlier_comparison_is_replaced_on_request(runs, tmp_path):
    report.write(runs, tmp_path, planned=4)
    assert report.new_folder(tmp_path, replace=True) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    for name in ("mine.png", "mine.txt"):
        (tmp_path / name).touch()
        with pytest.raises(FileExistsError, match=f"something else than a comparison, and is not replaced: {name}"):
            report.new_folder(tmp_path, replace=True)
        (tmp_path / name).unlink()


def test_smoothing_keeps_a_constant_and_its_start():
    np.testing.assert_allclose(report._smoothed(np.full(50, 3.0)), 3.0)
    assert report._smoothed(np.array([5.0] + [1.0] * 99))[0] == 5.0
