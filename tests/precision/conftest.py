import pytest

from tests.precision.compiled import MODES, MODES_AND_NIGHTLY, runner

SLOW_MODES = [MODES[0], *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[1:])]


@pytest.fixture(params=MODES_AND_NIGHTLY)
def run_in_every_mode(request):
    """Calls a function of arrays, eager or as a compiler of the backend has compiled it; gives NumPy arrays."""
    return runner(request.param)


@pytest.fixture(params=SLOW_MODES)
def run(request):
    """The same; what TensorFlow compiles, a second or more for each of many small functions, only among the slow tests."""
    return runner(request.param)


@pytest.fixture(params=["plain", "compiled"])
def plain_and_compiled(request, monkeypatch):
    """Runs a test with Keras operations, and with compiled code where it can be had."""
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0" if request.param == "plain" else "auto")
