"""The pool, with Ray replaced by what it asks of it: workers that are lost, that wait for room, that fit nowhere."""

import contextlib
import signal
import types

import keras
import pytest

from keras_lrsched._core import ray_pool

BACKEND = keras.backend.backend()


class ActorLostError(Exception):
    actor_init_failed = False


class FakeRay:
    """A cluster with room for `room` workers. A job is a function, which is called when its outcome is asked for."""

    def __init__(self, room, cluster=False):
        self.exceptions = types.SimpleNamespace(RayActorError=ActorLostError, OutOfMemoryError=MemoryError)
        self.room, self.cluster = room, cluster
        self.alive, self.started, self.inits = [], 0, []
        self.connected = False

    def start(self):
        self.started += 1
        worker = types.SimpleNamespace(number=self.started)
        worker.__ray_ready__ = types.SimpleNamespace(remote=lambda: ("ready", worker.number))
        self.alive.append(worker)
        return worker

    def wait(self, references, num_returns, timeout):
        placed = [worker.number for worker in self.alive[: self.room]]
        done = [each for each in references if each[0] == "job" or each[1] in placed]
        return done[:1], done[1:]

    def get(self, reference):
        return reference[1]() if reference[0] == "job" else None

    def kill(self, worker):
        self.alive.remove(worker)

    def available_resources(self):
        return {"CPU": 0.0}

    def cluster_resources(self):
        return {"CPU": float(self.room)}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": float(self.room)}}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def is_initialized(self):
        return self.connected

    def init(self, num_cpus=None, **options):
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does
        self.inits.append(num_cpus)
        if self.cluster and num_cpus is not None:
            raise ValueError("When connecting to an existing cluster, num_cpus and num_gpus must not be provided.")
        self.connected = True

    def shutdown(self):
        self.connected = False

    def remote(self, **options):
        self.options = options
        return lambda worker: types.SimpleNamespace(remote=lambda *arguments: self.start())


def run(ray, jobs, workers=2, demand=None):
    """The outcomes of functions that are called with the number of their worker."""
    pool = ray_pool.Pool(ray, ray.start, workers, {"CPU": 1} if demand is None else demand)
    try:
        return pool.map(lambda worker, job: ("job", lambda: job(worker.number), worker.number), jobs)
    finally:
        pool.close()
        assert not ray.alive


def dies(times, error=ActorLostError):
    """A job whose first workers are lost."""
    lost = []

    def job(number):
        if len(lost) < times:
            lost.append(number)
            raise error
        return number

    return job


def test_outcomes_are_in_order():
    ray = FakeRay(room=2)
    assert run(ray, [lambda _, i=i: i for i in range(5)]) == [0, 1, 2, 3, 4]
    assert ray.started == 2


@pytest.mark.parametrize("error", [ActorLostError, MemoryError])
def test_a_lost_worker_is_replaced_and_its_job_done_again(error):
    ray = FakeRay(room=1)
    assert run(ray, [dies(2, error), lambda number: number], workers=1) == [3, 3]


def test_a_job_that_ends_each_worker_is_given_up():
    ray = FakeRay(room=1)
    with pytest.raises(ActorLostError):
        run(ray, [dies(3)], workers=1)
    assert ray.started == 3


def test_an_error_of_a_job_is_not_tried_again():
    ray = FakeRay(room=1)
    with pytest.raises(ValueError, match="mine"):
        run(ray, [dies(1, ValueError("mine"))], workers=1)
    assert ray.started == 1


@pytest.mark.parametrize(("failed", "started"), [(True, 1), (False, 3)])
def test_a_worker_that_cannot_start(failed, started, monkeypatch):
    """An error of its constructor is raised at once; a worker that is lost is started again, at most twice."""
    ray = FakeRay(room=1)
    monkeypatch.setattr(ActorLostError, "actor_init_failed", failed)
    monkeypatch.setattr(ray, "get", lambda reference: dies(1)(0))
    with pytest.raises(ActorLostError):
        run(ray, [lambda _: None], workers=1)
    assert ray.started == started


def test_goes_on_with_the_workers_there_are(monkeypatch):
    ray = FakeRay(room=1)
    wait = ray.wait
    calls = []

    def slow(references, num_returns, timeout):
        calls.append(timeout)
        busy = [each for each in references if each[0] == "job"]
        return ([], references) if busy and len(calls) % 2 else wait(references, num_returns, timeout)

    monkeypatch.setattr(ray, "wait", slow)
    with pytest.warns(UserWarning, match="1 of 2 workers run after 0 s") as caught:
        assert run(ray, [lambda number: number] * 4) == [1, 1, 1, 1]
    assert [str(each.message) for each in caught] == [
        "1 of 2 workers run after 0 s. The search continues with 1; those that are missing join when the Ray cluster has "
        "room for them: CPU: 1 a worker, 0 free of 1"
    ]
    assert set(calls) == {ray_pool.PATIENCE}


