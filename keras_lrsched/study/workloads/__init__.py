"""Workloads: small real models on real data, for `compare`, the benchmarks and the notebooks."""

import difflib

from keras_lrsched.study.workloads.base import Workload
from keras_lrsched.study.workloads.cifar10 import CIFAR10
from keras_lrsched.study.workloads.digits import Digits
from keras_lrsched.study.workloads.pydoc import PydocTopics
from keras_lrsched.study.workloads.shakespeare import TinyShakespeare

__all__ = ["CIFAR10", "WORKLOADS", "Digits", "PydocTopics", "TinyShakespeare", "Workload", "load"]

WORKLOADS = {workload.name: workload for workload in (Digits, PydocTopics, CIFAR10, TinyShakespeare)}
"""All workloads by name. The first two need no data folder."""


def load(name, data_dir=None):
    """The workload of this name, with its data loaded.

    Raises:
        ValueError: If there is none of this name.
        FileNotFoundError: If it needs a data folder and does not find its files there.
        ImportError: If it needs a package that is not installed.
    """
    if name not in WORKLOADS:
        close = difflib.get_close_matches(name, WORKLOADS, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(WORKLOADS)}."
        raise ValueError(f"Unknown workload {name!r}. {hint}")
    return WORKLOADS[name](data_dir)
