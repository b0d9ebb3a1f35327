"""A run that is killed and started again."""

import warnings

import keras
import pytest

from keras_lrsched._core import runs
from keras_lrsched.callbacks import TrainingState
from tests.programs.bench import assert_equal

UNSAVED = {
    "noise_in_step": "cannot save: `RandomStandardNormal in the training step`",
    "read_once": "cannot save: `data`, the position of a Python generator",
    "shuffled_anew": "cannot save: `data.input0.input0.input0`, the order of `shuffle`",
}
"""The words of the warning for a program with a trait, of which not all can be saved."""


class Kill(keras.callbacks.Callback):
    """Ends a run before a batch; it has no state to be saved."""

    def __init__(self, after=-1):
        super().__init__()
        self.left = after

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            raise InterruptedError
        self.left -= 1

    def state(self):
        return {}

    def restore_state(self, state):
        """Restore nothing: the remaining batches were counted before."""


def killed_and_resumed(bench, folder, make=None):
    """The second run is the undisturbed one, bit for bit; or one warning has named what is not saved.

    `make` returns a new run; `None` is that of the baseline.
    """
    undisturbed = bench.baseline if make is None else make().train()
    make = make or bench.keras_run
    path = folder / "run.state"
    first = len(bench.truth.fits[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs.forget()  # this process stands for two
        try:
            make().train([Kill(min(first // 2 + 2, first - 1)), TrainingState(path)])
        except InterruptedError:
            pass
        else:
            raise AssertionError("it was not killed")
        runs.forget()  # as a new process has
        run = make().train([Kill(), TrainingState(path)])
    named = {str(each.message) for each in caught if "TrainingState" in str(each.message)}
    unsaved = [words for trait, words in UNSAVED.items() if bench.program.has(trait)]
    if unsaved:
        (warning,) = named
        assert all(words in warning for words in unsaved)
    else:
        assert not named
        assert_equal(run, undisturbed)


def refuse_another_model(bench, folder):
    """One file is not for the models of two folds."""
    run = bench.keras_run()
    with pytest.raises(ValueError, match=r"Received: path="):
        run.train([TrainingState(folder / "run.state")])
    assert not int(run.models[1].optimizer.iterations)
    runs.forget()
