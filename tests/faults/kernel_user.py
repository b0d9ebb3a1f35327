"""A process that uses compiled code: built by a stand-in for a compiler, or from a folder it may not write to."""

import os
import stat
import warnings

import keras
import numpy as np

from keras_lrsched.kernels import _build
from keras_lrsched.optimizers import Lion

COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo stand-in; exit 0; }
while [ "$1" != -o ]; do shift; done
printf 'the first half, ' > "$2"
sleep 0.02
printf 'the second half' >> "$2"
case "$2" in *library.so) echo linked >> "$LINKS";; esac
"""
BUILT = b"the first half, the second half"


def build_library(folder, connection):
    """Builds with the stand-in in the folder, and sends what the library holds."""
    compiler = folder / "compiler"
    os.environ |= {"CXX": str(compiler), "KERAS_LRSCHED_CACHE": str(folder / "cache"), "LINKS": str(folder / "links")}
    connection.send("starts")
    connection.send(_build.library("core").read_bytes())


def write_compiler(folder):
    folder.mkdir()
    (folder / "compiler").write_text(COMPILER)
    (folder / "compiler").chmod(stat.S_IRWXU)


def update_with_read_only_cache(folder, connection):
    """Sends the weights after some updates by compiled code or what replaces it, those of plain operations, and warnings."""
    os.environ |= {"KERAS_LRSCHED_CACHE": str(folder), "KERAS_LRSCHED_FUSED": "auto"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weights = _updated(fused="auto")
    connection.send((weights, _updated(fused=False), [str(each.message) for each in caught]))


def _updated(fused):
    weight = keras.Variable(np.linspace(-1, 1, 100, dtype="float32"))
    optimizer = Lion(0.01, weight_decay=0.1, fused=fused)
    optimizer.build([weight])
    for step in range(10):
        optimizer.apply([keras.ops.convert_to_tensor(np.cos(np.arange(100) + step).astype("float32"))], [weight])
    return np.array(weight.numpy())
