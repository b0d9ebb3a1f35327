"""Writes results.md: what papers claim beside what the notebooks of colab/ measured.

`python docs/make_results.py --run` runs the notebooks first, and keeps their claims in docs/benchmarks/results/.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "benchmarks"
NOTEBOOKS = FOLDER.parents[1] / "colab"
INTRODUCTION = """# What the papers claim, and what we measured

Written by `python docs/make_results.py --run`, which runs the notebooks of `colab/` in quick mode: small models and data,
two CPU cores, TensorFlow 2.21, minutes. A paper's claim about a large language model may well be true where it does not show
here; what shows here, anyone can repeat on a laptop.

Measured: mean over the seeds ± their standard deviation, above zero where the claim shows. Verdict: **agrees** where each
seed shows it, **weaker** where the mean does, else **does not show at this scale**. A claim that something is *as good* may
fall short by the margin that is written beside it."""


def run(path, folder):
    """Runs a notebook in a folder, where it leaves claims.csv."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()


def run_all(names):
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run(path, folder)
            shutil.copy(Path(folder) / "claims.csv", FOLDER / "results" / f"{path.stem}.csv")


def page():
    from keras_lrsched.study import claims

    found = {path.stem: claims.load(path) for path in sorted((FOLDER / "results").glob("*.csv"))}
    verdicts = [each.verdict for some in found.values() for each in some]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in ("agrees", "weaker", "does not show at this scale")]
    yield INTRODUCTION
    yield f"\n{len(verdicts)} claims: {', '.join(counts)}.".replace("agrees", "agree").replace("does not", "do not")
    for name, some in found.items():
        yield f"\n## {title(NOTEBOOKS / f'{name}.ipynb')}\n"
        yield f"[{name}.ipynb](../../colab/{name}.ipynb)\n"
        yield claims.markdown(some)


def title(path):
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].lstrip("# ")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run the notebooks first")
    parser.add_argument("names", nargs="*", help="of the notebooks that run (default: all)")
    arguments = parser.parse_args()
    if arguments.run:
        run_all(arguments.names)
    (FOLDER / "results.md").write_text("\n".join(page()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
