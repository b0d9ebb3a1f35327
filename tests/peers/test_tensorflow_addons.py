"""TensorFlow Addons 0.23 on TensorFlow 2.15, which run in an environment and a process of their own."""

import json
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lrsched import schedules
from keras_lrsched.optimizers import COCOB, AdamW, Lamb, Lookahead, RectifiedAdam
from keras_lrsched.schedules import Tabulated

from .problem import STEPS, deviation
from .runs import ours

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-tfa" / "bin" / "python"
EXACT = 1e-6


@pytest.fixture(scope="module")
def peer():
    if not PYTHON.exists():
        pytest.skip("needs the environment of `make test-peers`")
    done = subprocess.run([PYTHON, "-m", "tests.peers.tfa_runs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def radam(learning_rate=0.02, **options):
    """With the epsilon of TensorFlow Addons, and its decay rates, which are float32 there."""
    beta_1, beta_2 = np.float32([0.9, 0.999]).tolist()
    return RectifiedAdam(learning_rate, beta_1, beta_2, epsilon=1e-7, **options)


def warmup():
    """The schedule that `total_steps`, `warmup_proportion` and `min_lr` define in TensorFlow Addons."""
    rise = 0.02 * np.arange(1, 11) / 10
    fall = 0.02 + (1e-3 - 0.02) / 40 * np.minimum(np.arange(1, STEPS - 9), 40)
    return Tabulated(np.concatenate([rise, fall]))


PAIRS = {
    "lamb": lambda: Lamb(0.02, epsilon=1e-6, weight_decay=0.1),
    "lamb_no_decay": lambda: Lamb(0.02, epsilon=1e-6),
    "lamb_exclusions": lambda: Lamb(
        0.02, epsilon=1e-6, weight_decay=0.1, exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=["bias"]
    ),
    "radam": radam,
    "radam_decay": lambda: radam(weight_decay=0.1, sma_threshold=6.0),
    "radam_warmup": lambda: radam(warmup()),
    "lookahead": lambda: Lookahead(keras.optimizers.SGD(0.05, momentum=0.9), sync_period=5, slow_step_size=0.4),
    "lookahead_radam": lambda: Lookahead(radam()),
    # the decay is divided by the learning rate; epsilon is small, since it is added before the correction in there
    "adamw": lambda: AdamW(0.02, weight_decay=0.1, epsilon=1e-12),
    "sgdw": lambda: keras.optimizers.SGD(0.02, momentum=0.9, weight_decay=0.1),
    "cocob": lambda: COCOB(alpha=10.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_optimizer(peer, name):
    theirs = [{key: np.array(value) for key, value in now.items()} for now in peer["optimizers"][name]]
    assert deviation(ours(PAIRS[name]()), theirs) < EXACT


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CyclicalLearningRate", {"scale_fn": lambda count: 1 / count, "scale_mode": "cycle"}),
        ("TriangularCyclicalLearningRate", {}),
        ("Triangular2CyclicalLearningRate", {}),
        ("ExponentialCyclicalLearningRate", {"gamma": 0.99}),
    ],
)
def test_schedule(peer, name, options):
    mine = getattr(schedules, name)(1e-3, 6e-3, step_size=7, **options).values(60)
    np.testing.assert_allclose(mine, peer["schedules"][name], rtol=2e-6)  # they are float32
