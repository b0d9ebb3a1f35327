"""Executors hand on the outcome of each trial, whatever becomes of their workers."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lrsched._core import ray_pool
from keras_lrsched.study import executors
from keras_lrsched.study.journal import Journal
from keras_lrsched.study.trial import Outcome, Trial
from tests.core.test_ray_pool import ActorLostError, FakeRay
from tests.nightly import nightly
from tests.study import test_study

TRIALS = [Trial("sgd", "constant", 0.1, 10, seed) for seed in range(5)]


def outcome_of(trial, **values):
    numbers = {name: np.array([value]) for name, value in values.items()}
    return Outcome(trial, "finished", np.array([1.0]), np.array([0.1]), np.array([1]), numbers, 0.0)


class Runner:
    """A stand-in for training that reports on its process; trials with these seeds end it, as often as given."""

    reuse_model = False

    def __init__(self, folder, deaths=None):
        self.folder, self.deaths = folder, deaths or {}
        self.problem, self.optimizers, self.schedules = types.SimpleNamespace(), {}, {}

    def __call__(self, trial, after_step=None):
        died = len(list(Path(self.folder).glob(f"{trial.seed}-*")))
        if died < self.deaths.get(trial.seed, 0):
            (Path(self.folder) / f"{trial.seed}-{died}").touch()
            print("about to end")
            os.kill(os.getpid(), signal.SIGKILL)
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
        threads = int(os.environ["OMP_NUM_THREADS"])
        return outcome_of(trial, pid=os.getpid(), core=min(cores), cores=len(cores), threads=threads)


def run(runner, trials=TRIALS, workers=1, name="processes"):
    made = []
    with executors.make(name, runner, workers) as executor:
        executor.run(trials[:3], made.append)
        executor.run(trials[3:], made.append)
    return made


def test_a_process_for_several_trials(tmp_path):
    made = run(Runner(tmp_path), TRIALS[:2])
    assert [each.trial for each in made] == TRIALS[:2]
    value = [{name: int(array[0]) for name, array in each.evaluations.items()} for each in made]
    assert value[0] == value[1]
    assert value[0]["threads"] == value[0]["cores"] == 1
    assert value[0]["pid"] != os.getpid()
    assert not _is_running(value[0]["pid"])


@nightly
def test_processes_that_are_lost(tmp_path):
    """Of one thread on one core; a lost one is replaced, and a trial that ends two is given up."""
    made = run(Runner(tmp_path, deaths={1: 1, 3: 2}))
    assert {each.trial for each in made} == set(TRIALS)
    found = {each.trial.seed: each for each in made}
    assert [found[seed].status for seed in range(5)] == ["finished", "finished", "finished", "failed", "finished"]
    assert found[3].error == (
        "The worker process of this run was lost 2 times. It was ended by SIGKILL; it has printed: about to end"
    )
    value = {seed: {name: int(array[0]) for name, array in each.evaluations.items()} for seed, each in found.items()}
    assert value[0]["pid"] != value[1]["pid"] == value[2]["pid"] != value[4]["pid"]
    assert os.getpid() not in {each.get("pid") for each in value.values()}
    assert value[0]["threads"] == value[0]["cores"] == 1
    assert not _is_running(value[4]["pid"])


@nightly
def test_processes_have_cores_of_their_own(tmp_path):
    made = run(Runner(tmp_path), workers=2)
    cores = {int(each.evaluations["pid"][0]): int(each.evaluations["core"][0]) for each in made}
    assert len(set(cores.values())) == min(len(cores), len(executors._cores()))


def _is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


STAND_IN = """
import os, pickle, struct, sys
for _ in range({frames}):
    sys.stdin.buffer.read(struct.unpack("<Q", sys.stdin.buffer.read(8))[0])
    if _ == 1:
        content = pickle.dumps("ready")
        os.write(1, struct.pack("<Q", len(content)) + content)
