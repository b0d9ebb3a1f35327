"""The pages that are generated leave nothing out."""

import make_fidelity
import make_measurements
import make_programs
import make_reference
import make_results
import numpy as np

from keras_lrsched._core import registry


def test_every_schedule_has_a_picture():
    for entry in registry.entries("schedules"):
        assert "<polyline" in make_reference.picture_of(entry), entry.target


def test_every_command_is_in_the_reference():
    page = dict(make_reference.pages())["methods/cli.md"]
    for command in ("list", "plot", "compare", "predict fit", "predict loss", "predict best", "doctor"):
        assert f"## keras-lrsched {command}\n" in page


def test_every_method_is_in_the_fidelity_table():
    page = "\n".join(make_fidelity.page())
    entries = [entry for room in make_fidelity.ROOMS for entry in registry.entries(room)]
    assert {entry.room for entry in entries} >= {"schedules"}
    missing = {entry.target.__name__ for entry in entries if f"`{entry.target.__name__}`" not in page}
    assert not missing


def test_fidelity_of_a_method():
    (row,) = (line for line in make_fidelity.page() if line.startswith("| [`CertifiedEpsilon`]"))
    assert row == (
        "| [`CertifiedEpsilon`](schedules/CertifiedEpsilon.md) "
        "| [2103.17268](https://arxiv.org/abs/2103.17268) "
        "| [Verified-Intelligence/auto_LiRPA](https://github.com/Verified-Intelligence/auto_LiRPA) "
        "| vectors | the official code, `eps_scheduler.py`, which was run |  |"
    )


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
