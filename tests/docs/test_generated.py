"""The pages that are generated leave nothing out."""

import importlib

import make_fidelity
import make_measurements
import make_programs
import make_reference
import make_results
import numpy as np
import pytest

from keras_lrsched._core import registry
from keras_lrsched.schedules import catalog as schedules


def test_every_public_name_is_in_the_reference():
    pages = dict(make_reference.pages())
    for room in make_reference.ROOMS:
        for name in importlib.import_module(f"keras_lrsched.{room}").__all__:
            assert f"\n::: keras_lrsched.{room}.{name}\n" in pages[f"reference/{room}.md"]


def test_every_room_has_a_page():
    import keras_lrsched

    rooms = {name for name in keras_lrsched.__all__ if not name.startswith("_")}
    assert rooms <= set(make_reference.ROOMS)


def test_every_command_is_in_the_reference():
    page = dict(make_reference.pages())["reference/cli.md"]
    for command in ("list", "plot", "compare", "predict fit", "predict loss", "predict best", "doctor"):
        assert f"## keras-lrsched {command}\n" in page


def test_every_method_is_in_the_fidelity_table():
    page = "\n".join(make_fidelity.page())
    rows = [*schedules.CATALOG, *schedules.OTHERS]
    names = {row.schedule.__name__ for row in rows} | {
        row.target.__name__ for row in registry.entries("optimizers") if row.name
    }
    missing = {name for name in names if f"`{name}`" not in page}
    assert not missing


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("arXiv:1. The values are those of the official code, `a.py` of b/c, which was run.", "numbers compared"),
        ("Trajectories agree with timm; the authors' Caffe code was not run.", "numbers compared"),
        ("f agrees with the official callback in b/c, which was read.", "read"),
        ("Rates are those of fastai, whose code was read but not run here.", "read"),
        ("arXiv:1 (no official code; neither text nor code was read).", "formula"),
    ],
)
def test_checked(reference, expected):
    assert make_fidelity.checked(reference) == expected


def test_sentences_keep_brackets_and_abbreviations():
    reference = "Liu et al., X (a; b. C). Then this; and that."
    assert make_fidelity.sentences(reference) == ["Liu et al., X (a; b. C).", "Then this;", "and that."]


def test_measurements_have_every_run():
    page = "\n".join(make_measurements.page())
    files = {name: make_measurements.rows(name) for name in ("optimizers.csv", "predict_before_run.csv")}
    assert all(f"`{row['optimizer']}`" in page for row in files["optimizers.csv"])
    assert all(f"`{row['schedule']}`" in page for row in files["predict_before_run.csv"])


def test_spread():
    assert make_measurements.spread([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
    assert make_measurements.spread([np.inf, 1.0]) == "inf"
    assert make_measurements.spread([1.0]) == "1.000"


def test_results_are_those_of_the_files():
    """And every notebook has some."""
    assert (make_results.FOLDER / "results.md").read_text(encoding="utf-8") == "\n".join(make_results.page()) + "\n"
    assert [path.stem for path in sorted((make_results.FOLDER / "results").glob("*.csv"))] == [
        path.stem for path in sorted(make_results.NOTEBOOKS.glob("*.ipynb"))
    ]


def test_matrix_of_programs():
    assert (make_programs.FOLDER / "programs.md").read_text(encoding="utf-8") == "\n".join(make_programs.page()) + "\n"
