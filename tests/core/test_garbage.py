"""Collections of garbage are back after a pause, if they were there before."""

import contextlib
import gc

import pytest

from keras_lrsched._core.garbage import pause_garbage_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_it_is_as_it_was(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with contextlib.suppress(KeyError), pause_garbage_collection():
            assert not gc.isenabled()
            raise KeyError  # also after an import that fails
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
