"""Every feature in every program: exact by value, warned of by name, or refused by name before training."""

import gc
import inspect

import keras
import pytest

from tests.programs import quantized
from tests.programs.bench import Bench
from tests.programs.matrix import FEATURES, cells, is_quick, support
from tests.programs.program import PROGRAMS

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


STRUCTURES = ("functional", "subclassed_with_training", "nested", "conv_batch_norm", "transformer", "contrastive", "lora")
"""Those in which all recipes are tried: of which layers are called in which way, they have one each."""


NOTHING_TO_CONVERT = [(name, "double_rounding") for name in ("functional", "conv_batch_norm", "lora")]
NOTHING_TO_CONVERT += [("conv_batch_norm", "wta_crs")]
"""One recipe keeps the first layer and the last, the other one all convolutions."""


@pytest.mark.programs
@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "kind"), sorted(quantized.all_recipes().items()))
@pytest.mark.parametrize("name", STRUCTURES)
def test_other_recipes(name, recipe, kind):
    """Every other recipe behaves as the recipe of its kind that is a column."""
    program = PROGRAMS[name]
    if BACKEND not in program.backends:
        pytest.skip("not on this backend")
    assert support(program, FEATURES[f"quantize_model, {kind}"]) == "exact"
    if (name, recipe) in NOTHING_TO_CONVERT:
        with pytest.raises(ValueError, match=f"No layer of the model would compute by {recipe}"):
            quantized.weights_match(recipe)(bench_of(program))
    else:
        quantized.weights_match(recipe)(bench_of(program))
