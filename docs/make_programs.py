"""Writes docs/benchmarks/programs.md: which feature works in which structure of a program.

The matrix is the declaration of tests/programs/matrix.py, each cell of which `make test-programs` checks by value.

Run as: python docs/make_programs.py
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(FOLDER.parents[1]))

from tests.programs.matrix import FEATURES, programs, support, table  # noqa: E402
from tests.programs.program import TRAITS  # noqa: E402

TEXT = """# In programs of other projects

Small programs with the structures of public Keras projects, and what each feature does in them. Every cell is what a
test expects on TensorFlow. `make test-programs` runs some of them before each change, with all features and nearly all
programs, and those of four programs on JAX and eight on PyTorch; `make test-slow` runs the others, and all recipes of low
precision in seven structures. The last run
of all cells of TensorFlow, then 1,164, was on 2026-11-28, in several parts and before later changes of the code: all passed.

- *exact*: the values are those of a run without this package, or of the method written by hand with Keras alone;
- *refused*: a `ValueError` before any weight has changed, which names the class or what it received. Where only a training
  step can show the reason, by its logs or by the optimizers that it uses, the error comes after the first batch;
- *warns*: the result is another one than asked for, and one warning names the object that is the reason;
- an empty cell: the feature does not apply, or another row tests it.
"""
MARKS = {"exact": "●", "warned": "warns", "refused": "refused", "-": ""}


def page():
    """The lines of the page."""
    yield TEXT
    yield "## Features\n"
    yield "| | feature | *exact* means | refused where the program |"
    yield "| ---: | --- | --- | --- |"
    for number, feature in enumerate(FEATURES.values(), 1):
        traits = [trait for trait in feature.refused if any(_is_refused(program, feature, trait) for program in programs())]
        yield f"| {number} | {feature.name} | {feature.exact} | {'; '.join(TRAITS[trait] for trait in traits)} |"
    yield "\n## Matrix\n\n● is exact.\n"
    yield f"| program | {' | '.join(map(str, range(1, len(FEATURES) + 1)))} |"
    yield f"| --- |{' :---: |' * len(FEATURES)}"
    for name, *row in table()[1:]:
        yield f"| [{name}](#{name}) | {' | '.join(MARKS[cell] for cell in row)} |"
    yield "\n## Programs\n"
    yield "| program | structure | backends tested |"
    yield "| --- | --- | --- |"
    for program in programs():
        backends = ", ".join(BACKENDS[backend] for backend in program.backends)
        yield f'| <span id="{program.name}">{program.name}</span> | {program.description} | {backends} |'


BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def _is_refused(program, feature, trait):
    return support(program, feature) == "refused" and program.has(trait)


if __name__ == "__main__":
    (FOLDER / "programs.md").write_text("\n".join(page()) + "\n", encoding="utf-8")
