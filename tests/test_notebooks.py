"""Every notebook runs from top to bottom, and what it claims holds."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def test_install_cells_and_badges_are_those_of_the_script():
    script = runpy.run_path(str(ROOT / "docs" / "make_notebooks.py"))
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert script["updated"](text, path.name) == text, "run `python docs/make_notebooks.py`"


@pytest.mark.parametrize("repository", ["", "https://github.com/someone/keras-lrsched"])
def test_badge_and_wheel_follow_from_one_address(repository):
    script = runpy.run_path(str(ROOT / "docs" / "make_notebooks.py"))
    script["VERSION"]["REPOSITORY"] = repository  # a dictionary, which its functions share
    text = script["updated"](NOTEBOOKS[0].read_text(encoding="utf-8"), NOTEBOOKS[0].name)
    assert ("colab.research.google.com/github/someone/keras-lrsched/blob" in text) == bool(repository)
    assert (f'WHEEL = \\"{repository}/releases/download/v' in text) == bool(repository)
    assert script["updated"](text, NOTEBOOKS[0].name) == text


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
