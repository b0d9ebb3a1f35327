"""Every feature in every program: exact by value, warned of by name, or refused by name before training."""

import gc
import inspect

import keras
import pytest

from tests.programs.bench import Bench
from tests.programs.matrix import cells, is_quick, support

BACKEND = keras.backend.backend()
_bench: list = []


def bench_of(program):
    """The runs of a program; those of the last one are dropped."""
    if not _bench or _bench[0].program is not program:
        _bench[:] = [Bench(program)]
        gc.collect()
    return _bench[0]


def case(program, feature):
    """A cell of the matrix; all of one program belong into one process."""
    marks = [pytest.mark.xdist_group(program.name), *([] if is_quick(program, feature) else [pytest.mark.slow])]
    return pytest.param(program, feature, id=f"{program.name}-{feature.name}", marks=marks)


@pytest.mark.programs
@pytest.mark.parametrize(("program", "feature"), [case(*cell) for cell in cells(BACKEND)])
def test_cell(program, feature, tmp_path):
    bench = bench_of(program)
    check = feature.refuse if support(program, feature) == "refused" else feature.check
    check(bench, tmp_path) if "folder" in inspect.signature(check).parameters else check(bench)
