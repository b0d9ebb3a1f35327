"""Ray, which runs the workers: imported only when a search begins."""

import contextlib

import keras

from keras_lrsched.schedules import checks

RESTARTS = 2
"""How often a worker that dies is started again, and what it was about to do is tried again."""


def load_ray():
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise ImportError("Searches on many workers need Ray: pip install 'keras-lrsched[ray]'") from error
    return ray


@contextlib.contextmanager
def pool(worker, arguments, workers, resources=None):
    """An `ActorPool` of workers: on the cluster that the program is on, or else on this machine.

    Args:
        worker: A class.
        arguments: A tuple, for its constructor.
        workers: How many, a positive integer.
        resources: What one takes, as options of `ray.remote`. Defaults to `None`: `{"num_cpus": 1}`.
    """
    workers, ray = checks.positive_int("workers", workers), load_ray()
    options = {"num_cpus": 1, "max_restarts": RESTARTS, "max_task_retries": RESTARTS, **(resources or {})}
    was_there = ray.is_initialized()
    if not was_there:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        backend = {"env_vars": {"KERAS_BACKEND": keras.backend.backend()}}
        ray.init(num_cpus=workers, runtime_env=backend, **quiet)
    actors = [ray.remote(**options)(worker).remote(*arguments) for _ in range(workers)]
    try:
        yield ray.util.ActorPool(actors)
    finally:
        for actor in actors:
            ray.kill(actor)
        if not was_there:
            ray.shutdown()


def same_backend(backend):
    """Refuses a worker whose Keras runs on another backend than the program that started it."""
    if keras.backend.backend() != backend:
        raise ValueError(
            "The workers of a Ray cluster must use the backend of the program: set KERAS_BACKEND where Ray is started. "
            f"Received: {keras.backend.backend()!r} on a worker, {backend!r} in the program"
        )
