"""The report of a study: Markdown, pictures, CSV, one HTML page, TensorBoard event files, and runs of MLflow."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from keras_lrsched._core import validation
from keras_lrsched.study._report import _data, _files, _html, _markdown, _mlflow, _pictures, _tensorboard
from keras_lrsched.study.results import Results

PARTS = ("csv", "tensorboard", "pictures", "html", "markdown")
_NEEDED = {"pictures": ("matplotlib", "plot"), "tensorboard": ("tensorboard", "compare")}
"""The package that a part needs, and the extra that installs it."""


def write(
    results: Results,
    directory: str | os.PathLike[str],
    parts: Sequence[str] = PARTS,
    mlflow: str | None = None,
    title: str = "",
) -> Path:
    """Write the report of a study; files of an earlier one are replaced.

    `report.html` is one file which requests nothing from the network; `report.md` has the same tables, with `study.png` and
    `verdicts.png`; `Results.to_csv` describes the CSV files; `tensorboard/` has curves, and settings for HParams.

    Args:
        results: The results.
        directory: A folder, made if it is missing. It may be that of the study.
        parts: Which of `"csv"`, `"tensorboard"`, `"pictures"`, `"html"` and `"markdown"` are written. Defaults to all.
        mlflow: A tracking URI of MLflow, which is a server's address, a folder or, with the package `mlflow`, a database, to
            which each run is logged that is not there yet; the experiment is `title`. Defaults to `None`: none.
        title: Defaults to `""`: "Study" and the name of the directory.

    Returns:
        The folder.

    Raises:
        ValueError: If a part is unknown.
        ImportError: If a package is missing that a part needs; before anything is written.
        OSError: If the folder cannot be written to.

    Example:

    >>> import tempfile
    >>> from keras_lrsched.study import results
    >>> from keras_lrsched.study.trial import Outcome, Trial
    >>> evaluations = {"val_loss": np.array([1.0, 0.5])}
    >>> trial = Trial("adamw", "cosine", 0.001, budget=2, seed=0)
    >>> loss, rate, steps = np.array([2.0, 1.0]), np.array([0.001, 0.0]), np.array([1, 2])
    >>> outcome = Outcome(trial, "finished", loss, rate, steps, evaluations, seconds=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = (write(results.Results([outcome]), folder, parts=["markdown"]) / "report.md").read_text()
    >>> [line for line in text.splitlines() if line.startswith("adamw")]
    ['adamw, cosine with a peak of 0.001 has the lowest val\\\\_loss: 0.5.']
    """
    _check(parts, mlflow)
    folder = _files.folder(directory)
    title = title or f"Study {folder.resolve().name}"
    report = _data.Report(results, title)
    for part in (part for part in PARTS if part in parts):
        _write_part(part, report, folder, parts)
    if mlflow is not None:
        _mlflow.log(results.outcomes, mlflow, title, results.settings)
    return folder


def _check(parts: Sequence[str], mlflow: str | None) -> None:
    for part in parts:
        validation.one_of("parts", part, PARTS)
        package, extra = _NEEDED.get(part, ("", ""))
        if package and importlib.util.find_spec(package) is None:
            raise ImportError(
                f"The part {part!r} of a report needs {package}: pip install 'keras-lrsched[{extra}]', "
                "or leave it out of `parts`."
            )
    if mlflow is not None:
        _mlflow.require()


def _write_part(part: str, report: _data.Report, folder: Path, parts: Sequence[str]) -> None:
    if part == "csv":
        report.results.to_csv(folder)
    elif part == "tensorboard":
        _tensorboard.write(report.results.outcomes, folder / "tensorboard")
    elif part == "pictures":
        _files.replace(folder / "study.png", _pictures.study(report))
        _files.replace(folder / "verdicts.png", _pictures.verdicts(report))
    elif part == "html":
        _files.replace(folder / "report.html", _html.page(report))
    else:
        pictures = ("study.png", "verdicts.png") if "pictures" in parts else ()
        _files.replace(folder / "report.md", _markdown.markdown(report, pictures, "report.html" if "html" in parts else ""))
