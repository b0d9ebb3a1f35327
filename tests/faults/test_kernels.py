"""Two processes that build the same library at once, one of which may be killed; a cache that cannot be written to."""

import random
import time

import numpy as np
import pytest

from tests.faults.kernel_user import BUILT, build_library, update_with_read_only_cache, write_compiler

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
TRIES = 20


def start(processes, function, folder):
    told, tells = processes.Pipe(duplex=False)
    process = processes.Process(target=function, args=(folder, tells))
    process.start()
    tells.close()
    return process, told


def test_two_build_at_once(processes, tmp_path, report):
    for number in range(TRIES):
        folder = tmp_path / str(number)
        write_compiler(folder)
        both = [start(processes, build_library, folder) for _ in range(2)]
        assert [told.recv() for _, told in both] == ["starts", "starts"]
        assert [told.recv() for _, told in both] == [BUILT, BUILT]
        for process, _ in both:
            process.join()
        assert (folder / "links").read_text() == "linked\n"
    report("Two processes build the same kernels at once", TRIES, "one builds, the other waits; both have the same file")


def test_the_one_that_builds_is_killed(processes, tmp_path, report):
    chance = random.Random(5)
    for number in range(TRIES):
        folder = tmp_path / str(number)
        write_compiler(folder)
        killed, told = start(processes, build_library, folder)
        assert told.recv() == "starts"
        other, told = start(processes, build_library, folder)
        time.sleep(chance.uniform(0, 0.1))
        killed.kill()
        assert [told.recv(), told.recv()] == ["starts", BUILT]
        for process in (killed, other):
            process.join()
    report("SIGKILL while kernels are being built", TRIES, "another process builds them; no half library is ever loaded")


@pytest.mark.parametrize("exists", [True, False], ids=["read-only", "cannot be made"])
def test_a_cache_that_cannot_be_written(exists, read_only_folder, processes, report):
    folder = read_only_folder if exists else read_only_folder / "cache"
    process, told = start(processes, update_with_read_only_cache, folder)
    weights, plain, warned = told.recv()
    process.join()
    np.testing.assert_array_equal(weights, plain)
    assert len(warned) == 1
    assert "cannot be used" in warned[0]
    assert "Plain Keras operations are used instead" in warned[0]
    fault = "Cache folder for kernels read-only" if exists else "Cache folder for kernels cannot be made"
    report(fault, 1, "one warning with the reason; plain Keras operations, the same numbers")
