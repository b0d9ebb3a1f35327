"""Tables of runs: their forms, names of columns, columns that follow from others, and units."""

import json

import numpy as np
import pytest

from keras_lrsched.laws import RunTable
from keras_lrsched.laws.run_table import USUAL

ROWS = [
    {"params": 1e8, "tokens": 2e9, "final_loss": 3.4, "data": "web"},
    {"params": 4e8, "tokens": 8e9, "final_loss": 2.9, "data": "web"},
    {"params": 4e8, "tokens": 2e9, "final_loss": 3.1, "data": "code"},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


class Frame:
    """Columns by name, as a DataFrame of pandas has them."""

    def __init__(self, columns):
        self._columns = {name: np.array(column) for name, column in columns.items()}

    def keys(self):
        return self._columns.keys()

    def __getitem__(self, name):
        return self._columns[name]


def csv_text(delimiter=","):
    lines = [delimiter.join(ROWS[0]), *(delimiter.join(map(str, row.values())) for row in ROWS)]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("runs.csv", csv_text()),
        ("runs.tsv", csv_text("\t")),
        ("runs.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("runs.json", json.dumps(ROWS)),
        ("columns.json", json.dumps(COLUMNS)),
    ],
)
def test_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    runs = RunTable.read(tmp_path / name)
    assert runs.parameters.tolist() == [1e8, 4e8, 4e8]
    assert runs.tokens.tolist() == [2e9, 8e9, 2e9]
    assert runs.loss.tolist() == [3.4, 2.9, 3.1]


@pytest.mark.parametrize("source", [ROWS, COLUMNS, Frame(COLUMNS)], ids=["rows", "mapping", "frame"])
def test_objects(source):
    runs = RunTable.read(source, where={"data": "web"})
    assert len(runs) == 2
    assert runs.compute == pytest.approx([1.2e18, 1.92e19])


def test_every_column_can_be_given():
    table = RunTable(**{name: [0.5] if name == "sparsity" else [1.0] for name in USUAL}, check_units=False)
    assert all(getattr(table, name) is not None for name in USUAL)


def test_columns_by_name():
    runs = RunTable.read({"N": [1e8], "N_no_embed": [8e7], "D": [2e9], "loss_c4": [3.0]}, {"loss": "loss_c4"})
    assert runs.parameters == [1e8]
    renamed = {"loss": "loss_c4", "parameters": "N_no_embed"}
    assert RunTable.read({"N": [1e8], "N_no_embed": [8e7], "D": [2e9], "loss_c4": [3.0]}, renamed).parameters == [8e7]


def test_a_width_is_not_taken_for_tokens():
    assert RunTable.read({"N": [1e8], "d": [512], "loss": [3.0]}).tokens is None


def test_columns_that_follow_from_others():
    assert RunTable(loss=[3.0], parameters=[1e8], compute=[1.2e18]).tokens == pytest.approx([2e9])
    by_steps = RunTable(loss=[3.0], parameters=[1e8], steps=[4e3], batch_tokens=[5e5])
    assert by_steps.tokens == pytest.approx([2e9])
    assert by_steps.compute == pytest.approx([1.2e18])
    assert RunTable(loss=[3.0], tokens=[2e9], steps=[4e3]).batch_tokens == pytest.approx([5e5])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"parameters": [1e8, 1e9], "tokens": [1e4, 2e4]},
            r"`tokens` must count tokens, .* Received: 6e-05 tokens for each",
        ),
        ({"parameters": [100, 1000], "tokens": [2e9, 2e10]}, r"not millions.* Received: 2e\+07 tokens for each parameter"),
        ({"tokens": [1e4, 1e4], "steps": [1e4, 1e4]}, r"`steps` updates; .* Received: 1 tokens for each update"),
        (
            {"tokens": [1e9, 1e9], "steps": [1e4, 1e4], "batch_tokens": [256, 256]},
            "`steps` times `batch_tokens`.* 391 t",
        ),
        (
            {"tokens": [2e9, 2e9], "parameters": [1e8, 1e8], "compute": [1.2, 1.2]},
            r"`compute` .* Received: 1e-18 times",
        ),
    ],
)
def test_units(columns, message):
    with pytest.raises(ValueError, match=message):
        RunTable(loss=[3.0, 2.5], **columns)
    assert len(RunTable(loss=[3.0, 2.5], **columns, check_units=False)) == 2


@pytest.mark.parametrize(
    "columns",
    [
        {"loss": []},
        {"loss": [[3.0]]},
        {"loss": [3.0, 2.0], "parameters": [1e8]},
        {"loss": [0.0]},
        {"loss": [np.nan]},
        {"loss": [3.0], "parameters": [-1e8]},
        {"loss": [3.0], "tokens": [np.inf]},
        {"loss": [3.0], "sparsity": [1.0]},
        {"loss": [3.0], "sparsity": [-0.1]},
    ],
)
def test_bad_columns(columns):
    with pytest.raises(ValueError, match="Received: "):
        RunTable(**columns)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"N": [1e8], "D": [2e9]}, {}, "columns={'loss': ...}.*It has: N, D"),
        ({"N": [1e8], "D": [2e9], "loss": ["low"]}, {}, "'loss' must hold numbers: it has 'low'"),
        ({"N": [1e8], "D": [2e9], "loss": [None]}, {}, "`loss` must be positive and finite. Received: loss=nan in row 0"),
        (COLUMNS, {"columns": {"tokens": "T"}}, "must name columns of the table: params, tokens.* Received: 'T'"),
        (COLUMNS, {"columns": {"widths": "params"}}, "`columns` must be one of 'loss'"),
        (COLUMNS, {"where": {"data": "books"}}, "no rows with {'data': 'books'}"),
        (3, {}, "Received: runs=3"),
        ([1, 2], {}, "Received: runs="),
    ],
)
def test_bad_tables(source, options, message):
    with pytest.raises(ValueError, match=message):
        RunTable.read(source, **options)


def test_the_chart_of_a_run_is_no_table(tmp_path):
    (tmp_path / "chart.csv").write_text("Step,a - loss\n0,3.0\n1,2.0\n")
    with pytest.raises(ValueError, match="one row for each run"):
        RunTable.read(tmp_path / "chart.csv")


def test_points_of_one_run_stay_together():
    runs = RunTable(loss=[3.0, 2.9, 3.1, 2.8], run=["a", "a", "b", "a"])
    assert [rows.tolist() for rows in runs.groups()] == [[0, 1, 3], [2]]
    assert runs.distinct == 2
    assert runs.take(np.array([0, 0, 2])).run.tolist() == ["a", "a", "b"]


def test_a_run_that_is_drawn_twice_counts_once():
    runs = RunTable(loss=[3.0, 2.9], parameters=[1e8, 2e8])
    assert runs.take(np.array([0, 0, 1, 0])).distinct == 2
    assert len(runs.take(np.array([False, True]))) == 1


def test_a_column_that_is_missing():
    with pytest.raises(ValueError, match=r"must have `steps`. They have: loss, parameters"):
        RunTable(loss=[3.0], parameters=[1e8]).column("steps")


def test_mean_parameters():
    runs = RunTable(loss=[3.0, 3.0], parameters=[1e9, 1e9], tokens=[2e10, 2e10], sparsity=[0.0, 0.5])
    means = runs.with_mean_parameters()
    assert means.parameters == pytest.approx([1e9, 0.645161290e9])
    assert means.compute == pytest.approx(6 * means.parameters * 2e10)
    assert means.sparsity is None
    assert runs.with_mean_parameters(of="steps").parameters == pytest.approx([1e9, 0.6875e9])
