"""Runs in one file: their numbers, what is cut off, and which rows make up a run."""

import pytest

from keras_lrsched._core.run_file import RunFile, SeveralRunsError, numbers_of_runs, one_run


def write(path, *rows, state=None):
    file = RunFile(path)
    if state is not None:
        file.restore_state(state)
    file.open(["step", "loss"])
    file.write(rows)
    return file


def lines(path):
    return path.read_text().splitlines()[1:]


def test_each_run_has_the_next_number(tmp_path):
    path = tmp_path / "new" / "run.csv"
    file = write(path, [0, 4.0], [1, 3.0])
    write(path, [0, 2.0])
    file.write([[2, 2.5]])
    file.begin_run()
    file.write([[0, 1.0]])
    assert path.read_text() == "step,loss,run\n0,4.0,0\n1,3.0,0\n0,2.0,1\n2,2.5,0\n0,1.0,2\n"


def test_a_resumed_run_loses_what_it_wrote_after_its_state(tmp_path):
    path = tmp_path / "run.csv"
    file = write(path, [0, 4.0], [1, 3.0])
    state = file.state()
    file.write([[2, 2.5]])
    write(path, [0, 9.0])
    with path.open("a") as end:
        end.write("3,2.")  # cut off
    resumed = write(path, [2, 2.75], state=state)
    assert lines(path) == ["0,4.0,0", "1,3.0,0", "0,9.0,1", "2,2.75,0"]
    assert resumed.state() == {"run": 0, "rows": 3}
    assert [it.name for it in tmp_path.iterdir()] == ["run.csv"]


def test_a_run_that_had_written_nothing(tmp_path):
    state = write(tmp_path / "run.csv").state()
    write(tmp_path / "run.csv", [0, 4.0])
    write(tmp_path / "run.csv", [0, 9.0], state=state)
    assert lines(tmp_path / "run.csv") == ["0,4.0,0", "0,9.0,1"]


@pytest.mark.parametrize("text", ["epoch,loss\n0,1.0\n", "step,loss\n0,1.0\n", "nonsense"])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "run.csv").write_text(text)
    with pytest.raises(ValueError, match=r"one with the columns step, loss, run. Received: path="):
        write(tmp_path / "run.csv", [0, 4.0])
    assert (tmp_path / "run.csv").read_text() == text


def table(run, first, last):
    return {step: f"{run}.{step}" for step in range(first, last + 1)}


def test_numbers():
    assert [*numbers_of_runs([{"run": "3"}, {"run": "1"}])] == [3, 1]
    assert [*numbers_of_runs([{"step": step} for step in "0121201"])] == [0, 0, 0, 0, 0, 1, 1]
    assert [*numbers_of_runs([{"loss": "1"}, {"loss": "2"}])] == [0, 0]


@pytest.mark.parametrize(
    ("spans", "run", "expected"),
    [
        ([(0, 3)], None, "0000"),
        ([(0, 3), (0, 1)], 0, "0000"),
        ([(0, 3), (0, 1)], 1, "11"),
        ([(0, 4), (3, 6)], None, "0001111"),
        ([(0, 4), (3, 6)], 0, "00000"),
        ([(0, 4), (3, 6), (7, 8)], None, "000111122"),
        ([(0, 4), (3, 6), (5, 8)], None, "000112222"),
        ([(0, 9), (3, 6), (5, 8)], None, "000112222"),  # run 1 has replaced what run 0 had there
        ([(0, 4), (5, 6), (5, 8)], 1, "0000011"),  # two branches
        ([(0, 4), (5, 6), (5, 8)], 2, "000002222"),
        ([(0, 2), (0, 2), (3, 4)], [1, 2], "11122"),
        ([(0, 2), (5, 6)], 1, "11"),  # a gap, which the caller finds
    ],
)
def test_rows_of_one_run(spans, run, expected):
    rows = one_run({number: table(number, *span) for number, span in enumerate(spans)}, run)
    assert "".join(row[0] for row in rows.values()) == expected
    assert [*rows] == [int(row[2:]) for row in rows.values()] == sorted(rows)


@pytest.mark.parametrize(
    ("spans", "run", "message"),
    [
        ([(0, 3), (0, 1)], None, r"chosen by `run`: 0 \(steps 0 to 3\), 1 \(steps 0 to 1\)"),
        ([(0, 4), (5, 6), (5, 8)], None, r"chosen by `run`: 1 \(steps 5 to 6\), 2 \(steps 5 to 8\)"),
        ([(0, 2), (0, 2), (3, 4)], None, r"run 2 begins at step 3, .*: choose run=\[0, 2\] or run=\[1, 2\]"),
        ([(0, 3)], 1, r"there is no run 1, but 0 \(steps 0 to 3\)"),
        ([(0, 3)], [0, 1], r"there is no run \[0, 1\]"),
        ([(0, 3)], "last", r"there is no run 'last'"),
    ],
)
def test_a_run_must_be_clear(spans, run, message):
    with pytest.raises(SeveralRunsError, match=message):
        one_run({number: table(number, *span) for number, span in enumerate(spans)}, run)


@pytest.mark.parametrize("content", [b"\0\xff\xfe", b"\xff,", b'"a'])
def test_another_file_is_not_appended_to(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"Received: path=.*file'"):
        RunFile(tmp_path / "file").open(["step"])
    assert (tmp_path / "file").read_bytes() == content
