"""A process in an environment that is broken somewhere: an update, by compiled code or by what replaces it."""

import os
import sys
import warnings

import keras
import numpy as np

from keras_lrsched import kernels
from keras_lrsched.kernels import _loading
from keras_lrsched.optimizers import Lion

_loading.binding("update")  # so that a forked process has it


def update(environment, prepare, connection):
    """Sends whether compiled code was called, whether the weights are those of plain operations, and its warnings."""
    os.environ |= {name: value for name, value in environment.items() if value is not None}
    for name in [name for name, value in environment.items() if value is None]:
        os.environ.pop(name, None)
    if prepare is not None:
        prepare()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weights = [_updated("auto") for _ in range(2)]
        is_compiled = kernels.reason_against([keras.Variable([0.0])]) is None
    is_right = np.allclose(weights, _updated(False), rtol=1e-6)
    connection.send((is_compiled, is_right, [str(each.message) for each in caught if each.category is UserWarning]))


def _updated(fused):
    weight = keras.Variable(np.linspace(-1, 1, 100, dtype="float32"))
    optimizer = Lion(0.01, weight_decay=0.1, fused=fused)
    optimizer.apply([keras.ops.convert_to_tensor(np.cos(np.arange(100)).astype("float32"))], [weight])
    return np.array(keras.ops.convert_to_numpy(weight))


# What is done within the process


def become_nobody():
    os.setgid(12345)
    os.setuid(12345)


def close_standard_error():
    sys.stderr.close()


def lose_the_working_folder():
    os.mkdir("lost")
    os.chdir("lost")
    os.rmdir("../lost")


def allow_others_everything():
    os.umask(0)
