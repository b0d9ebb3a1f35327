"""Writes the badge and the install cell of the notebooks in colab/, by `keras_lrsched.version`.

Run: python docs/make_notebooks.py            (`--check` only compares)
"""

import argparse
import json
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = runpy.run_path(str(ROOT / "keras_lrsched" / "version.py"))  # without the package, and Keras
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
EXTRAS = "tensorflow,compare"
WHEEL_TAG = "py3-none-manylinux_2_28_x86_64"
"""That of the wheel of a release, which `make wheels` builds."""

INSTALL = """\
# Installs keras_lrsched: the checkout that this notebook lies in, else the wheel of the release.
import pathlib
import sys

WHEEL = {wheel}
folders = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
checkout = next((str(each) for each in folders if (each / "keras_lrsched" / "version.py").exists()), None)
if checkout:
    sys.path.insert(0, checkout)
    source = f'--editable "{{checkout}}[{extras}]"'
elif WHEEL:
    source = f'"keras-lrsched[{extras}] @ {{WHEEL}}"'
else:
    raise RuntimeError("No release is published yet. Open the notebook in a checkout, or set WHEEL to the URL of a wheel.")
%pip install --quiet {{source}}"""


def wheel():
    """The URL of the wheel of the release of this version, or an empty string."""
    if not VERSION["REPOSITORY"]:
        return ""
    name = f"keras_lrsched-{VERSION['__version__']}-{WHEEL_TAG}.whl"
    return f"{VERSION['REPOSITORY']}/releases/download/v{VERSION['__version__']}/{name}"


def badge(name):
    """Markdown that opens a notebook in Colab, or an empty string."""
    if not VERSION["REPOSITORY"]:
        return ""
    address = VERSION["REPOSITORY"].replace("https://github.com/", "https://colab.research.google.com/github/")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({image})]({address}/blob/v{VERSION['__version__']}/colab/{name})"


def install_cell():
    """The source of the first code cell."""
    return INSTALL.format(wheel=json.dumps(wheel()), extras=EXTRAS)


def is_install_cell(cell):
    """Return `True` if a cell, as `json` or nbformat reads it, installs the package."""
    return "install" in cell["metadata"].get("tags", ())


def updated(text, name):
    """The text of a notebook with the badge under its title, and the install cell as its first code cell."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    lines = [line for line in "".join(cells[0]["source"]).splitlines() if not line.startswith("[![Open in Colab]")]
    title, body = lines[0], "\n".join(lines[1:]).strip("\n")
    cells[0]["source"] = "\n\n".join(part for part in (title, badge(name), body) if part).splitlines(keepends=True)
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    assert is_install_cell(first) or "".join(first["source"]).startswith("%pip"), f"{name} has no install cell"
    first["source"] = install_cell().splitlines(keepends=True)
    first["metadata"]["tags"] = ["install"]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a notebook would change")
    check = parser.parse_args().check
    stale = []
    for path in NOTEBOOKS:
        old = path.read_text(encoding="utf-8")
        new = updated(old, path.name)
        if new != old:
            stale.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    if check and stale:
        sys.exit(f"Run `python docs/make_notebooks.py`: {', '.join(stale)} differ.")


if __name__ == "__main__":
    main()
