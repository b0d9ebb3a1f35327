"""Training in several processes: a check that all are present with the same packages, and a `fit` on TensorFlow."""

import contextlib
import importlib.metadata
import json
import platform
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_lrsched._core import keras_private, validation

__all__ = ["enable_multi_worker_fit", "package_versions", "wait_for_workers"]

PACKAGES = ("keras-lrsched", "keras", "numpy", "tensorflow", "jax", "jaxlib", "torch")
PATIENCE = 5.0
"""Seconds to wait for the message of a connection."""
LONGEST = 65536
"""Bytes of a message; a longer one is from another program."""


def wait_for_workers(
    addresses: Sequence[str], index: int, timeout: float = 60.0, versions: dict[str, str] | None = None
) -> None:
    """Wait until all workers are present, and raise on each of them if they have different packages.

    To be called first on every worker, before `jax.distributed` or `tf.distribute` begin to use the same addresses: these
    wait for minutes and report neither a missing worker nor a difference. The first worker listens at its address, the
    others send it their versions of Python and of the packages in `PACKAGES`, and get those of all. Messages are JSON, of
    less than 64 KiB, and not secret: call it on a network that you trust.

    Args:
        addresses: `"host:port"` of each worker, in the same order everywhere.
        index: Which of them is this one, from 0.
        timeout: Seconds to wait for the others. Defaults to `60.0`.
        versions: A dictionary of names and versions to compare. Defaults to `None`, for those of Python and the packages.

    Raises:
        ValueError: If an argument is out of its range, or workers have different versions: both are named.
        TimeoutError: If a worker does not answer: with its address.

    Example:

    >>> wait_for_workers(["localhost:8470"], index=0)  # a single worker does not wait
    """
    places = [_parsed(address) for address in addresses]
    if not isinstance(index, int) or not 0 <= index < len(places):
        raise ValueError(f"`index` must be one of the {len(places)} addresses, from 0. Received: index={index!r}")
    deadline = time.monotonic() + validation.positive_float("timeout", timeout)
    own = package_versions() if versions is None else dict(versions)
    if len(places) == 1:
        return
    received = _collect(places, own, deadline) if index == 0 else _exchange(places[0], index, own, deadline)
    if not received:
        raise TimeoutError(f"No answer within {timeout:g} s from the first worker at {addresses[0]}.")
    missing = [addresses[i] for i in range(len(places)) if str(i) not in received]
    if missing:
        raise TimeoutError(f"No answer within {timeout:g} s from the worker at {', '.join(missing)}.")
    _compare([received[str(i)] for i in range(len(places))], addresses)


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that are there."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def enable_multi_worker_fit(model: keras.Model) -> keras.Model:
    """Let `fit` and `evaluate` of a model work under `MultiWorkerMirroredStrategy`, where those of Keras 3.15 fail.

    Keras takes the mean of what the steps of workers return over an axis that a scalar does not have, and, to build a model,
    the mean of a nested batch, which `tf.distribute` does not take (keras issue 20585). Here, the steps of this model return
    their values with that axis, and it is built from this worker's part of the first batch. Under any other strategy, and on
    the other backends, the model stays as it is.

    Call it on every worker, and give `fit` the same data in the same order on each, of which a worker trains on its part of
    every batch.

    Args:
        model: A Keras model, made in the scope of the strategy.

    Returns:
        The model.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> enable_multi_worker_fit(model) is model  # unchanged for one worker
    True
    """
    if keras.backend.backend() != "tensorflow":
        return model
    import tensorflow as tf

    strategy = model.distribute_strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return model

    def with_axis(step: Callable) -> Callable:
        return lambda data: keras.tree.map_structure(lambda value: tf.expand_dims(value, 0), step(data))

    def build(iterator: Any, data_batch: Any) -> None:
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(lambda x: strategy.experimental_local_results(x)[0], next(batches))
        with strategy.scope():
            keras_private.build_symbolically(model, data_batch)

    kind = type(model)
    own = {"train_step": with_axis(kind.train_step.__get__(model)), "test_step": with_axis(kind.test_step.__get__(model))}
    vars(model).update(own, train_function=None, test_function=None)
    keras_private.replace_building(model, build)
    return model


def _parsed(address: Any) -> tuple[str, int]:
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"`addresses` must be like 'host:port'. Received: {address!r}")
    return host, int(port)


def _collect(places: list[tuple[str, int]], own: dict[str, str], deadline: float) -> dict[str, dict]:
    """The first worker: collect the versions of all others until the deadline, then send all versions to each."""
    received, connections = {"0": own}, []
    with socket.create_server(places[0]) as server:
        try:
            while len(received) < len(places) and (left := deadline - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    connection, _ = server.accept()
                    connections.append(connection)
                    message = _receive(connection, min(deadline, time.monotonic() + PATIENCE))
                except (OSError, ValueError):
                    continue  # the deadline, or another program on this port
                received.update({i: versions for i, versions in message.items() if i in map(str, range(1, len(places)))})
            for connection in connections:
                _send(connection, received)
        finally:
            for connection in connections:
                connection.close()
    return received


def _exchange(place: tuple[str, int], index: int, own: dict[str, str], deadline: float) -> dict[str, dict]:
    """Another worker: send its versions to the first one; return those of all, or none if that one does not answer."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=left) as connection:
                _send(connection, {str(index): own})
                return _receive(connection, deadline + PATIENCE)  # the first one began to wait a little later
        except (OSError, ValueError):
            time.sleep(0.05)  # it may not have started yet
    return {}


def _send(connection: socket.socket, message: dict) -> None:
    with contextlib.suppress(OSError):  # a worker that has left since raises by itself
        connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, deadline: float) -> dict[str, dict]:
    """A dictionary of dictionaries of strings; `ValueError` for anything else."""
    data = b""
    while not data.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = connection.recv(4096)
        data += part
        if not part or len(data) > LONGEST:
            raise ValueError("No message of a worker.")
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("No message of a worker.") from error
    if not isinstance(message, dict) or not all(isinstance(each, dict) for each in message.values()):
        raise ValueError("No message of a worker.")
    return message


def _compare(versions: Any, addresses: Sequence[str]) -> None:
    first = versions[0]
    for other, address in zip(versions[1:], addresses[1:], strict=True):
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"All workers must have the same packages. Received: {name} {first.get(name, 'missing')} at "
                    f"{addresses[0]}, {name} {other.get(name, 'missing')} at {address}"
                )
