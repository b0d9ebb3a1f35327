"""Runs the install cell of a notebook as it is written, but with the wheel that is given as the one of the release.

Run in an environment like Colab's: python release/try_notebook.py WHEEL [NOTEBOOK]
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]
IMPORTS = """
import importlib.metadata
import keras, numpy, tensorflow
import keras_lrsched.optimizers
from keras_lrsched import kernels

print(keras_lrsched.__file__)
print({name: importlib.metadata.version(name) for name in ("keras-lrsched", "keras", "tensorflow", "numpy")})
"""


def main():
    wheel = Path(sys.argv[1]).resolve()
    name = sys.argv[2] if len(sys.argv) > 2 else "budgeted_training"
    notebook = nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)
    install = next(cell for cell in notebook.cells if "install" in cell.metadata.get("tags", ()))
    install.source, count = re.subn(
        r"^WHEEL = .*$", f"WHEEL = {json.dumps(wheel.as_uri())}", install.source, flags=re.MULTILINE
    )
    assert count == 1, "The install cell has no line WHEEL = ..."
    notebook.cells = [install, nbformat.v4.new_code_cell(IMPORTS)]
    with tempfile.TemporaryDirectory() as folder:  # outside of the checkout
        nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        print("".join(output.get("text", "") for output in cell.outputs))
    printed = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    assert str(ROOT / "keras_lrsched") not in printed, "The checkout was imported, not the wheel."


if __name__ == "__main__":
    main()