def test_no_node_is_large_enough(monkeypatch):
    ray = FakeRay(room=1)
    monkeypatch.setattr(ray, "wait", lambda references, num_returns, timeout: ([], references))
    monkeypatch.setattr(ray_pool, "GIVE_UP_AFTER", 0.0)
    message = (
        "No node of the Ray cluster is large enough for a worker after 0 s: CPU: 2 a worker, 0 free of 1; x: 1 a worker, 0"
    )
    with pytest.raises(RuntimeError, match=message):
        run(ray, [lambda _: None], demand={"CPU": 2, "x": 1})


def test_a_busy_cluster_is_waited_for(monkeypatch):
    ray, calls = FakeRay(room=1), []
    wait = ray.wait

    def busy(references, num_returns, timeout):
        calls.append(references)
        return ([], references) if len(calls) < 4 else wait(references, num_returns, timeout)

    monkeypatch.setattr(ray, "wait", busy)
    monkeypatch.setattr(ray_pool, "GIVE_UP_AFTER", 0.0)
    with pytest.warns(UserWarning, match="0 of 1 workers run after 0 s. The search waits for the first"):
        assert run(ray, [lambda number: number], workers=1) == [1]


def swallowed():
    """A signal within a call of Ray."""
    with contextlib.suppress(SystemExit):
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
    raise SystemExit(1)


class TestPool:
    @pytest.fixture
    def pool(self, monkeypatch):
        def make(ray, workers=2, resources=None):
            monkeypatch.setattr(ray_pool, "load_ray", lambda: ray)
            return ray_pool.pool(object, (), workers, resources)

        return make

    def test_on_this_machine(self, pool):
        ray = FakeRay(room=2)
        with pool(ray, 2, {"num_cpus": 1.5}):
            assert ray.connected
        assert not ray.connected
        assert ray.inits == [3]

    def test_on_a_cluster(self, pool):
        """Its nodes have CPUs of their own, and Ray refuses to hear of others."""
        ray = FakeRay(room=2, cluster=True)
        with pool(ray):
            assert ray.connected
        assert ray.inits == [2, None]

    def test_by_ray_client(self, pool, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
        ray = FakeRay(room=2, cluster=True)
        with pool(ray):
            assert ray.inits == [None]

    def test_a_cluster_that_cannot_be_reached(self, pool, monkeypatch):
        """Also one whose token the program lacks: Ray's own message does not name that."""
        ray = FakeRay(room=2)

        def init(num_cpus=None, **options):
            if num_cpus is not None:
                raise ValueError
            raise ConnectionError("Failed to connect")

        monkeypatch.setattr(ray, "init", init)
        with pytest.raises(ConnectionError) as caught, pool(ray):
            pass
        assert "has this program its token (RAY_AUTH_MODE=token," in caught.value.__notes__[0]

    def test_on_the_ray_of_the_program(self, pool):
        ray = FakeRay(room=2)
        ray.connected = True
        with pool(ray):
            pass
        assert ray.connected
        assert ray.inits == []

    def test_workers_have_the_backend_of_the_program(self, pool):
        ray = FakeRay(room=2)
        with pool(ray, 2, {"runtime_env": {"env_vars": {"A": "b"}, "pip": []}, "num_gpus": 1}):
            pass
        environment = {"env_vars": {"KERAS_BACKEND": BACKEND, "A": "b"}, "pip": []}
        assert ray.options == {"num_cpus": 1, "num_gpus": 1, "runtime_env": environment}

    @pytest.mark.parametrize("former", [signal.SIG_DFL, signal.SIG_IGN, lambda number, frame: None])
    def test_sigterm_is_left_to_the_program(self, pool, former):
        kept = signal.signal(signal.SIGTERM, former)
        try:
            with pool(FakeRay(room=2)):
                inside = signal.getsignal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is former
            if former is signal.SIG_DFL:  # the workers are ended, too
                with pytest.raises(SystemExit, match="143"):
                    inside(signal.SIGTERM, None)
                with pytest.raises(SystemExit, match="143"), pool(FakeRay(room=2)):
                    swallowed()
            else:
                assert inside is former
        finally:
            signal.signal(signal.SIGTERM, kept)


@pytest.mark.parametrize(
    ("options", "demand"),
    [
        ({"num_cpus": 1}, {"CPU": 1}),
        ({"num_cpus": 0, "num_gpus": 0.5, "resources": {"tpu": 4}}, {"GPU": 0.5, "tpu": 4}),
        ({"num_cpus": 2, "memory": 1e9}, {"CPU": 2, "memory": 1e9}),
    ],
)
def test_what_a_worker_takes(options, demand):
    assert ray_pool._demand(options) == demand
