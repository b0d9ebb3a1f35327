"""A real Ray on this machine, with two workers, on digits."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_lrsched.data import ScheduledBatches
from keras_lrsched.tune import ParallelAutoLRS, PopulationBasedTraining

pytestmark = pytest.mark.slow
RATE = "optimizer.learning_rate"


@pytest.fixture
def ray():
    return pytest.importorskip("ray", reason="needs Ray: pip install 'keras-lrsched[ray]'")


def maker(folder):
    """A function that makes model and data; the first process that calls it dies of that."""

    def make():
        import os

        from keras_lrsched.study.workloads.digits import Digits

        try:
            os.close(os.open(folder / "died", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os._exit(1)
        workload = Digits()
        model = workload.compiled_model(0.1, seed=0, jit_compile=False)
        x, y = (np.concatenate(parts) for parts in zip(*(workload.train_batch(t, 0) for t in range(8)), strict=True))
        return model, {"x": ScheduledBatches(x, y, batch_size=32, seed=0), "validation_data": workload.validation}

    return make


def test_population(ray, tmp_path):
    make = maker(tmp_path)
    search = PopulationBasedTraining({RATE: (1e-3, 1.0)}, population=3, rounds=2, perturbation_factors=(2.0, 0.5))
    found = search.search(make, tmp_path / "search", workers=2)
    assert not ray.is_initialized()
    assert (tmp_path / "died").exists()
    assert len(found.copies) == 1
    assert found.policy.ends == [8, 16]
    model, fit = make()
    history = model.fit(**fit, epochs=2, verbose=0, callbacks=found.policy.callbacks()).history
    assert history["val_loss"][-1] == pytest.approx(found.value, rel=1e-3)


def test_candidates(ray):
    from keras_lrsched.callbacks import AutoLRS
    from keras_lrsched.study.workloads.digits import Digits

    def make_model():
        from keras_lrsched.study.workloads.digits import Digits

        return Digits().compiled_model(0.1, seed=0, jit_compile=False)

    workload = Digits()
    x, y = (np.concatenate(parts) for parts in zip(*(workload.train_batch(t, 0) for t in range(8)), strict=True))
    options = {"search_steps": 8, "exploitation_steps": 8, "candidates": 4, "search": "log_grid"}
    stages = []
    for autolrs in (AutoLRS(1e-3, 1.0, **options), ParallelAutoLRS(make_model, 1e-3, 1.0, workers=2, **options)):
        batches = ScheduledBatches(x, y, batch_size=32, seed=0)
        make_model().fit(batches, epochs=1, verbose=0, callbacks=[autolrs])
        stages.append(autolrs.stages)
    assert not ray.is_initialized()
    np.testing.assert_allclose(stages[0][0]["tried"], stages[1][0]["tried"], rtol=1e-3)


def test_what_goes_wrong_on_a_worker_is_told(ray, tmp_path):
    def make():
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        PopulationBasedTraining({RATE: (1e-3, 1.0)}, population=2).search(make, tmp_path / "search", workers=1)
    assert not ray.is_initialized()


def alive(word):
    """The processes that have a word in their environment."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if word.encode() in (folder / "environ").read_bytes():
                    yield int(folder.name)


def test_a_search_that_is_ended_goes_on(ray, tmp_path):
    """By SIGTERM, which a batch system sends first, then by SIGKILL; no process of Ray outlives it."""
    program = [sys.executable, str(Path(__file__).with_name("long_search.py"))]
    word = f"IT_IS={tmp_path}"
    environment = {**os.environ, "IT_IS": str(tmp_path)}
    for number, begun in ((signal.SIGTERM, "rounds/0/0/outcome.json"), (signal.SIGKILL, "rounds/1/0/outcome.json")):
        search = subprocess.Popen([*program, str(tmp_path / "found")], env=environment)
        deadline = time.monotonic() + 120
        while not (tmp_path / "found" / begun).exists():
            assert search.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        search.send_signal(number)
        assert search.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        while [*alive(word)]:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    found, whole = (
        subprocess.run([*program, str(tmp_path / name)], capture_output=True, text=True, check=True, timeout=300).stdout
        for name in ("found", "whole")
    )
    assert found == whole
