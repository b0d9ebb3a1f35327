"""The features that a task or a tracker could disturb, in programs around other libraries."""

import inspect

import pytest

from tests.programs.bench import Bench
from tests.programs.examples import EXAMPLES
from tests.programs.matrix import FEATURES, support

NAMES = (
    "LearningRateLogger",
    "LossRecorder",
    "GradientNormRecorder",
    "WeightAveraging",
    "SGD, AdamW",
    "ScheduleHyperparameter",
    "LearningRateFinder",
    "ScheduledBatches",
    "TrainingState",
    "quantize_model, mxfp8",
)

COPIED = ("SGD, AdamW", "ScheduleHyperparameter")
"""Those that can be seen to work by the weights alone, where what is given to `fit` are copies."""

CELLS = [
    pytest.param(program, FEATURES[name], id=f"{program.name}-{name}")
    for program in EXAMPLES.values()
    for name in NAMES
    if support(program, FEATURES[name]) != "-" and not (program.has("copies_callbacks") and name not in COPIED)
]

REWRITTEN = ("resnet_classifier",)
"""Programs whose arithmetic TensorFlow rewrites, with other roundings, by what else is in the graph, as are norms."""

_bench: list[Bench] = []


def bench_of(program):
    """The runs of a program; those of the last one are dropped."""
    if not _bench or _bench[0].program is not program:
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": program.name not in REWRITTEN})
        _bench[:] = [Bench(program)]
    return _bench[0]


@pytest.mark.programs
@pytest.mark.parametrize(("program", "feature"), CELLS)
def test_example(program, feature, tmp_path):
    bench = bench_of(program)
    check = feature.refuse if support(program, feature) == "refused" else feature.check
    check(bench, tmp_path) if "folder" in inspect.signature(check).parameters else check(bench)
