import pytest

from keras_lrsched.kernels import _loading


@pytest.fixture
def untried():
    """Nothing of what was loaded, or could not be, is remembered."""

    def forget():
        _loading._cannot_load.cache_clear()
        _loading._warn_once.cache_clear()

    forget()
    yield
    forget()