print("I0000 00:00:1.5 4 port.cc:153] oneDNN", "no such thing", sep=chr(10), file=sys.stderr, flush=True)
os.kill(os.getpid(), 15)
"""
"""A process that ends after so many messages, without Keras."""


def test_a_process_that_is_lost_with_each_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(executors._worker, "COMMAND", STAND_IN.format(frames=3))
    made = run(Runner(tmp_path), TRIALS[:2])
    assert [each.trial for each in made] == TRIALS[:2]
    assert {(each.status, each.error) for each in made} == {
        ("failed", "The worker process of this run was lost 2 times. It was ended by SIGTERM; it has printed: no such thing")
    }


def test_a_process_that_cannot_start(tmp_path, monkeypatch):
    monkeypatch.setattr(executors._worker, "COMMAND", STAND_IN.format(frames=1))
    with pytest.raises(RuntimeError, match=r"cannot start\. It was ended by SIGTERM; it has printed: no such thing"):
        run(Runner(tmp_path), TRIALS)


def test_serial_is_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = run(Runner(tmp_path), name=None)
    assert [each.trial for each in made] == TRIALS
    assert {int(each.evaluations["pid"][0]) for each in made} == {os.getpid()}


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"train": test_study.generated, "callbacks": (lambda lock: lambda: [lock])(sys.stdout)}, "`callbacks`"),
        ({"optimizers": {"mine": lambda rate, stream=sys.stdout: keras.optimizers.SGD(rate)}}, "'mine' of `optimizers`"),
        ({"train": (x for x in [test_study.TRAIN])}, "`train`"),
    ],
)
def test_what_cannot_be_sent_to_a_process(options, culprit):
    with pytest.raises(ValueError, match=rf"{culprit} cannot .*Define functions in a module .* or take workers=1"):
        test_study.study(**options, workers=2)


def test_lambdas_need_cloudpickle(monkeypatch):
    def mine(learning_rate):
        return keras.optimizers.SGD(learning_rate)

    assert len(executors._worker.dumps(mine)) > 10
    monkeypatch.setattr(executors._worker.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'mine' of `optimizers` cannot .* install cloudpickle"):
        test_study.study(optimizers=[mine], workers=2)


class ClusterWorker:
    """A worker of the stand-in for Ray, whose outcomes are made when they are asked for."""

    def __init__(self, lose):
        self.lose = lose
        self.run = types.SimpleNamespace(remote=self._run)

    def _run(self, trial):
        return "job", lambda: self._outcome(trial), id(self)

    def _outcome(self, trial):
        if self.lose.get(trial.seed, 0):
            self.lose[trial.seed] -= 1
            raise ActorLostError(f"lost with {trial.seed}")
        return outcome_of(trial, val_loss=trial.seed)


class Cluster(FakeRay):
    def __init__(self, lose):
        super().__init__(room=2)
        self.lose = lose

    def start(self):
        worker = super().start()
        worker.run = ClusterWorker(self.lose).run
        return worker


@pytest.fixture
def cluster(monkeypatch):
    def make(lose):
        ray = Cluster(lose)
        monkeypatch.setattr(ray_pool, "load_ray", lambda: ray)
        return ray

    return make


def test_ray(cluster, tmp_path):
    """Each outcome is handed on as it comes. A trial that ends all of its workers is recorded, and the others are run."""
    ray = cluster({1: 2, 3: ray_pool.RETRIES + 1})
    made = run(Runner(tmp_path), name="ray", workers=2)
    assert sorted(each.trial.seed for each in made) == [0, 1, 2, 3, 4]
    failed = [each for each in made if each.status == "failed"]
    assert [each.trial.seed for each in failed] == [3]
    assert "ActorLostError: lost with 3" in failed[0].error
    assert not ray.alive
    assert ray.options["num_cpus"] == 1


def test_ray_hands_on_outcomes_as_they_come(cluster, tmp_path):
    cluster({})
    made = []

    def done(outcome):
        made.append(outcome)
        if len(made) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), executors.make("ray", Runner(tmp_path), 1) as executor:
        executor.run(TRIALS, done)
    assert len(made) == 2


def test_a_worker_of_ray_runs_the_runner(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = executors.RayWorker(executors.packed(Runner(tmp_path)), keras.backend.backend())
    assert worker.run(TRIALS[0]).trial == TRIALS[0]
    with pytest.raises(ValueError, match="must use the backend of the program"):
        executors.RayWorker(b"", "another")


# Whole studies in workers


def options(folder=None):
    return {
        "optimizers": ["sgd", "adamw", lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9)],
        "metrics": ["mae", keras.metrics.MeanSquaredError(name="mse")],
        "loss": keras.losses.Huber(),
        "seeds": 2,
        "directory": folder,
    }


@nightly
def test_the_same_results_by_workers(tmp_path):
    by_workers = test_study.study(**options(tmp_path), workers=2)
    outcomes = by_workers.outcomes(verbose=0)
    assert len(Journal(tmp_path).outcomes()) == 6
    for left, right in zip(outcomes, test_study.study(**options()).outcomes(verbose=0), strict=True):
        assert left.trial == right.trial
        assert left.error == right.error == ""
        np.testing.assert_array_equal(left.loss, right.loss)
        assert left.evaluations.keys() == {"val_loss", "val_mae", "val_mse"}
        for name in left.evaluations:
            np.testing.assert_array_equal(left.evaluations[name], right.evaluations[name])


@pytest.mark.slow
@pytest.mark.timeout(3600)  # each of the programs takes seconds to start
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills(tmp_path, workers):
    """No finished run is lost or made twice, no worker is left, and the table is that of an undisturbed study."""
    from tests.study import killed_study

    random, lines, runs = np.random.default_rng(workers), [], tmp_path / "runs.jsonl"
    for _ in range(20):
        program = _start(tmp_path, workers)
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        in_the_middle = bool(random.integers(2))  # or as it starts
        wanted = len(lines) + in_the_middle
        _wait_until(lambda wanted=wanted: len(_whole_lines(runs)) >= wanted, seconds=300)
        time.sleep(random.uniform(0, 0.2 if in_the_middle else 6.0))
        children = _children(program.pid)
        program.kill()
        assert program.communicate()[0] == ""
        now = _whole_lines(runs)
        assert now[: len(lines)] == lines
        lines = now
        _wait_until(lambda pids=children: not any(map(_is_alive, pids)), seconds=300)  # also one that has just been started
    assert _start(tmp_path, workers).communicate()[0] == "ready\ndone\n"
    outcomes = Journal(tmp_path).outcomes()
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == len(outcomes) == 40
    undisturbed = killed_study.make()
    expected = {each.trial: each for each in undisturbed.outcomes(verbose=0)}
    assert expected.keys() == {each.trial for each in outcomes}
    for each in outcomes:
        np.testing.assert_array_equal(each.loss, expected[each.trial].loss)


def _start(folder, workers):
    command = [sys.executable, "-m", "tests.study.killed_study", str(folder), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid):
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _whole_lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []
