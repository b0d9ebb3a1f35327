"""One of two workers is killed with SIGKILL."""

from pathlib import Path

import pytest

from keras_lrsched._core import checkpoint_file
from tests.distributed.processes import run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
KILLS = (3, 6)


def test_a_worker_is_killed(tmp_path, report):
    script = Path(__file__).with_name("two_workers.py")
    for kill in KILLS:
        (first, text), (second, _) = run(script, tmp_path, kill, workers=2, timeout=300, check=False)
        assert second == -9
        assert first > 0
        assert "UnavailableError" in text or "InternalError" in text or "heartbeat" in text
        assert checkpoint_file.read(tmp_path / "state")["step"] == kill
    for result in run(script, tmp_path, -1, workers=2, timeout=300):
        assert result == {"first": KILLS[-1], "same": True}
    report(
        "One of two workers killed, `MultiWorkerMirroredStrategy` with a loop that saves by `state_file`",
        len(KILLS),
        "the other ends with TensorFlow's error; started again, both resume exactly",
    )


def test_a_worker_of_jax_is_killed(tmp_path, report):
    script = Path(__file__).with_name("two_jax_workers.py")
    for kill in KILLS:
        (first, text), (second, _) = run(script, tmp_path, kill, workers=2, timeout=300, check=False)
        assert second == -9
        assert first != 0
        assert "Gloo all-reduce failed" in text or "JAX distributed service detected fatal errors" in text
        saved = checkpoint_file.read(tmp_path / "state")["step"]
        assert saved in (kill - 1, kill)  # the first one may not have had its answer yet
    for result in run(script, tmp_path, -1, workers=2, timeout=300):
        assert result == {"first": saved, "same": True}
    report(
        "One of two workers killed, JAX with `DataParallel`, `fit` and `TrainingState`",
        len(KILLS),
        "the other ends with JAX's error; started again, both resume exactly",
    )
