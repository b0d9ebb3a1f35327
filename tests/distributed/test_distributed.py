"""Workers that do not come, or come with other packages."""

import json
import socket
import threading
import time

import keras
import pytest

from keras_lrsched import distributed
from tests.distributed.processes import free_ports, run


def addresses(number):
    return [f"127.0.0.1:{port}" for port in free_ports(number)]


def meet(places, versions, timeout=20.0):
    """The result of each worker, all in threads: `None`, or its error."""
    errors: list = [None] * len(versions)

    def worker(index):
        try:
            distributed.wait_for_workers(places, index, timeout, versions[index])
        except (ValueError, TimeoutError) as error:
            errors[index] = error

    threads = [threading.Thread(target=worker, args=(index,)) for index in range(len(versions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_all_are_there():
    assert meet(addresses(3), [{"keras": "3"}] * 3) == [None] * 3


def test_own_versions():
    versions = distributed.package_versions()
    assert versions["keras"] == keras.__version__
    assert meet(addresses(2), [None, versions]) == [None] * 2


@pytest.mark.parametrize(
    ("other", "named"),
    [({"keras": "3.14", "jax": "1"}, ("keras 3.15", "keras 3.14")), ({"keras": "3.15"}, ("jax 1 at", "jax missing"))],
)
def test_different_packages_are_refused_by_all(other, named):
    places = addresses(3)
    own = {"keras": "3.15", "jax": "1"}
    for error in meet(places, [own, own, other]):
        assert isinstance(error, ValueError)
        assert all(part in str(error) for part in (*named, places[0], places[2]))


def test_a_worker_that_does_not_come_is_named():
    places = addresses(3)
    first, second = meet(places, [{}, {}], timeout=1.0)
    for error in (first, second):
        assert isinstance(error, TimeoutError)
        assert places[2] in str(error)
        assert places[1] not in str(error)


def test_a_first_worker_that_does_not_come_is_named():
    places = addresses(2)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"No answer within 0.5 s from the first worker at {places[0]}"):
        distributed.wait_for_workers(places, 1, timeout=0.5)
    assert time.monotonic() - began < 5


def test_strangers_do_not_disturb():
    """A client that connects and sends something else, or nothing, is no worker."""
    places = addresses(2)
    host, port = places[0].split(":")

    def stranger():
        for message in (b"GET / HTTP/1.1\r\n\n", b'{"1": 5}\n', b'{"7": {}}\n', b"x" * 100000):
            while True:
                try:
                    with socket.create_connection((host, int(port)), timeout=5) as connection:
                        connection.sendall(message)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
                except OSError:
                    break
        results.extend(meet_second())

    def meet_second():
        try:
            distributed.wait_for_workers(places, 1, 20.0, {"a": "1"})
        except (ValueError, TimeoutError) as error:
            return [error]
        return [None]

    results: list = []
    thread = threading.Thread(target=stranger)
    thread.start()
    distributed.wait_for_workers(places, 0, 20.0, {"a": "1"})
    thread.join()
    assert results == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["localhost"], 0), "'localhost'"),
        ((["localhost:99999"], 0), "'localhost:99999'"),
        ((["localhost:1", "localhost:2"], 2), "index=2"),
        ((["localhost:1"], 0, 0), "timeout=0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        distributed.wait_for_workers(*arguments)


@pytest.mark.slow
def test_two_processes():
    same, other = ({"VERSIONS": json.dumps({"keras": version})} for version in ("3.15", "3.14"))
    ended = run("meeting.py", 100, workers=2, environments=[same, same], check=False)
    assert [code for code, _ in ended] == [0, 0]
    ended = run("meeting.py", 100, workers=2, environments=[same, other], check=False)
    for code, text in ended:
        assert code == 1
        assert "keras 3.15 at 127.0.0.1" in text
        assert "keras 3.14 at 127.0.0.1" in text
