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
)

COPIED = ("SGD, AdamW", "ScheduleHyperparameter")
"""Those that can be seen to work by the weights alone, where what is given to `fit` are copies."""

CELLS = [
    pytest.param(program, FEATURES[name], id=f"{program.name}-{name}", marks=pytest.mark.xdist_group(program.name))
    for program in EXAMPLES.values()
    for name in NAMES
    if support(program, FEATURES[name]) == "exact" and not (program.has("copies_callbacks") and name not in COPIED)
]

_bench: list[Bench] = []


@pytest.mark.programs
@pytest.mark.parametrize(("program", "feature"), CELLS)
def test_example(program, feature, tmp_path):
    if not _bench or _bench[0].program is not program:
        _bench[:] = [Bench(program)]
    check = feature.check
    check(_bench[0], tmp_path) if "folder" in inspect.signature(check).parameters else check(_bench[0])
